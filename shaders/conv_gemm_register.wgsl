// import conv, dispatch, register_tile

// Implicit GEMM in registers (see lib/register_tile.wgsl): no workgroup memory and no barrier.
// The loops over taps have constant bounds: drivers unroll them.

// Whether a position's taps lie at the same distances from its first as everyone's, and bits tell
// which are inside the map.
const IS_LINEAR: bool = !TRANSPOSED && KERNEL_W + KERNEL_H + KERNEL_D <= 32u;

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

// Output column, row and depth of a position; positions past the map take the last place, and are
// never stored.
fn place_of(position: u32) -> vec3<u32> {
    let p = min(position, positions() - 1u);
    return vec3<u32>(
        p % params.out_w,
        p / params.out_w % params.out_h,
        p / (params.out_w * params.out_h),
    );
}

// Mixing weights of kernel k at an invocation's four positions; mix_at holds places past a map at
// its end.
fn mix_of_four(b: u32, k: u32, position: u32) -> vec4<f32> {
    return vec4<f32>(
        mix_at(b, k, position),
        mix_at(b, k, position + WORKGROUP),
        mix_at(b, k, position + 2u * WORKGROUP),
        mix_at(b, k, position + 3u * WORKGROUP),
    );
}

@compute @workgroup_size(WORKGROUP)
fn conv_gemm_register(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = register_tile_of(number, lane);
    var sources: Sources;
    if IS_LINEAR {
        sources = sources_of(tile);
    }
    let place0 = place_of(tile.position);
    let place1 = place_of(tile.position + WORKGROUP);
    let place2 = place_of(tile.position + 2u * WORKGROUP);
    let place3 = place_of(tile.position + 3u * WORKGROUP);

    var sums = TileSums();
    for (var k = 0u; k < MIXED; k++) {
        let weights = tile_weights(tile, k);
        let mix = mix_of_four(tile.b, k, tile.position);
        for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
            let channel = tile.g * params.c_in + ci;
            for (var kz = 0u; kz < KERNEL_D; kz++) {
                for (var ky = 0u; ky < KERNEL_H; ky++) {
                    for (var kx = 0u; kx < KERNEL_W; kx++) {
                        var inputs: vec4<f32>;
                        if IS_LINEAR {
                            inputs = tile_inputs(tile, sources, ci, kz, ky, kx);
                        } else {
                            inputs = vec4<f32>(
                                tap_input(tile.b, channel, place0, kz, ky, kx),
                                tap_input(tile.b, channel, place1, kz, ky, kx),
                                tap_input(tile.b, channel, place2, kz, ky, kx),
                                tap_input(tile.b, channel, place3, kz, ky, kx),
                            );
                        }
                        if MAP != 0u {
                            inputs *= mix;
                        }
                        accumulate_tile(
                            &sums,
                            weights,
                            ci * TAPS + (kz * KERNEL_H + ky) * KERNEL_W + kx,
                            inputs,
                        );
                    }
                }
            }
        }
    }
    store_tile(tile, sums);
}
