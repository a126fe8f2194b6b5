// import conv, store, vectors

// Tile of the kernels for 3 x 3 taps: 7 rows x 4 columns of outputs of a channel.

const TILE_ROWS: u32 = 7u;
const TILE_COLUMNS: u32 = 4u;

// Sums of one output channel.
struct Sums7x4 {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
    r4: vec4<f32>,
    r5: vec4<f32>,
    r6: vec4<f32>,
}

fn row_of_7x4(sums: Sums7x4, n: u32) -> vec4<f32> {
    switch n {
        case 0u: { return sums.r0; }
        case 1u: { return sums.r1; }
        case 2u: { return sums.r2; }
        case 3u: { return sums.r3; }
        case 4u: { return sums.r4; }
        case 5u: { return sums.r5; }
        default: { return sums.r6; }
    }
}

fn store_7x4(b: u32, channel: u32, row: u32, column: u32, sums: Sums7x4) {
    for (var n = 0u; n < min(TILE_ROWS, params.out_h - row); n++) {
        let four = row_of_7x4(sums, n);
        for (var i = 0u; i < min(TILE_COLUMNS, params.out_w - column); i++) {
            store_output(b, channel, (row + n) * params.out_w + column + i, component(four, i));
        }
    }
}
