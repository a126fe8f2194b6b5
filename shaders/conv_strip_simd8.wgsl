// import conv, dispatch, simd8, store, vectors

// Convolution with wide rows of taps for subgroups of eight invocations (lanes), for software
// adapters; see conv_gemm_simd8.wgsl. It suits the first layers of networks: few input channels,
// many taps.
//
// A workgroup is one subgroup. It computes 16 output channels, two a lane, x 16 neighbouring
// outputs of a row. For each input channel and each row of taps, the lanes load the run of inputs
// that the 16 outputs read, SPAN neighbours, once; then it is broadcast. Constants beside those of
// lib/conv.wgsl: SPAN (15 STRIDE_W + (KERNEL_W - 1) DILATION_W + 1, at most 48). KERNEL_W is at
// most 8.

struct StripTile {
    b: u32,
    g: u32,
    // First of the lane's two output channels in its group.
    co: u32,
    // First output column, row and depth.
    place: vec3<u32>,
}

fn strip_tile_of(number: u32, lane: u32) -> StripTile {
    let strips = ceil_div(params.out_w, 16u);
    let tiles = strips * params.out_h * params.out_d;
    let blocks = ceil_div(params.c_out, 16u);
    let group = number / (tiles * blocks);
    let line = number % tiles / strips;
    let place = vec3<u32>(number % strips * 16u, line % params.out_h, line / params.out_h);
    return StripTile(
        group / params.groups,
        group % params.groups,
        number / tiles % blocks * 16u + 2u * lane,
        place,
    );
}

// A row of taps for the lane's two channels.
struct RowTaps {
    t0: vec2<f32>,
    t1: vec2<f32>,
    t2: vec2<f32>,
    t3: vec2<f32>,
    t4: vec2<f32>,
    t5: vec2<f32>,
    t6: vec2<f32>,
    t7: vec2<f32>,
}

// Taps past the last are not used.
fn taps_from(first: vec2<u32>, reduction: u32) -> RowTaps {
    let last = KERNEL_W - 1u;
    return RowTaps(
        two_weights(first, reduction),
        two_weights(first, reduction + min(1u, last)),
        two_weights(first, reduction + min(2u, last)),
        two_weights(first, reduction + min(3u, last)),
        two_weights(first, reduction + min(4u, last)),
        two_weights(first, reduction + min(5u, last)),
        two_weights(first, reduction + min(6u, last)),
        two_weights(first, reduction + min(7u, last)),
    );
}

// A run of inputs, eight neighbours a register.
struct Strip {
    c0: f32,
    c1: f32,
    c2: f32,
    c3: f32,
    c4: f32,
    c5: f32,
}

fn strip_input(b: u32, channel: u32, z: u32, row: u32, column: u32, piece: u32) -> f32 {
    if piece * 8u >= SPAN {
        return 0.0;
    }
    return input_at(b, channel, z, row, column + piece * 8u);
}

fn strip_at(b: u32, channel: u32, z: u32, row: u32, column: u32) -> Strip {
    return Strip(
        strip_input(b, channel, z, row, column, 0u),
        strip_input(b, channel, z, row, column, 1u),
        strip_input(b, channel, z, row, column, 2u),
        strip_input(b, channel, z, row, column, 3u),
        strip_input(b, channel, z, row, column, 4u),
        strip_input(b, channel, z, row, column, 5u),
    );
}

fn piece_of(line: Strip, piece: u32) -> f32 {
    switch piece {
        case 0u: { return line.c0; }
        case 1u: { return line.c1; }
        case 2u: { return line.c2; }
        case 3u: { return line.c3; }
        case 4u: { return line.c4; }
        default: { return line.c5; }
    }
}

// The i-th input of a run, on all lanes.
fn input_of(line: Strip, i: u32) -> f32 {
    return subgroupShuffle(piece_of(line, i / 8u), i % 8u);
}

// What four neighbouring outputs read through a tap.
fn strip_inputs(line: Strip, first: u32) -> vec4<f32> {
    return vec4<f32>(
        input_of(line, first),
        input_of(line, first + STRIDE_W),
        input_of(line, first + 2u * STRIDE_W),
        input_of(line, first + 3u * STRIDE_W),
    );
}

// Sums of four neighbouring outputs, for each of the lane's two channels.
struct StripSums {
    even: vec4<f32>,
    odd: vec4<f32>,
}

fn add_tap(sums: ptr<function, StripSums>, w: vec2<f32>, inputs: vec4<f32>) {
    (*sums).even += w.x * inputs;
    (*sums).odd += w.y * inputs;
}

// Eight sums go through a whole row of taps: so they stay in registers. `first` is what the first
// output reads through the first tap.
fn accumulate_strip(sums: ptr<function, StripSums>, line: Strip, w: RowTaps, first: u32) {
    add_tap(sums, w.t0, strip_inputs(line, first));
    if KERNEL_W > 1u { add_tap(sums, w.t1, strip_inputs(line, first + DILATION_W)); }
    if KERNEL_W > 2u { add_tap(sums, w.t2, strip_inputs(line, first + 2u * DILATION_W)); }
    if KERNEL_W > 3u { add_tap(sums, w.t3, strip_inputs(line, first + 3u * DILATION_W)); }
    if KERNEL_W > 4u { add_tap(sums, w.t4, strip_inputs(line, first + 4u * DILATION_W)); }
    if KERNEL_W > 5u { add_tap(sums, w.t5, strip_inputs(line, first + 5u * DILATION_W)); }
    if KERNEL_W > 6u { add_tap(sums, w.t6, strip_inputs(line, first + 6u * DILATION_W)); }
    if KERNEL_W > 7u { add_tap(sums, w.t7, strip_inputs(line, first + 7u * DILATION_W)); }
}

fn store_strip(tile: StripTile, first: u32, sums: StripSums) {
    for (var n = 0u; n < 8u; n++) {
        let channel = tile.co + n / 4u;
        let column = tile.place.x + first + n % 4u;
        if channel < params.c_out && column < params.out_w {
            let position = (tile.place.z * params.out_h + tile.place.y) * params.out_w + column;
            let sum = select(component(sums.even, n % 4u), component(sums.odd, n % 4u), n >= 4u);
            store_output(tile.b, tile.g * params.c_out + channel, position, sum);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_strip_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = strip_tile_of(number, lane);
    let weights = first_weights(tile.b, 0u, tile.g, tile.co);
    let column = tile.place.x * STRIDE_W - params.pad_w + lane;
    var sums0 = StripSums();
    var sums1 = StripSums();
    var sums2 = StripSums();
    var sums3 = StripSums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let channel = tile.g * params.c_in + ci;
        for (var kz = 0u; kz < KERNEL_D; kz++) {
            let z = tap_position(tile.place.z, STRIDE_D, kz, DILATION_D, params.pad_d);
            for (var ky = 0u; ky < KERNEL_H; ky++) {
                let row = tap_position(tile.place.y, STRIDE_H, ky, DILATION_H, params.pad_h);
                let w = taps_from(weights, ci * TAPS + (kz * KERNEL_H + ky) * KERNEL_W);
                let line = strip_at(tile.b, channel, z, row, column);
                accumulate_strip(&sums0, line, w, 0u);
                accumulate_strip(&sums1, line, w, 4u * STRIDE_W);
                accumulate_strip(&sums2, line, w, 8u * STRIDE_W);
                accumulate_strip(&sums3, line, w, 12u * STRIDE_W);
            }
        }
    }
    store_strip(tile, 0u, sums0);
    store_strip(tile, 4u, sums1);
    store_strip(tile, 8u, sums2);
    store_strip(tile, 12u, sums3);
}
