// Gains of a modulated convolution from its styles.
//
//   gains[b, ci]            = style[b, ci]
//   gains[b, channels + co] = 1 / sqrt( sum_ci squares[co, ci] * style[b, g(co) * c_in + ci]^2 + epsilon )    with DEMODULATE
//
// style    [batch, channels]
// squares  [channels out, channels in / groups]: sum over the taps of the squared weights
// gains    [batch, channels + channels out], without DEMODULATE [batch, channels]
//
// Constants that the host joins in front: DEMODULATE, WORKGROUP.

struct DemodulateParams {
    // First element of each operand inside its binding.
    style_base: u32,
    squares_base: u32,
    gains_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: DemodulateParams;
@group(0) @binding(1) var<storage, read> style: array<f32>;
@group(0) @binding(2) var<storage, read> squares: array<f32>;
@group(0) @binding(3) var<storage, read_write> gains: array<f32>;

fn demodulation(b: u32, co: u32) -> f32 {
    let channels = params.groups * params.c_in;
    let first = params.style_base + b * channels + co / params.c_out * params.c_in;
    var sum = 0.0;
    for (var ci = 0u; ci < params.c_in; ci++) {
        let s = style[first + ci];
        sum += squares[params.squares_base + co * params.c_in + ci] * s * s;
    }
    return inverseSqrt(sum + params.epsilon);
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
        gains[params.gains_base + index] = style[params.style_base + b * channels + j];
    } else {
        gains[params.gains_base + index] = demodulation(b, j - channels);
    }
}
