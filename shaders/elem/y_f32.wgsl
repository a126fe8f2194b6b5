// Residual and output in f32.
// Both [batch, channels out, depth, height, width], or with the channels innermost (Y_NHWC)
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn residual_value(i: u32) -> f32 {
    return residual[i];
}

fn y_value(i: u32) -> f32 {
    return y[i];
}

fn y_store(i: u32, value: f32) {
    y[i] = value;
}
