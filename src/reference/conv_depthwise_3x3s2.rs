//! Truth of `shaders/conv_depthwise_3x3s2.wgsl`: one input channel a group, 3 x 3 taps with stride
//! 2.

use super::Conv;

/// For each output, three rows of taps times what they read of the padded input, every second
/// place.
#[must_use]
pub fn conv_depthwise_3x3s2(conv: &Conv<'_>) -> Vec<f64> {
    let [_, multiplier] = conv.group_channels();
    conv.collect(|b, channel, position| {
        let [_, row, column] = conv.place(position);
        let of_row = |ky: usize| -> f64 {
            let read = |kx| conv.padded(b, channel / multiplier, [2 * row + ky, 2 * column + kx]);
            (0..3).map(|kx| conv.weight_at(b, channel, 3 * ky + kx) * read(kx)).sum()
        };
        (0..3).map(of_row).sum()
    })
}
