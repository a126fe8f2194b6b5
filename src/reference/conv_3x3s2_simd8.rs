//! Truth of `shaders/conv_3x3s2_simd8.wgsl`: 3 x 3 taps with stride 2.

use super::Conv;

/// For each output, the nine inputs from twice its place on, less the padding, times the taps.
#[must_use]
pub fn conv_3x3s2_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    conv.collect(|b, channel, position| {
        let [_, row, column] = conv.place(position);
        let first = channel / c_out * c_in;
        let mut sum = 0.0;
        for ci in 0..c_in {
            for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                let [top, left] = [1, 2].map(|axis| conv.geometry.padding[axis][0]);
                let [y, x] = [(2 * row + ky).checked_sub(top), (2 * column + kx).checked_sub(left)];
                if let (Some(y), Some(x)) = (y, x)
                    && y < conv.input[1]
                    && x < conv.input[2]
                {
                    sum += conv.weight_at(b, channel, 9 * ci + 3 * ky + kx)
                        * conv.input_at(b, first + ci, [0, y, x]);
                }
            }
        }
        sum
    })
}
