// import conv, dispatch, numbers, store

// Layer norm over the channels, at every position.
//
//   sum[b, c, p] = (x[b, c, p] - mean[b, p]) / sqrt(variance[b, p] + epsilon)
//
// mean and variance are over the channels. Scale, shift and what else follows is as in
// lib/conv.wgsl. An invocation owns one position. Differences from the mean are scaled by one power
// of two, so that their squares cannot overflow. Constants beside those of lib/conv.wgsl: EPSILON
// (bits of an f32).

@compute @workgroup_size(WORKGROUP)
fn layer_norm(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    let size = positions();
    if index >= params.batch * size {
        return;
    }
    let position = index % size;
    let b = index / size;
    let share = 1.0 / f32(params.groups);

    var mean = 0.0;
    for (var channel = 0u; channel < params.groups; channel++) {
        mean += share * x_at(b, channel, position);
    }
    var largest = 1.0;
    for (var channel = 0u; channel < params.groups; channel++) {
        largest = max(largest, abs(x_at(b, channel, position) - mean));
    }
    let unit = 1.0 / power_of_two(largest);
    var variance = bitcast<f32>(EPSILON) * unit * unit;
    for (var channel = 0u; channel < params.groups; channel++) {
        let difference = unit * (x_at(b, channel, position) - mean);
        variance += share * difference * difference;
    }
    for (var channel = 0u; channel < params.groups; channel++) {
        let difference = unit * (x_at(b, channel, position) - mean);
        store_output(b, channel, position, difference * inverseSqrt(variance));
    }
}
