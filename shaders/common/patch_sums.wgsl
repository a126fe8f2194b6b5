// Tile of the kernels for 3 x 3 taps: 7 rows x 4 columns of outputs of a channel. Each has Taps; a Line, the inputs that four outputs read in a
// row, and three_taps, which adds what three taps take from it.

const TILE_ROWS: u32 = 7u;
const TILE_COLUMNS: u32 = 4u;

// Four sums go through all nine taps before the next one: so the sums stay in registers.
fn nine_taps(sums: vec4<f32>, top: Line, middle: Line, bottom: Line, w: Taps) -> vec4<f32> {
    return three_taps(three_taps(three_taps(sums, top, w.top), middle, w.middle), bottom, w.bottom);
}

// Sums of one output channel.
struct Sums {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
    r4: vec4<f32>,
    r5: vec4<f32>,
    r6: vec4<f32>,
}

fn row_of(sums: Sums, n: u32) -> vec4<f32> {
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

fn store_patch(b: u32, channel: u32, row: u32, column: u32, sums: Sums) {
    for (var n = 0u; n < min(TILE_ROWS, params.out_h - row); n++) {
        let four = row_of(sums, n);
        for (var i = 0u; i < min(TILE_COLUMNS, params.out_w - column); i++) {
            finish(b, channel, (row + n) * params.out_w + column + i, component(four, i));
        }
    }
}
