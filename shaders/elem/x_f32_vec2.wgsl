// Input in f32, loaded in pairs: an even number of elements.
// [batch, channels in, depth, height, width], or with the channels innermost (X_NHWC)
@group(0) @binding(1) var<storage, read> x: array<u64>;

fn x_pair(i: u32) -> vec2<f32> {
    let pair = x[i / 2u];
    return vec2<f32>(bitcast<f32>(u32(pair)), bitcast<f32>(u32(pair >> 32u)));
}

fn x_value(i: u32) -> f32 {
    let pair = x_pair(i);
    return select(pair.x, pair.y, i % 2u == 1u);
}

// Four neighbouring elements from i on, where i is even and `last` odd. Pairs past `last` repeat
// the last one.
fn x_four(i: u32, last: u32) -> vec4<f32> {
    return vec4<f32>(x_pair(min(i, last)), x_pair(min(i + 2u, last)));
}

// Two neighbouring elements, the first of which is even.
fn x_two(first: u32, second: u32) -> vec2<f32> {
    return x_pair(first);
}
