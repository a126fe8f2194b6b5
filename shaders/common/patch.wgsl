// Tile of the kernels for 3 x 3 taps with stride 1: 7 rows x 4 columns of outputs, from a patch of 9 x 6 inputs.

const TILE_ROWS: u32 = 7u;
const TILE_COLUMNS: u32 = 4u;

// Six neighbouring inputs of a row.
struct Line {
    left: vec4<f32>,
    right: vec2<f32>,
}

// The taps of one output channel.
struct Taps {
    top: vec3<f32>,
    middle: vec3<f32>,
    bottom: vec3<f32>,
}

fn three_taps(sums: vec4<f32>, line: Line, w: vec3<f32>) -> vec4<f32> {
    let middle = vec4<f32>(line.left.yzw, line.right.x);
    let right = vec4<f32>(line.left.zw, line.right);
    return sums + w.x * line.left + w.y * middle + w.z * right;
}

// A row of four sums goes through all nine taps before the next one: so the sums stay in registers.
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

struct Patch {
    l0: Line,
    l1: Line,
    l2: Line,
    l3: Line,
    l4: Line,
    l5: Line,
    l6: Line,
    l7: Line,
    l8: Line,
}

fn accumulate(sums: ptr<function, Sums>, p: Patch, w: Taps) {
    (*sums).r0 = nine_taps((*sums).r0, p.l0, p.l1, p.l2, w);
    (*sums).r1 = nine_taps((*sums).r1, p.l1, p.l2, p.l3, w);
    (*sums).r2 = nine_taps((*sums).r2, p.l2, p.l3, p.l4, w);
    (*sums).r3 = nine_taps((*sums).r3, p.l3, p.l4, p.l5, w);
    (*sums).r4 = nine_taps((*sums).r4, p.l4, p.l5, p.l6, w);
    (*sums).r5 = nine_taps((*sums).r5, p.l5, p.l6, p.l7, w);
    (*sums).r6 = nine_taps((*sums).r6, p.l6, p.l7, p.l8, w);
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
