// What a tile reads with stride 1: a patch of 9 x 6 inputs. See patch_sums.wgsl.

// Six neighbouring inputs of a row.
struct Line {
    left: vec4<f32>,
    right: vec2<f32>,
}

fn three_taps(sums: vec4<f32>, line: Line, w: vec3<f32>) -> vec4<f32> {
    let middle = vec4<f32>(line.left.yzw, line.right.x);
    let right = vec4<f32>(line.left.zw, line.right);
    return sums + w.x * line.left + w.y * middle + w.z * right;
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
