// import numbers

// Residual and output in f16, two in a word, for devices whose shaders cannot compute in f16. The
// other half of a word may belong to another invocation, so halves are set by atomic operations.
// Values past the largest f16 are stored as that, a NaN as a NaN.
// Both [batch, channels out, depth, height, width], or with the channels innermost (Y_NHWC)
@group(0) @binding(5) var<storage, read> residual: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<atomic<u32>>;

fn half_of(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, i % 2u == 1u);
}

fn residual_value(i: u32) -> f32 {
    return half_of(residual[i / 2u], i);
}

fn y_value(i: u32) -> f32 {
    return half_of(atomicLoad(&y[i / 2u]), i);
}

fn y_store(i: u32, value: f32) {
    let shift = i % 2u * 16u;
    let bits = pack2x16float(vec2<f32>(within(value, -65504.0, 65504.0), 0.0)) & 0xffffu;
    atomicAnd(&y[i / 2u], ~(0xffffu << shift));
    atomicOr(&y[i / 2u], bits << shift);
}
