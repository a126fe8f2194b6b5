// Numbers that are not finite. WGSL lets a compiler assume that there are none: `min`, `max` and
// `clamp` may drop a NaN, and `x != x` may be taken for false. So a NaN is told by its bits, and
// goes on as it is.

fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) < 0x7f800000u;
}

// The NaN that an operation on an infinity or a NaN may give.
fn as_nan(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) | 0x7fc00000u);
}

// `value`, but not less than `least`.
fn at_least(value: f32, least: f32) -> f32 {
    return select(max(value, least), value, is_nan(value));
}

// `value`, but not less than `least` and not more than `most`.
fn within(value: f32, least: f32, most: f32) -> f32 {
    return select(clamp(value, least, most), value, is_nan(value));
}

// The largest power of two that is not above a positive number, which must not be a subnormal one;
// at most 2^124, so that its inverse is none either. Products with it and with its inverse are
// exact.
fn power_of_two(value: f32) -> f32 {
    return bitcast<f32>(min(bitcast<u32>(value) & 0x7f800000u, 0x7d800000u));
}

// exp's argument stays at or below 0, where it cannot overflow.
fn sigmoid(value: f32) -> f32 {
    let e = exp(-abs(value));
    return select(e, 1.0, value >= 0.0) / (1.0 + e);
}
