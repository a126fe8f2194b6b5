//! Truth of `shaders/conv_pointwise.wgsl`: 1 x 1 taps, so that outputs read the input position of
//! their own number.

use super::Conv;

/// `Y[co, p] = sum_ci W[co, ci] X[ci, p]`
#[must_use]
pub fn conv_pointwise(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    conv.collect(|b, channel, position| {
        let first = channel / c_out * c_in;
        (0..c_in)
            .map(|ci| {
                conv.weight_at(b, channel, ci) * conv.input_at(b, first + ci, conv.place(position))
            })
            .sum()
    })
}
