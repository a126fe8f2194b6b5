//! Truth of `shaders/conv_strip_simd8.wgsl`: for each row of taps, the run of inputs that a row of
//! outputs reads.

use super::Conv;

/// For each output, the inner products of its rows of taps with their windows of the zero-padded
/// input rows.
#[must_use]
pub fn conv_strip_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    let [kd, kh, kw] = conv.geometry.kernel;
    conv.collect(|b, channel, position| {
        let [out_z, out_y, out_x] = conv.place(position);
        let first = channel / c_out * c_in;
        let mut sum = 0.0;
        for line in 0..c_in * kd * kh {
            let (ci, kz, ky) = (line / (kd * kh), line / kh % kd, line % kh);
            let (Some(z), Some(row)) = (conv.tap(0, out_z, kz), conv.tap(1, out_y, ky)) else {
                continue;
            };
            let window = (0..kw).map(|kx| conv.tap(2, out_x, kx));
            let inputs = window
                .map(|column| column.map_or(0.0, |x| conv.input_at(b, first + ci, [z, row, x])));
            sum += inputs
                .enumerate()
                .map(|(kx, input)| conv.weight_at(b, channel, line * kw + kx) * input)
                .sum::<f64>();
        }
        sum
    })
}
