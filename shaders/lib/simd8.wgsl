// import conv

// What the kernels for subgroups of eight invocations (lanes) share whose lanes own two output
// channels each: where their weights are.

// sample_weights once more [batch or 1, sample_stride / 2], in pairs: with WEIGHT_STEP 16 the
// weights of a lane's two channels are one load.
@group(0) @binding(7) var<storage, read> wide_weights: array<u64>;

// First weights in kernel k of two neighbouring output channels of group g, from co on. Channels
// past the last read the last; their sums are never stored.
fn first_weights(b: u32, k: u32, g: u32, co: u32) -> vec2<u32> {
    let first = g * params.c_out;
    let last = params.c_out - 1u;
    return vec2<u32>(
        weights_of(b, k, first + min(co, last)),
        weights_of(b, k, first + min(co + 1u, last)),
    );
}

fn two_weights(first: vec2<u32>, reduction: u32) -> vec2<f32> {
    if WEIGHT_STEP == 1u {
        return vec2<f32>(sample_weights[first.x + reduction], sample_weights[first.y + reduction]);
    }
    let pair = wide_weights[first.x / 2u + reduction * 8u];
    return vec2<f32>(bitcast<f32>(u32(pair)), bitcast<f32>(u32(pair >> 32u)));
}
