//! Truth of `shaders/conv_depthwise_simd8.wgsl`: one input channel a group, 3 x 3 taps with stride
//! 1.

use super::Conv;

/// Every input row is filtered along itself with each row of taps; an output row is the sum of
/// three such rows, one below the other.
#[must_use]
pub fn conv_depthwise_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [_, multiplier] = conv.group_channels();
    let height = conv.input[1];
    let filtered = |b: usize, channel: usize, row: usize, ky: usize, column: usize| -> f64 {
        let inputs = (0..3).map(|kx| (kx, conv.tap(2, column, kx)));
        let products = inputs.map(|(kx, from)| match from {
            Some(from) => {
                conv.weight_at(b, channel, 3 * ky + kx)
                    * conv.input_at(b, channel / multiplier, [0, row, from])
            }
            None => 0.0,
        });
        products.sum()
    };
    let columns = conv.output[2];
    let mut rows = vec![0.0; 3 * conv.batch * conv.geometry.c_out * height * columns];
    for (i, value) in rows.iter_mut().enumerate() {
        let (column, row, ky) = (i % columns, i / columns % height, i / (columns * height) % 3);
        let channel = i / (columns * height * 3);
        *value =
            filtered(channel / conv.geometry.c_out, channel % conv.geometry.c_out, row, ky, column);
    }
    conv.collect(|b, channel, position| {
        let [_, out_row, column] = conv.place(position);
        let first = (b * conv.geometry.c_out + channel) * 3;
        let taps = (0..3).filter_map(|ky| {
            conv.tap(1, out_row, ky).map(|row| ((first + ky) * height + row) * columns + column)
        });
        taps.map(|i| rows[i]).sum()
    })
}
