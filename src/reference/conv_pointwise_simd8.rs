//! Truth of `shaders/conv_pointwise_simd8.wgsl`: 1 x 1 taps, one input channel after the other
//! added to all outputs of its group.

use super::Conv;

/// `Y += W[.., ci] X[ci, ..]` for each `ci`.
#[must_use]
pub fn conv_pointwise_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    let size = conv.positions();
    let mut sums = vec![0.0; conv.batch * conv.geometry.c_out * size];
    for b in 0..conv.batch {
        for channel in 0..conv.geometry.c_in {
            let (group, ci) = (channel / c_in, channel % c_in);
            for co in group * c_out..(group + 1) * c_out {
                let weight = conv.weight_at(b, co, ci);
                for position in 0..size {
                    let input = conv.input_at(b, channel, conv.place(position));
                    sums[(b * conv.geometry.c_out + co) * size + position] += weight * input;
                }
            }
        }
    }
    conv.collect(|b, channel, position| sums[(b * conv.geometry.c_out + channel) * size + position])
}
