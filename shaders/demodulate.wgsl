// import dispatch, numbers

// Gains of a modulated convolution from its styles.
//
//   gains[b, ci]            = scale * style[b, ci]
//   gains[b, channels + co] = 1 / sqrt( sum_ci (norms[co, ci] gains[b, ci])^2 + scale^2 epsilon )
//
// the second with DEMODULATE only.
//
// `scale` is 1, but for groups with styles above 2^32: then a power of two that brings them near
// 2^32, so that products with them do not overflow. Demodulation takes the scale out again. Squares
// are scaled too, by one power of two for each output channel.
//
// Constants that the host joins in front: DEMODULATE, WORKGROUP.

struct DemodulateParams {
    // First element of each operand inside its binding.
    style_base: u32,
    norms_base: u32,
    gains_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: DemodulateParams;
// [batch, channels]
@group(0) @binding(1) var<storage, read> style: array<f32>;
// [channels out, channels in / groups]: root of the sum over the taps of the squared weights.
@group(0) @binding(2) var<storage, read> norms: array<f32>;
// [batch, channels + channels out]; without DEMODULATE [batch, channels], the styles themselves.
@group(0) @binding(3) var<storage, read_write> gains: array<f32>;

// 2^32
const LARGE: f32 = 4294967296.0;

// First style of a group.
fn style_of(b: u32, group: u32) -> u32 {
    return params.style_base + (b * params.groups + group) * params.c_in;
}

fn scale_of(b: u32, group: u32) -> f32 {
    if !DEMODULATE {
        return 1.0;
    }
    var largest = 0.0;
    for (var ci = 0u; ci < params.c_in; ci++) {
        largest = max(largest, abs(style[style_of(b, group) + ci]));
    }
    return LARGE / power_of_two(max(largest, LARGE));
}

// Norm of the weights that lead from an input channel of its group to output channel co, times the
// gain.
fn scaled_norm(b: u32, co: u32, ci: u32, scale: f32) -> f32 {
    return norms[params.norms_base + co * params.c_in + ci]
        * (scale * style[style_of(b, co / params.c_out) + ci]);
}

fn demodulation(b: u32, co: u32) -> f32 {
    let scale = scale_of(b, co / params.c_out);
    // Beside the root of `epsilon` times the scale nothing smaller counts.
    var largest = scale;
    for (var ci = 0u; ci < params.c_in; ci++) {
        largest = max(largest, abs(scaled_norm(b, co, ci, scale)));
    }
    let inverse = 1.0 / power_of_two(largest);
    var sum = 0.0;
    for (var ci = 0u; ci < params.c_in; ci++) {
        let norm = inverse * scaled_norm(b, co, ci, scale);
        sum += norm * norm;
    }
    let unit = inverse * scale;
    return inverse * inverseSqrt(sum + params.epsilon * unit * unit);
}

@compute @workgroup_size(WORKGROUP)
fn demodulate(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = params.groups * params.c_in;
    let row = channels + select(0u, params.groups * params.c_out, DEMODULATE);
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * row {
        return;
    }
    let b = index / row;
    let j = index % row;
    if j < channels {
        gains[params.gains_base + index] = scale_of(b, j / params.c_in)
            * style[params.style_base + b * channels + j];
    } else {
        gains[params.gains_base + index] = demodulation(b, j - channels);
    }
}
