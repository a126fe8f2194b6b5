// Pointwise convolution: 1 x 1 taps, stride 1, no padding, so that output position p reads input position p: a matrix
// product Y[co, p] = sum_ci W[co, ci] * X[ci, p] per sample and group.
//
// No workgroup memory: an invocation keeps 8 channels x 4 positions in registers. The positions of a workgroup are 4 runs of
// WORKGROUP neighbours, so that loads of x coalesce; its channels are the same 8, so that a weight is one address for all.

// Lanes past the map read the last position; their sums are never stored.
fn x_near(b: u32, channel: u32, position: u32) -> f32 {
    return x_at(b, channel, min(position, positions() - 1u));
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

    // Rows past the last channel read the last one; their sums are never stored.
    let last = params.c_out - 1u;
    let row = weights_of(b, 0u, g * params.c_out);
    let w0 = row + co * params.c_in;
    let w1 = row + min(co + 1u, last) * params.c_in;
    let w2 = row + min(co + 2u, last) * params.c_in;
    let w3 = row + min(co + 3u, last) * params.c_in;
    let w4 = row + min(co + 4u, last) * params.c_in;
    let w5 = row + min(co + 5u, last) * params.c_in;
    let w6 = row + min(co + 6u, last) * params.c_in;
    let w7 = row + min(co + 7u, last) * params.c_in;

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    var sum4 = vec4<f32>();
    var sum5 = vec4<f32>();
    var sum6 = vec4<f32>();
    var sum7 = vec4<f32>();
    for (var ci = 0u; ci < params.c_in; ci++) {
        let channel = g * params.c_in + ci;
        let inputs = vec4<f32>(
            x_near(b, channel, position),
            x_near(b, channel, position + WORKGROUP),
            x_near(b, channel, position + 2u * WORKGROUP),
            x_near(b, channel, position + 3u * WORKGROUP),
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

    store_channel(b, g, co, position, sum0);
    store_channel(b, g, co + 1u, position, sum1);
    store_channel(b, g, co + 2u, position, sum2);
    store_channel(b, g, co + 3u, position, sum3);
    store_channel(b, g, co + 4u, position, sum4);
    store_channel(b, g, co + 5u, position, sum5);
    store_channel(b, g, co + 6u, position, sum6);
    store_channel(b, g, co + 7u, position, sum7);
}
