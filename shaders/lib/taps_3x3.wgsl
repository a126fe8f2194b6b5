// import conv

// The 3 x 3 taps of one output channel.
struct Taps3x3 {
    top: vec3<f32>,
    middle: vec3<f32>,
    bottom: vec3<f32>,
}

fn three_weights(first: u32) -> vec3<f32> {
    return vec3<f32>(
        sample_weights[first],
        sample_weights[first + WEIGHT_STEP],
        sample_weights[first + 2u * WEIGHT_STEP],
    );
}

fn taps_at(first: u32) -> Taps3x3 {
    return Taps3x3(
        three_weights(first),
        three_weights(first + 3u * WEIGHT_STEP),
        three_weights(first + 6u * WEIGHT_STEP),
    );
}
