// import conv, epilogue, y

// How kernels store that store one output at a time. `channel` counts over all groups.
fn store_output(b: u32, channel: u32, position: u32, sum: f32) {
    y_store(y_element(b, channel, position), epilogue(b, channel, position, sum));
}
