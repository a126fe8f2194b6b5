// Input in f16, two in a word, for devices whose shaders cannot compute in f16.
// [batch, channels in, depth, height, width], or with the channels innermost (X_NHWC)
@group(0) @binding(1) var<storage, read> x: array<u32>;

fn x_value(i: u32) -> f32 {
    let pair = unpack2x16float(x[i / 2u]);
    return select(pair.x, pair.y, i % 2u == 1u);
}
