// Input in f16.
// [batch, channels in, depth, height, width], or with the channels innermost (X_NHWC)
@group(0) @binding(1) var<storage, read> x: array<f16>;

fn x_value(i: u32) -> f32 {
    return f32(x[i]);
}
