// How kernels store that store one output at a time. `channel` counts over all groups.
fn finish(b: u32, channel: u32, position: u32, sum: f32) {
    y_store(y_element(b, channel, position), finished(b, channel, position, sum));
}
