// Adds up a convolution's sum that was split among workgroups, in the order of its parts, and finishes it. One invocation an output.
//
// x  [parts, batch, channels out, positions], f32: raw sums over `part_channels` input channels each
//
// The order is fixed, and so is the number of parts for a layer, a map and a device: the result is the same in every run and in every batch.
// Constants are those of common/conv.wgsl; the kernel's rows are read for the bias alone.

@compute @workgroup_size(WORKGROUP)
fn sum_parts(
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
    let end = params.x_base + ceil_div(params.ci_end, params.part_channels) * outputs;
    var sum = 0.0;
    for (var place = params.x_base + i; place < end; place += outputs) {
        sum += x_value(place);
    }
    finish(i / (channels * size), i / size % channels, i % size, sum);
}
