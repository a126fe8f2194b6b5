// import x

// Neighbouring elements of the input, one by one.

// Four neighbouring elements from i on. Those past `last` repeat it.
fn x_four(i: u32, last: u32) -> vec4<f32> {
    return vec4<f32>(
        x_value(min(i, last)),
        x_value(min(i + 1u, last)),
        x_value(min(i + 2u, last)),
        x_value(min(i + 3u, last)),
    );
}

// Two elements.
fn x_two(first: u32, second: u32) -> vec2<f32> {
    return vec2<f32>(x_value(first), x_value(second));
}
