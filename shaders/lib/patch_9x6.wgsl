// import taps_3x3, tile_7x4

// What a tile of tile_7x4.wgsl reads with stride 1: a patch of 9 x 6 inputs.

// Six neighbouring inputs of a row.
struct PatchLine {
    left: vec4<f32>,
    right: vec2<f32>,
}

fn three_taps(sums: vec4<f32>, line: PatchLine, w: vec3<f32>) -> vec4<f32> {
    let middle = vec4<f32>(line.left.yzw, line.right.x);
    let right = vec4<f32>(line.left.zw, line.right);
    return sums + w.x * line.left + w.y * middle + w.z * right;
}

// Four sums go through all nine taps before the next one: so the sums stay in registers.
fn nine_taps(
    sums: vec4<f32>,
    top: PatchLine,
    middle: PatchLine,
    bottom: PatchLine,
    w: Taps3x3,
) -> vec4<f32> {
    return three_taps(three_taps(three_taps(sums, top, w.top), middle, w.middle), bottom, w.bottom);
}

struct Patch9x6 {
    l0: PatchLine,
    l1: PatchLine,
    l2: PatchLine,
    l3: PatchLine,
    l4: PatchLine,
    l5: PatchLine,
    l6: PatchLine,
    l7: PatchLine,
    l8: PatchLine,
}

fn accumulate_9x6(sums: ptr<function, Sums7x4>, p: Patch9x6, w: Taps3x3) {
    (*sums).r0 = nine_taps((*sums).r0, p.l0, p.l1, p.l2, w);
    (*sums).r1 = nine_taps((*sums).r1, p.l1, p.l2, p.l3, w);
    (*sums).r2 = nine_taps((*sums).r2, p.l2, p.l3, p.l4, w);
    (*sums).r3 = nine_taps((*sums).r3, p.l3, p.l4, p.l5, w);
    (*sums).r4 = nine_taps((*sums).r4, p.l4, p.l5, p.l6, w);
    (*sums).r5 = nine_taps((*sums).r5, p.l5, p.l6, p.l7, w);
    (*sums).r6 = nine_taps((*sums).r6, p.l6, p.l7, p.l8, w);
}
