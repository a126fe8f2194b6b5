// Implicit GEMM in registers: no workgroup memory and no barrier. An invocation keeps CHANNELS = 8 output channels x 4 positions;
// the positions of a workgroup are 4 runs of WORKGROUP neighbours, its channels are the same 8, so that loads of x coalesce and a
// weight is one address for all invocations.
//
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

fn store_channel(b: u32, g: u32, co: u32, position: u32, sums: vec4<f32>) {
    if co >= params.c_out {
        return;
    }
    let channel = g * params.c_out + co;
    let size = positions();
    if position < size { finish(b, channel, position, sums.x); }
    if position + WORKGROUP < size { finish(b, channel, position + WORKGROUP, sums.y); }
    if position + 2u * WORKGROUP < size { finish(b, channel, position + 2u * WORKGROUP, sums.z); }
    if position + 3u * WORKGROUP < size { finish(b, channel, position + 3u * WORKGROUP, sums.w); }
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
    let runs = ceil_div(positions(), 4u * WORKGROUP);
    let blocks = ceil_div(params.c_out, 8u);
    let position = number % runs * 4u * WORKGROUP + lane;
    let co = number / runs % blocks * 8u;
    let g = number / (runs * blocks) % params.groups;
    let b = number / (runs * blocks * params.groups);

    let place0 = place_of(position);
    let place1 = place_of(position + WORKGROUP);
    let place2 = place_of(position + 2u * WORKGROUP);
    let place3 = place_of(position + 3u * WORKGROUP);

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    var sum4 = vec4<f32>();
    var sum5 = vec4<f32>();
    var sum6 = vec4<f32>();
    var sum7 = vec4<f32>();
    for (var k = 0u; k < MIXED; k++) {
        // Rows past the last channel read the last one; their sums are never stored.
        let reduction = params.c_in * TAPS;
        let last = params.c_out - 1u;
        let first = weights_of(b, k, g * params.c_out);
        let w0 = first + co * reduction;
        let w1 = first + min(co + 1u, last) * reduction;
        let w2 = first + min(co + 2u, last) * reduction;
        let w3 = first + min(co + 3u, last) * reduction;
        let w4 = first + min(co + 4u, last) * reduction;
        let w5 = first + min(co + 5u, last) * reduction;
        let w6 = first + min(co + 6u, last) * reduction;
        let w7 = first + min(co + 7u, last) * reduction;
        let mix = mix_of_four(b, k, position);
        for (var ci = 0u; ci < params.c_in; ci++) {
            let channel = g * params.c_in + ci;
            for (var kz = 0u; kz < KERNEL_D; kz++) {
                for (var ky = 0u; ky < KERNEL_H; ky++) {
                    for (var kx = 0u; kx < KERNEL_W; kx++) {
                        var inputs = vec4<f32>(
                            tap_input(b, channel, place0, kz, ky, kx),
                            tap_input(b, channel, place1, kz, ky, kx),
                            tap_input(b, channel, place2, kz, ky, kx),
                            tap_input(b, channel, place3, kz, ky, kx),
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

    store_channel(b, g, co, position, sum0);
    store_channel(b, g, co + 1u, position, sum1);
    store_channel(b, g, co + 2u, position, sum2);
    store_channel(b, g, co + 3u, position, sum3);
    store_channel(b, g, co + 4u, position, sum4);
    store_channel(b, g, co + 5u, position, sum5);
    store_channel(b, g, co + 6u, position, sum6);
    store_channel(b, g, co + 7u, position, sum7);
}
