// import conv, dispatch, register_tile

// Pointwise convolution: 1 x 1 taps, stride 1, no padding, so that output position p reads input
// position p: a matrix product Y[co, p] = sum_ci W[co, ci] * X[ci, p] per sample and group, in
// registers (see lib/register_tile.wgsl).

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
    let tile = register_tile_of(number, lane);
    let sources = sources_of(tile);
    let weights = tile_weights(tile, 0u);
    var sums = TileSums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        accumulate_tile(&sums, weights, ci, tile_inputs(tile, sources, ci, 0u, 0u, 0u));
    }
    store_tile(tile, sums);
}
