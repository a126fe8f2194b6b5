//! Truth of `shaders/conv_tiled.wgsl`: the convolution as a matrix product over (channel, tap).

use super::Conv;

/// `Y[co, p] = sum_r W[co, r] X[r, p]`, where `X[r, p]` is gathered, not stored.
#[must_use]
pub fn conv_tiled(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    let reduction = c_in * conv.geometry.taps();
    conv.collect(|b, channel, position| {
        let first = channel / c_out * c_in;
        (0..reduction)
            .map(|r| conv.weight_at(b, channel, r) * gather(conv, b, first, r, position))
            .sum()
    })
}

/// `X[r, position]` of a group whose first input channel is `first`; 0 in the padding.
fn gather(conv: &Conv<'_>, b: usize, first: usize, r: usize, position: usize) -> f64 {
    let [_, kh, kw] = conv.geometry.kernel;
    let (ci, tap) = (r / conv.geometry.taps(), r % conv.geometry.taps());
    let [out_z, out_y, out_x] = conv.place(position);
    let z = conv.tap(0, out_z, tap / (kh * kw));
    let row = conv.tap(1, out_y, tap / kw % kh);
    let column = conv.tap(2, out_x, tap % kw);
    match (z, row, column) {
        (Some(z), Some(row), Some(column)) => conv.input_at(b, first + ci, [z, row, column]),
        _ => 0.0,
    }
}
