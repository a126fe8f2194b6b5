// import conv, dispatch, store

// Tiles of inputs, taken to the domain of Winograd's minimal filtering.
//
//   v[b, f, ci, t] = (B' d B)[f]
//
// d being the (TILE + 2) x (TILE + 2) inputs that the TILE x TILE outputs of tile t read, zeros
// outside of the map.
//
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1) x
// as in lib/conv.wgsl, times the gains of its channels; v  [batch, (TILE + 2)^2, channels in,
// tiles]: the output y, whose map is that of the tiles.
//
// An invocation takes one tile of one channel.
// Constant beside those of lib/conv.wgsl: TILE (2 or 4).

// A line of six numbers. Matrices for their sums and products with numbers.
alias Six = mat2x3<f32>;

// Six lines of six.
struct Square {
    r0: Six,
    r1: Six,
    r2: Six,
    r3: Six,
    r4: Six,
    r5: Six,
}

// B' d
fn times(d: Square) -> Square {
    let even = d.r4 - 4.0 * d.r2;
    let odd = d.r3 - 4.0 * d.r1;
    let near = d.r4 - d.r2;
    let far = 2.0 * (d.r3 - d.r1);
    return Square(
        4.0 * d.r0 - 5.0 * d.r2 + d.r4,
        even + odd,
        even - odd,
        near + far,
        near - far,
        4.0 * d.r1 - 5.0 * d.r3 + d.r5,
    );
}

// B' d for tiles of 2 x 2
fn times_small(d: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}

fn turned(s: Square) -> Square {
    return Square(
        Six(s.r0[0].x, s.r1[0].x, s.r2[0].x, s.r3[0].x, s.r4[0].x, s.r5[0].x),
        Six(s.r0[0].y, s.r1[0].y, s.r2[0].y, s.r3[0].y, s.r4[0].y, s.r5[0].y),
        Six(s.r0[0].z, s.r1[0].z, s.r2[0].z, s.r3[0].z, s.r4[0].z, s.r5[0].z),
        Six(s.r0[1].x, s.r1[1].x, s.r2[1].x, s.r3[1].x, s.r4[1].x, s.r5[1].x),
        Six(s.r0[1].y, s.r1[1].y, s.r2[1].y, s.r3[1].y, s.r4[1].y, s.r5[1].y),
        Six(s.r0[1].z, s.r1[1].z, s.r2[1].z, s.r3[1].z, s.r4[1].z, s.r5[1].z),
    );
}

// Four neighbouring inputs.
fn four_inputs(b: u32, channel: u32, row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(
        input_at(b, channel, 0u, row, column),
        input_at(b, channel, 0u, row, column + 1u),
        input_at(b, channel, 0u, row, column + 2u),
        input_at(b, channel, 0u, row, column + 3u),
    );
}

fn six(b: u32, channel: u32, row: u32, column: u32) -> Six {
    let v = four_inputs(b, channel, row, column);
    return Six(
        v.xyz,
        vec3<f32>(
            v.w,
            input_at(b, channel, 0u, row, column + 4u),
            input_at(b, channel, 0u, row, column + 5u),
        ),
    );
}

// The output's place of a number of a tile: a channel for each number of each input channel.
struct TilePlace {
    b: u32,
    channel: u32,
    tile: u32,
}

// Stores number `f` of a tile and the next ones.
fn store_four_numbers(place: TilePlace, f: u32, v: vec4<f32>) {
    let channels = params.groups * params.c_in;
    store_output(place.b, f * channels + place.channel, place.tile, v.x);
    store_output(place.b, (f + 1u) * channels + place.channel, place.tile, v.y);
    store_output(place.b, (f + 2u) * channels + place.channel, place.tile, v.z);
    store_output(place.b, (f + 3u) * channels + place.channel, place.tile, v.w);
}

fn store_six(place: TilePlace, f: u32, v: Six) {
    let channels = params.groups * params.c_in;
    store_four_numbers(place, f, vec4<f32>(v[0], v[1].x));
    store_output(place.b, (f + 4u) * channels + place.channel, place.tile, v[1].y);
    store_output(place.b, (f + 5u) * channels + place.channel, place.tile, v[1].z);
}

@compute @workgroup_size(WORKGROUP)
fn winograd_input(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = params.groups * params.c_in;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * positions() {
        return;
    }
    let tile = index % positions();
    let channel = index / positions() % channels;
    let b = index / (positions() * channels);
    // Rows and columns before the map wrap to huge numbers, as input_at wants them.
    let row = tile / params.out_w * TILE - params.pad_h;
    let column = tile % params.out_w * TILE - params.pad_w;

    let place = TilePlace(b, channel, tile);
    if TILE == 2u {
        let d = mat4x4<f32>(
            four_inputs(b, channel, row, column),
            four_inputs(b, channel, row + 1u, column),
            four_inputs(b, channel, row + 2u, column),
            four_inputs(b, channel, row + 3u, column),
        );
        let v = transpose(times_small(transpose(times_small(d))));
        store_four_numbers(place, 0u, v[0]);
        store_four_numbers(place, 4u, v[1]);
        store_four_numbers(place, 8u, v[2]);
        store_four_numbers(place, 12u, v[3]);
        return;
    }
    let d = Square(
        six(b, channel, row, column),
        six(b, channel, row + 1u, column),
        six(b, channel, row + 2u, column),
        six(b, channel, row + 3u, column),
        six(b, channel, row + 4u, column),
        six(b, channel, row + 5u, column),
    );
    let v = turned(times(turned(times(d))));
    store_six(place, 0u, v.r0);
    store_six(place, 6u, v.r1);
    store_six(place, 12u, v.r2);
    store_six(place, 18u, v.r3);
    store_six(place, 24u, v.r4);
    store_six(place, 30u, v.r5);
}
