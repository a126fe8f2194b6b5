// import vectors, y

// Several elements of the output, one by one.

// Stores the first `count` of four values, the first at i, each at a distance of `step` from the
// one before.
fn y_store_four(i: u32, step: u32, values: vec4<f32>, count: u32) {
    for (var n = 0u; n < count; n++) {
        y_store(i + n * step, component(values, n));
    }
}
