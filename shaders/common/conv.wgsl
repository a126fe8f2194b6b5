// What every convolution kernel shares: its bindings, where a tap reads, and what happens to a finished sum.
//
//   y[b, co, p] = act( scale[co] * ( f[b, co] * sum_{ci, tap} w[b, co, ci, tap] * c[b, ci] * x[b, ci, q(p, tap)] + bias[b, co] )
//                      + shift[co] + residual[b, co, p] )
//   q(p, tap) = p * stride + tap * dilation - pad;  transposed: (p + pad - tap * dilation) / stride where that is whole
//
// x, residual, y  [batch, channels, depth, height, width], or with the channels innermost (X_NHWC, Y_NHWC; the residual lies as y)
// rows            [batch or 1, row]: a row is the kernel [channels out, channels in / groups, taps], then the bias [channels out]
//                 if there is one. With WEIGHT_STEP 16 the kernel is in blocks, [groups, blocks, channels in / groups, taps, 16]: the
//                 weights of 16 output channels lie together, the last block of a group being filled up with zeros
// gains           [batch, gain_stride]: channel (c) and filter (f) attention, each at its own offset; or with MAP a map of mixing
//                 weights [batch, MIXED, positions or size of one axis]. The row then holds MIXED kernels and MIXED biases, and the
//                 sum runs over them too: y[b, co, p] = sum_k map[b, k, p] * (sum_{ci, tap} .. + bias[k, co])
// affine          [2, channels out]: scale, then shift (a folded batch norm)
//
// A long reduction may run in several dispatches, each over some input channels: all but the first add to what is in y (CONTINUES),
// and the last one finishes (ENDS).
//
// Or it is split among workgroups, each of which sums over `part_channels` input channels: the raw sums, in y's place, are
// [parts, batch, channels out, positions] (not ENDS), and shaders/sum_parts.wgsl adds them up.
//
// Constants that the host joins in front: CONTINUES, ENDS, KERNEL_*, STRIDE_*, DILATION_* (D, H, W), MIXED, MAP (0 none, 1 all positions,
// 2 to 4 one axis), WEIGHT_STEP (1 or 16), TRANSPOSED, X_NHWC, Y_NHWC, HAS_BIAS,
// CHANNEL_GAIN, FILTER_GAIN, HAS_AFFINE, HAS_RESIDUAL, ACTIVATION, WORKGROUP.

