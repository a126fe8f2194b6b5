// Implicit GEMM in registers (see common/register_tile.wgsl): no workgroup memory and no barrier.
// The loops over taps have constant bounds: drivers unroll them.

// The input that a position reads through a tap.
fn tap_input(b: u32, channel: u32, place: vec3<u32>, kz: u32, ky: u32, kx: u32) -> f32 {
    return input_at(
        b,
        channel,
        tap_position(place.z, STRIDE_D, kz, DILATION_D, params.pad_d),
        tap_position(place.y, STRIDE_H, ky, DILATION_H, params.pad_h),
        tap_position(place.x, STRIDE_W, kx, DILATION_W, params.pad_w),
    );
}

// Output column, row and depth of a position; positions past the map take the last place, and are never stored.
fn place_of(position: u32) -> vec3<u32> {
    let p = min(position, positions() - 1u);
    return vec3<u32>(p % params.out_w, p / params.out_w % params.out_h, p / (params.out_w * params.out_h));
}

// Mixing weights of kernel k at an invocation's four positions; mix_at holds places past a map at its end.
fn mix_of_four(b: u32, k: u32, position: u32) -> vec4<f32> {
    return vec4<f32>(
        mix_at(b, k, position),
        mix_at(b, k, position + WORKGROUP),
        mix_at(b, k, position + 2u * WORKGROUP),
        mix_at(b, k, position + 3u * WORKGROUP),
    );
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
    let place0 = place_of(tile.position);
    let place1 = place_of(tile.position + WORKGROUP);
    let place2 = place_of(tile.position + 2u * WORKGROUP);
    let place3 = place_of(tile.position + 3u * WORKGROUP);

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    var sum4 = vec4<f32>();
    var sum5 = vec4<f32>();
    var sum6 = vec4<f32>();
    var sum7 = vec4<f32>();
    for (var k = 0u; k < MIXED; k++) {
        let w0 = tile_weights(tile, k, 0u);
        let w1 = tile_weights(tile, k, 1u);
        let w2 = tile_weights(tile, k, 2u);
        let w3 = tile_weights(tile, k, 3u);
        let w4 = tile_weights(tile, k, 4u);
        let w5 = tile_weights(tile, k, 5u);
        let w6 = tile_weights(tile, k, 6u);
        let w7 = tile_weights(tile, k, 7u);
        let mix = mix_of_four(tile.b, k, tile.position);
        for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
            let channel = tile.g * params.c_in + ci;
            for (var kz = 0u; kz < KERNEL_D; kz++) {
                for (var ky = 0u; ky < KERNEL_H; ky++) {
                    for (var kx = 0u; kx < KERNEL_W; kx++) {
                        var inputs = vec4<f32>(
                            tap_input(tile.b, channel, place0, kz, ky, kx),
                            tap_input(tile.b, channel, place1, kz, ky, kx),
                            tap_input(tile.b, channel, place2, kz, ky, kx),
                            tap_input(tile.b, channel, place3, kz, ky, kx),
                        );
                        if MAP != 0u {
                            inputs *= mix;
                        }
                        let r = ci * TAPS + (kz * KERNEL_H + ky) * KERNEL_W + kx;
                        sum0 += rows[w0 + r] * inputs;
                        sum1 += rows[w1 + r] * inputs;
                        sum2 += rows[w2 + r] * inputs;
                        sum3 += rows[w3 + r] * inputs;
                        sum4 += rows[w4 + r] * inputs;
                        sum5 += rows[w5 + r] * inputs;
                        sum6 += rows[w6 + r] * inputs;
                        sum7 += rows[w7 + r] * inputs;
                    }
                }
            }
        }
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
