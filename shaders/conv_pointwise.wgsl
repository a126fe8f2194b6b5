// Pointwise convolution: 1 x 1 taps, stride 1, no padding, so that output position p reads input position p: a matrix
// product Y[co, p] = sum_ci W[co, ci] * X[ci, p] per sample and group, in registers (see common/register_tile.wgsl).

// Lanes past the map read the last position; their sums are never stored.
fn x_near(b: u32, channel: u32, position: u32) -> f32 {
    return x_at(b, channel, min(position, positions() - 1u));
}

@compute @workgroup_size(WORKGROUP)
fn conv_pointwise(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = tile_of(number, lane);
    let weights = tile_weights(tile, 0u);
    var sums = Sums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let channel = tile.g * params.c_in + ci;
        let inputs = vec4<f32>(
            x_near(tile.b, channel, tile.position),
            x_near(tile.b, channel, tile.position + WORKGROUP),
            x_near(tile.b, channel, tile.position + 2u * WORKGROUP),
            x_near(tile.b, channel, tile.position + 3u * WORKGROUP),
        );
        accumulate(&sums, weights, ci, inputs);
    }
    store_tile(tile, sums);
}
