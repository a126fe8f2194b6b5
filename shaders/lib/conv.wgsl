// import x

// What every convolution kernel shares: its bindings, and where a tap reads.
//
//   sum[b, co, p] = sum_{ci, tap} w[b, co, ci, tap] * c[b, ci] * x[b, ci, q(p, tap)]
//   y[b, co, p]   = act( scale[co] * ( f[b, co] * sum[b, co, p] + bias[b, co] ) + shift[co]
//                        + residual[b, co, p] )
//   q(p, tap)     = p * stride + tap * dilation - pad
//                   transposed: (p + pad - tap * dilation) / stride, where that is whole
//
// f and c are gains of output channels (filters) and input channels. What follows the sum stands in
// epilogue.wgsl. With MAP the sum runs over kernels k too, mixed at every position:
//
//   y[b, co, p] = sum_k map[b, k, p] * ( sum_{ci, tap} w[k, co, ci, tap] * x[b, ci, q(p, tap)]
//                                        + bias[k, co] )
//
// A long reduction may run in several dispatches, each over some input channels: all but the first
// add to what is in y (CONTINUES), and the last one applies the epilogue (ENDS).
//
// Or it is split among workgroups (split-K), each of which sums over `slice_channels` input
// channels: the raw sums, in y's place, are [slices, batch, channels out, positions] (not ENDS).
// sum_slices.wgsl adds them up.
//
// Constants that the host joins in front: CONTINUES, ENDS, KERNEL_*, STRIDE_*, DILATION_* (D, H,
// W), MIXED (kernels that a map mixes), MAP (0 none, 1 all positions, 2 to 4 one axis), WEIGHT_STEP
// (1 or 16), TRANSPOSED, X_NHWC, Y_NHWC, HAS_BIAS, CHANNEL_GAIN, FILTER_GAIN, HAS_AFFINE,
// HAS_RESIDUAL, ACTIVATION, WORKGROUP.

struct ConvParams {
    // First element of each operand inside its binding.
    x_base: u32,
    sample_weights_base: u32,
    gains_base: u32,
    affine_base: u32,
    residual_base: u32,
    y_base: u32,
    // Of the kernels that bind sample_weights a second time, to read several at once.
    wide_weights_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,
    // Input channels of a group that this dispatch sums over.
    ci_begin: u32,
    ci_end: u32,
    // Of these, the channels that one workgroup sums over: all, but where the sum is split.
    slice_channels: u32,

    in_d: u32,
    in_h: u32,
    in_w: u32,
    out_d: u32,
    out_h: u32,
    out_w: u32,
    pad_d: u32,
    pad_h: u32,
    pad_w: u32,

    // Elements from one sample's row to the next; 0 when all samples share one kernel.
    sample_stride: u32,
    // Where the bias begins in a row.
    bias_offset: u32,
    gain_stride: u32,
    channel_gain_offset: u32,
    filter_gain_offset: u32,

    // Slope or scale and shift of the activations that have them.
    activation_a: f32,
    activation_b: f32,

