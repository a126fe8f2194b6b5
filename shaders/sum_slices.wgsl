// import conv, dispatch, store, x

// Adds up a convolution's sum that was split among workgroups, in the order of its slices, and
// applies the epilogue. One invocation an output.
//
// x is [slices, batch, channels out, positions], f32: raw sums over `slice_channels` input channels
// each. The order is fixed, and so is the number of slices for a layer, a map and a device: the
// result is the same in every run and in every batch. sample_weights are read for the bias alone.

@compute @workgroup_size(WORKGROUP)
fn sum_slices(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let size = positions();
    let channels = params.groups * params.c_out;
    let outputs = params.batch * channels * size;
    let i = workgroup_number(id, grid) * WORKGROUP + lane;
    if i >= outputs {
        return;
    }
    let end = params.x_base + ceil_div(params.ci_end, params.slice_channels) * outputs;
    var sum = 0.0;
    for (var place = params.x_base + i; place < end; place += outputs) {
        sum += x_value(place);
    }
    store_output(i / (channels * size), i / size % channels, i % size, sum);
}
