// import taps_3x3

// What a tile of tile_7x4.wgsl reads with stride 2: lines of a patch of 15 x 9 inputs.

// Nine neighbouring inputs of a row: those that the first taps of four outputs read, those of the
// middle taps, and the last one.
struct StridedLine {
    even: vec4<f32>,
    odd: vec4<f32>,
    last: f32,
}

fn three_strided_taps(sums: vec4<f32>, line: StridedLine, w: vec3<f32>) -> vec4<f32> {
    let right = vec4<f32>(line.even.yzw, line.last);
    return sums + w.x * line.even + w.y * line.odd + w.z * right;
}

// Four sums go through all nine taps before the next one: so the sums stay in registers.
fn nine_strided_taps(
    sums: vec4<f32>,
    top: StridedLine,
    middle: StridedLine,
    bottom: StridedLine,
    w: Taps3x3,
) -> vec4<f32> {
    return three_strided_taps(
        three_strided_taps(three_strided_taps(sums, top, w.top), middle, w.middle),
        bottom,
        w.bottom,
    );
}