struct ConvParams {
    // First element of each operand inside its binding.
    x_base: u32,
    rows_base: u32,
    gains_base: u32,
    affine_base: u32,
    residual_base: u32,
    y_base: u32,
    // Of the kernels for lanes, which bind rows a second time.
    rows_again_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,
    // Input channels of a group that this dispatch sums over.
    ci_begin: u32,
    ci_end: u32,
    // Of these, the channels that one workgroup sums over: all, but where the sum is split.
    part_channels: u32,

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
    row_stride: u32,
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
@group(0) @binding(2) var<storage, read> rows: array<f32>;
@group(0) @binding(3) var<storage, read> gains: array<f32>;
@group(0) @binding(4) var<storage, read> affine: array<f32>;
// Bindings 1, 5 and 6 are x, residual and y; shaders/elem/ declares them in each element type, with x_value, residual_value, y_value
// and y_store or, in kernels that load or store neighbours at once, x_four and y_store_four.

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

// Element of a tensor [batch, channels, size] or, with the channels innermost, [batch, size, channels].
fn element(is_nhwc: bool, b: u32, channels: u32, channel: u32, size: u32, position: u32) -> u32 {
    if is_nhwc {
        return (b * size + position) * channels + channel;
    }
    return (b * channels + channel) * size + position;
}

// x[b, channel, position] times the channel's gain. `channel` counts over all groups.
fn x_at(b: u32, channel: u32, position: u32) -> f32 {
    let size = params.in_d * params.in_h * params.in_w;
    let value = x_value(params.x_base + element(X_NHWC, b, params.groups * params.c_in, channel, size, position));
    if CHANNEL_GAIN {
        return value * gains[params.gains_base + b * params.gain_stride + params.channel_gain_offset + channel];
    }
    return value;
}

// x_at under zero padding. A tap in the padding reads some element of the map and drops it: cheaper than a branch.
fn input_at(b: u32, channel: u32, z: u32, row: u32, column: u32) -> f32 {
    let inside = z < params.in_d && row < params.in_h && column < params.in_w;
    let position = (z * params.in_h + row) * params.in_w + column;
    return select(0.0, x_at(b, channel, select(0u, position, inside)), inside);
}

// First weight of an output channel (over all groups) in sample b's row, in its k-th kernel. The channel's next weights follow at
// distances of WEIGHT_STEP.
fn weights_of(b: u32, k: u32, channel: u32) -> u32 {
    let row = params.rows_base + b * params.row_stride;
    let reduction = params.c_in * TAPS;
    if WEIGHT_STEP == 1u {
        return row + (k * params.groups * params.c_out + channel) * reduction;
    }
    let blocks = ceil_div(params.c_out, WEIGHT_STEP);
    let block = (k * params.groups + channel / params.c_out) * blocks + channel % params.c_out / WEIGHT_STEP;
    return row + block * WEIGHT_STEP * reduction + channel % params.c_out % WEIGHT_STEP;
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

// The error function by Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26: absolute error below 1.5e-7.
fn erf(value: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(value));
    let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(value) * (1.0 - series * exp(-value * value));
}

fn activate(value: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return at_least(value, 0.0); }
        case 2u: { return within(value, 0.0, 6.0); }
        case 3u: { return value * sigmoid(value); }
        case 4u: { return 0.5 * value * (1.0 + erf(value * 0.70710678)); }
        case 5u: { return value * within(value + 3.0, 0.0, 6.0) / 6.0; }
        case 6u: { return within(value + 3.0, 0.0, 6.0) / 6.0; }
        case 7u: { return select(params.activation_a * value, value, value >= 0.0); }
        case 8u: { let r = at_least(value, 0.0); return params.activation_a * r * r + params.activation_b; }
        case 9u: { return sigmoid(value); }
        case 10u: { return 2.0 * sigmoid(2.0 * value) - 1.0; }
        default: { return value; }
    }
}

// The i-th component. Drivers put a vector that is indexed by a variable in memory.
fn component(v: vec4<f32>, i: u32) -> f32 {
    return select(select(v.x, v.y, i == 1u), select(v.z, v.w, i == 3u), i >= 2u);
}

// Where an output lies in y. `channel` counts over all groups.
fn y_element(b: u32, channel: u32, position: u32) -> u32 {
    return params.y_base + element(Y_NHWC, b, params.groups * params.c_out, channel, positions(), position);
}

// What is stored for a sum: after filter gain, bias, affine, residual and activation, if it is the whole sum.
fn finished(b: u32, channel: u32, position: u32, sum: f32) -> f32 {
    let channels = params.groups * params.c_out;
    let place = element(Y_NHWC, b, channels, channel, positions(), position);
    var value = sum;
    if CONTINUES {
        value += y_value(params.y_base + place);
    }
    if !ENDS {
        return value;
    }
    if FILTER_GAIN {
        value *= gains[params.gains_base + b * params.gain_stride + params.filter_gain_offset + channel];
    }
    if HAS_BIAS {
        for (var k = 0u; k < MIXED; k++) {
            let bias = rows[params.rows_base + b * params.row_stride + params.bias_offset + k * channels + channel];
            value += mix_at(b, k, position) * bias;
        }
    }
    if HAS_AFFINE {
        value = value * affine[params.affine_base + channel] + affine[params.affine_base + channels + channel];
    }
    if HAS_RESIDUAL {
        value += residual_value(params.residual_base + place);
    }
    return activate(value);
}