    // Workgroups that have work; a folded dispatch may start more.
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> params: ConvParams;
// [batch or 1, sample_stride]: each sample's kernel [channels out, channels in / groups, TAPS],
// then its bias [channels out], if it has one; with MAP, MIXED kernels and MIXED biases. With
// WEIGHT_STEP 16 a kernel is in blocks, [groups, blocks, channels in / groups, TAPS, 16]: the
// weights of 16 output channels lie together, the last block of a group being filled up with zeros.
@group(0) @binding(2) var<storage, read> sample_weights: array<f32>;
// [batch, gain_stride]: gains of channels and filters, each at its own offset; with MAP the map of
// mixing weights [batch, MIXED, positions or size of one axis].
@group(0) @binding(3) var<storage, read> gains: array<f32>;
// [2, channels out]: scale, then shift (a folded batch norm).
@group(0) @binding(4) var<storage, read> affine: array<f32>;
// Bindings 1, 5 and 6 are x, residual and y: see elem/.

const TAPS: u32 = KERNEL_D * KERNEL_H * KERNEL_W;

fn ceil_div(a: u32, b: u32) -> u32 {
    return (a + b - 1u) / b;
}

fn positions() -> u32 {
    return params.out_d * params.out_h * params.out_w;
}

// Where a tap reads along one axis. A position left of the map wraps to a huge number, so that
// `position < size` is the whole test for zero padding.
fn tap_position(out: u32, stride: u32, tap: u32, dilation: u32, pad: u32) -> u32 {
    if TRANSPOSED {
        let shifted = out + pad - tap * dilation;
        let is_whole = shifted % stride == 0u && shifted < 0x80000000u;
        return select(0xffffffffu, shifted / stride, is_whole);
    }
    return out * stride + tap * dilation - pad;
}

// Element of a tensor [batch, channels, size] or, with the channels innermost, [batch, size,
// channels].
fn element(is_nhwc: bool, b: u32, channels: u32, channel: u32, size: u32, position: u32) -> u32 {
    if is_nhwc {
        return (b * size + position) * channels + channel;
    }
    return (b * channels + channel) * size + position;
}

// Where an input lies in x. `channel` counts over all groups.
fn x_element(b: u32, channel: u32, position: u32) -> u32 {
    let size = params.in_d * params.in_h * params.in_w;
    return params.x_base
        + element(X_NHWC, b, params.groups * params.c_in, channel, size, position);
}

// x[b, channel, position] times the channel's gain. `channel` counts over all groups.
fn x_at(b: u32, channel: u32, position: u32) -> f32 {
    let value = x_value(x_element(b, channel, position));
    if CHANNEL_GAIN {
        let first = params.gains_base + b * params.gain_stride + params.channel_gain_offset;
        return value * gains[first + channel];
    }
    return value;
}

// x_at under zero padding. A tap in the padding reads some element of the map and drops it: cheaper
// than a branch.
fn input_at(b: u32, channel: u32, z: u32, row: u32, column: u32) -> f32 {
    let inside = z < params.in_d && row < params.in_h && column < params.in_w;
    let position = (z * params.in_h + row) * params.in_w + column;
    return select(0.0, x_at(b, channel, select(0u, position, inside)), inside);
}

// First weight of an output channel (over all groups) in sample b's k-th kernel. The
// channel's next weights follow at distances of WEIGHT_STEP.
fn weights_of(b: u32, k: u32, channel: u32) -> u32 {
    let first = params.sample_weights_base + b * params.sample_stride;
    let reduction = params.c_in * TAPS;
    if WEIGHT_STEP == 1u {
        return first + (k * params.groups * params.c_out + channel) * reduction;
    }
    let blocks = ceil_div(params.c_out, WEIGHT_STEP);
    let block = (k * params.groups + channel / params.c_out) * blocks
        + channel % params.c_out / WEIGHT_STEP;
    return first + block * WEIGHT_STEP * reduction + channel % params.c_out % WEIGHT_STEP;
}

// Mixing weight of kernel k at an output position; 1 without a map.
fn mix_at(b: u32, k: u32, position: u32) -> f32 {
    var place = position;
    var size = positions();
    switch MAP {
        case 0u: { return 1.0; }
        case 2u: { place = position / (params.out_w * params.out_h); size = params.out_d; }
        case 3u: { place = position / params.out_w % params.out_h; size = params.out_h; }
        case 4u: { place = position % params.out_w; size = params.out_w; }
        default: {}
    }
    return gains[params.gains_base + b * params.gain_stride + k * size + min(place, size - 1u)];
}

// Where an output lies in y. `channel` counts over all groups.
fn y_element(b: u32, channel: u32, position: u32) -> u32 {
    return params.y_base
        + element(Y_NHWC, b, params.groups * params.c_out, channel, positions(), position);
}
