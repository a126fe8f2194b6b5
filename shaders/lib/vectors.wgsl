// Vectors indexed by a variable.

// The i-th component. Drivers put a vector that is indexed by a variable in memory.
fn component(v: vec4<f32>, i: u32) -> f32 {
    return select(select(v.x, v.y, i == 1u), select(v.z, v.w, i == 3u), i >= 2u);
}
