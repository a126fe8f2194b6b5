// Residual in f32, and output in f32, stored in pairs: an even number of elements.
// Both [batch, channels out, depth, height, width], or with the channels innermost (Y_NHWC)
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<u64>;

fn residual_value(i: u32) -> f32 {
    return residual[i];
}

fn y_value(i: u32) -> f32 {
    return bitcast<f32>(u32(y[i / 2u] >> (i % 2u * 32u)));
}

fn y_store_pair(i: u32, values: vec2<f32>) {
    let words = bitcast<vec2<u32>>(values);
    y[i / 2u] = u64(words.x) | u64(words.y) << 32u;
}

// Stores the first `count` of four neighbours, the first at i. i and `count` are even, `step` is 1.
fn y_store_four(i: u32, step: u32, values: vec4<f32>, count: u32) {
    if count > 0u { y_store_pair(i, values.xy); }
    if count > 2u { y_store_pair(i + 2u, values.zw); }
}
