// Residual in f32, and output in f32, stored four elements at a time: a multiple of four elements.
// Both [batch, channels out, depth, height, width], or with the channels innermost (Y_NHWC)
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<vec2<u64>>;

fn residual_value(i: u32) -> f32 {
    return residual[i];
}

fn y_value(i: u32) -> f32 {
    let four = y[i / 4u];
    let pair = select(four.x, four.y, i % 4u >= 2u);
    return bitcast<f32>(u32(pair >> (i % 2u * 32u)));
}

// Stores four neighbours, the first at i, unless `count` is 0. i is a multiple of four, `step` is
// 1.
fn y_store_four(i: u32, step: u32, values: vec4<f32>, count: u32) {
    if count > 0u {
        let words = bitcast<vec4<u32>>(values);
        y[i / 4u] = vec2<u64>(
            u64(words.x) | u64(words.y) << 32u,
            u64(words.z) | u64(words.w) << 32u,
        );
    }
}
