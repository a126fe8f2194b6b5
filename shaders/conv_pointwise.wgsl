// Pointwise convolution: 1 x 1 taps, stride 1, no padding, so that output position p reads input position p: a matrix
// product Y[co, p] = sum_ci W[co, ci] * X[ci, p] per sample and group, in registers (see common/register_tile.wgsl).

// Lanes past the map read the last position; their sums are never stored.
fn x_near(b: u32, channel: u32, position: u32) -> f32 {
    return x_at(b, channel, min(position, positions() - 1u));
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = tile_of(number, lane);
    let w0 = tile_weights(tile, 0u, 0u);
    let w1 = tile_weights(tile, 0u, 1u);
    let w2 = tile_weights(tile, 0u, 2u);
    let w3 = tile_weights(tile, 0u, 3u);
    let w4 = tile_weights(tile, 0u, 4u);
    let w5 = tile_weights(tile, 0u, 5u);
    let w6 = tile_weights(tile, 0u, 6u);
    let w7 = tile_weights(tile, 0u, 7u);

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    var sum4 = vec4<f32>();
    var sum5 = vec4<f32>();
    var sum6 = vec4<f32>();
    var sum7 = vec4<f32>();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let channel = tile.g * params.c_in + ci;
        let inputs = vec4<f32>(
            x_near(tile.b, channel, tile.position),
            x_near(tile.b, channel, tile.position + WORKGROUP),
            x_near(tile.b, channel, tile.position + 2u * WORKGROUP),
            x_near(tile.b, channel, tile.position + 3u * WORKGROUP),
        );
        sum0 += rows[w0 + ci] * inputs;
        sum1 += rows[w1 + ci] * inputs;
        sum2 += rows[w2 + ci] * inputs;
        sum3 += rows[w3 + ci] * inputs;
        sum4 += rows[w4 + ci] * inputs;
        sum5 += rows[w5 + ci] * inputs;
        sum6 += rows[w6 + ci] * inputs;
        sum7 += rows[w7 + ci] * inputs;
    }

    store_channel(tile, 0u, sum0);
    store_channel(tile, 1u, sum1);
    store_channel(tile, 2u, sum2);
    store_channel(tile, 3u, sum3);
    store_channel(tile, 4u, sum4);
    store_channel(tile, 5u, sum5);
    store_channel(tile, 6u, sum6);
    store_channel(tile, 7u, sum7);
}
