// import conv, epilogue, y_wide

// How kernels store that store up to four neighbouring outputs at a time. `channel` counts over all
// groups.
//
// Constants that the host joins in front: X_WIDTH and Y_WIDTH, elements of input and output that
// one load and one store take (1, 2 or 4).
fn store_outputs(b: u32, channel: u32, position: u32, sums: vec4<f32>, count: u32) {
    // Values past the count are not stored; they read what the last one reads.
    let last = max(count, 1u) - 1u;
    let values = vec4<f32>(
        epilogue(b, channel, position, sums.x),
        epilogue(b, channel, position + min(1u, last), sums.y),
        epilogue(b, channel, position + min(2u, last), sums.z),
        epilogue(b, channel, position + min(3u, last), sums.w),
    );
    let step = select(1u, params.groups * params.c_out, Y_NHWC);
    y_store_four(y_element(b, channel, position), step, values, count);
}
