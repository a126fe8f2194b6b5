//! Truth of `shaders/conv_3x3_simd8.wgsl`: 3 x 3 taps with stride 1, gathered from the zero-padded
//! patch around an output.

use super::Conv;

/// For each output, the sum over the channels of the patch around it times the taps.
#[must_use]
pub fn conv_3x3_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    conv.collect(|b, channel, position| {
        let [_, row, column] = conv.place(position);
        let first = channel / c_out * c_in;
        let patches = (0..c_in).map(|ci| patch(conv, b, first + ci, [row, column]));
        patches.flatten().enumerate().map(|(r, input)| conv.weight_at(b, channel, r) * input).sum()
    })
}

fn patch(conv: &Conv<'_>, b: usize, channel: usize, [row, column]: [usize; 2]) -> [f64; 9] {
    std::array::from_fn(|tap| match (conv.tap(1, row, tap / 3), conv.tap(2, column, tap % 3)) {
        (Some(row), Some(column)) => conv.input_at(b, channel, [0, row, column]),
        _ => 0.0,
    })
}
