// import vectors

// Input in f32, loaded four elements at a time: a multiple of four elements.
// [batch, channels in, depth, height, width], or with the channels innermost (X_NHWC)
@group(0) @binding(1) var<storage, read> x: array<vec2<u64>>;

fn x_piece(i: u32) -> vec4<f32> {
    let four = x[i / 4u];
    return bitcast<vec4<f32>>(
        vec4<u32>(u32(four.x), u32(four.x >> 32u), u32(four.y), u32(four.y >> 32u)),
    );
}

fn x_value(i: u32) -> f32 {
    return component(x_piece(i), i % 4u);
}

// Four neighbouring elements from i on, where i and `last` + 1 are multiples of four. Past `last`
// the last four.
fn x_four(i: u32, last: u32) -> vec4<f32> {
    return x_piece(min(i, last));
}
