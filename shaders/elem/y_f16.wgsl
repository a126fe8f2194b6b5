// import numbers

// Residual and output in f16. Values past the largest f16 are stored as that, a NaN as a NaN.
// Both [batch, channels out, depth, height, width], or with the channels innermost (Y_NHWC)
@group(0) @binding(5) var<storage, read> residual: array<f16>;
@group(0) @binding(6) var<storage, read_write> y: array<f16>;

fn residual_value(i: u32) -> f32 {
    return f32(residual[i]);
}

fn y_value(i: u32) -> f32 {
    return f32(y[i]);
}

fn y_store(i: u32, value: f32) {
    y[i] = f16(within(value, -65504.0, 65504.0));
}
