// import conv, dispatch, store, vectors, x

// Outputs from tiles of products of Winograd's minimal filtering, and what follows the sum.
//
//   y[b, co, outputs of tile t] = A' m[b, .., co, t] A, then as in lib/conv.wgsl
//
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1)
// m  [batch, (TILE + 2)^2, channels out, tiles], bound as x.
//
// An invocation takes one tile of one channel.
// Constant beside those of lib/conv.wgsl: TILE (2 or 4).

// Neighbouring numbers of a tile lie `step` elements apart.
fn four_products(first: u32, step: u32) -> vec4<f32> {
    return vec4<f32>(
        x_value(first),
        x_value(first + step),
        x_value(first + 2u * step),
        x_value(first + 3u * step),
    );
}

// A line of four numbers times A, for tiles of 2 x 2.
fn two_of(first: u32, step: u32) -> vec4<f32> {
    let v = four_products(first, step);
    return vec4<f32>(v.x + v.y + v.z, v.y - v.z - v.w, 0.0, 0.0);
}

// A line of six numbers times A.
fn four_of(first: u32, step: u32) -> vec4<f32> {
    let v = four_products(first + step, step);
    let near = vec2<f32>(v.x + v.y, v.x - v.y);
    let far = vec2<f32>(v.z + v.w, v.z - v.w);
    let ends = vec2<f32>(x_value(first), x_value(first + 5u * step));
    return vec4<f32>(
        ends.x + near.x + far.x,
        near.y + 2.0 * far.y,
        near.x + 4.0 * far.x,
        near.y + 8.0 * far.y + ends.y,
    );
}

// The outputs of a tile, a row a column of the matrix. Those of 2 x 2 are in a corner.
fn outputs(first: u32, step: u32) -> mat4x4<f32> {
    if TILE == 2u {
        let a = two_of(first, step);
        let b = two_of(first + 4u * step, step);
        let c = two_of(first + 8u * step, step);
        let d = two_of(first + 12u * step, step);
        return mat4x4<f32>(a + b + c, b - c - d, vec4<f32>(), vec4<f32>());
    }
    let a = four_of(first, step);
    let b = four_of(first + 6u * step, step);
    let c = four_of(first + 12u * step, step);
    let d = four_of(first + 18u * step, step);
    let e = four_of(first + 24u * step, step);
    let f = four_of(first + 30u * step, step);
    return mat4x4<f32>(
        a + b + c + d + e,
        b - c + 2.0 * (d - e),
        b + c + 4.0 * (d + e),
        b - c + 8.0 * (d - e) + f,
    );
}

// The i-th row. Drivers put a matrix that is indexed by a variable in memory.
fn output_row(m: mat4x4<f32>, i: u32) -> vec4<f32> {
    return select(select(m[0], m[1], i == 1u), select(m[2], m[3], i == 3u), i >= 2u);
}

@compute @workgroup_size(WORKGROUP)
fn winograd_output(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = params.groups * params.c_out;
    let across = ceil_div(params.out_w, TILE);
    let tiles = ceil_div(params.out_h, TILE) * across;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * tiles {
        return;
    }
    let tile = index % tiles;
    let channel = index / tiles % channels;
    let b = index / (tiles * channels);
    let row = tile / across * TILE;
    let column = tile % across * TILE;

    let step = channels * tiles;
    let y = outputs(
        params.x_base + b * (TILE + 2u) * (TILE + 2u) * step + channel * tiles + tile,
        step,
    );
    for (var i = 0u; i < TILE * TILE; i++) {
        let place = vec2<u32>(row + i / TILE, column + i % TILE);
        if place.x < params.out_h && place.y < params.out_w {
            store_output(
                b,
                channel,
                place.x * params.out_w + place.y,
                component(output_row(y, i / TILE), i % TILE),
            );
        }
    }
}
