//! Truth of `shaders/conv_depthwise_strip.wgsl`: one input channel a group, up to 7 x 7 taps.

use super::Conv;

/// Every row of a padded input is filtered along itself by each row of taps; an output is the sum
/// of as many such rows as there are taps above each other.
#[must_use]
pub fn conv_depthwise_strip(conv: &Conv<'_>) -> Vec<f64> {
    let [_, multiplier] = conv.group_channels();
    let [_, height, width] = conv.geometry.kernel;
    let [_, down, along] = conv.geometry.stride;
    conv.collect(|b, channel, position| {
        let [_, row, column] = conv.place(position);
        let of_row = |ky: usize| -> f64 {
            let place = |kx| [down * row + ky, along * column + kx];
            let read = |kx| conv.padded(b, channel / multiplier, place(kx));
            (0..width).map(|kx| conv.weight_at(b, channel, width * ky + kx) * read(kx)).sum()
        };
        (0..height).map(of_row).sum()
    })
}
