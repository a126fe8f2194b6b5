// What every convolution kernel shares: its bindings, where a tap reads, and what happens to a finished sum.
//
//   y[b, co, p] = act( scale[co] * ( f[b, co] * sum_{ci, tap} w[b, co, ci, tap] * c[b, ci] * x[b, ci, p * stride + tap * dilation - pad]
//                                    + bias[b, co] ) + shift[co] )
//
// x       [batch, channels in, depth, height, width]
// rows    [batch or 1, row]: a row is the kernel [channels out, channels in / groups, taps], then the bias [channels out] if there is one
// gains   [batch, gain_stride]: ODConv's channel (c) and filter (f) attention, each at its own offset
// affine  [2, channels out]: scale, then shift (a folded batch norm)
// y       [batch, channels out, depth, height, width]
//
// Constants that the host joins in front: KERNEL_*, STRIDE_*, DILATION_* (D, H, W), HAS_BIAS, CHANNEL_GAIN, FILTER_GAIN,
// HAS_AFFINE, ACTIVATION, WORKGROUP.

struct ConvParams {
    // First element of each operand inside its binding.
    x_base: u32,
    rows_base: u32,
    gains_base: u32,
    affine_base: u32,
    y_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,

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

    // Workgroups that have work; a folded dispatch may start more.
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> params: ConvParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<f32>;
@group(0) @binding(3) var<storage, read> gains: array<f32>;
@group(0) @binding(4) var<storage, read> affine: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

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
    return out * stride + tap * dilation - pad;
}

// x[b, channel, z, row, column] under zero padding, times the channel's gain. `channel` counts over all groups.
// A tap in the padding reads some element of the map and drops it: cheaper than a branch.
fn input_at(b: u32, channel: u32, z: u32, row: u32, column: u32) -> f32 {
    let inside = z < params.in_d && row < params.in_h && column < params.in_w;
    let plane = b * params.groups * params.c_in + channel;
    let element = ((plane * params.in_d + z) * params.in_h + row) * params.in_w + column;
    var value = x[params.x_base + select(0u, element, inside)];
    if CHANNEL_GAIN {
        value *= gains[params.gains_base + b * params.gain_stride + params.channel_gain_offset + channel];
    }
    return select(0.0, value, inside);
}

// Element of sample b's kernel; `channel` is the output channel over all groups, `reduction` = ci * TAPS + tap.
fn weight_at(b: u32, channel: u32, reduction: u32) -> f32 {
    return rows[params.rows_base + b * params.row_stride + channel * params.c_in * TAPS + reduction];
}

fn activate(value: f32) -> f32 {
    if ACTIVATION == 1u {
        return max(value, 0.0);
    }
    return value;
}

// Filter gain, bias, affine and activation, then the store. `channel` counts over all groups.
fn finish(b: u32, channel: u32, position: u32, sum: f32) {
    let channels = params.groups * params.c_out;
    var value = sum;
    if FILTER_GAIN {
        value *= gains[params.gains_base + b * params.gain_stride + params.filter_gain_offset + channel];
    }
    if HAS_BIAS {
        value += rows[params.rows_base + b * params.row_stride + params.bias_offset + channel];
    }
    if HAS_AFFINE {
        value = value * affine[params.affine_base + channel] + affine[params.affine_base + channels + channel];
    }
    y[params.y_base + (b * channels + channel) * positions() + position] = activate(value);
}
