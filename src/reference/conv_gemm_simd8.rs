//! Truth of `shaders/conv_gemm_simd8.wgsl`: the convolution with the taps outermost and the output
//! channels innermost, as outer products.

use super::Conv;

/// For each tap and each input channel, one input times the weights of all output channels.
#[must_use]
pub fn conv_gemm_simd8(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    let mut sums = vec![0.0; conv.batch * conv.geometry.c_out * conv.positions()];
    let [kd, kh, kw] = conv.geometry.kernel;
    for tap in 0..conv.geometry.taps() {
        let taps = [tap / (kh * kw) % kd, tap / kw % kh, tap % kw];
        for b in 0..conv.batch {
            for position in 0..conv.positions() {
                let place = conv.place(position);
                let read: [Option<usize>; 3] =
                    std::array::from_fn(|axis| conv.tap(axis, place[axis], taps[axis]));
                let [Some(z), Some(row), Some(column)] = read else { continue };
                for channel in 0..conv.geometry.c_in {
                    let input = conv.input_at(b, channel, [z, row, column]);
                    let (group, ci) = (channel / c_in, channel % c_in);
                    for co in group * c_out..(group + 1) * c_out {
                        let weight = conv.weight_at(b, co, ci * conv.geometry.taps() + tap);
                        sums[(b * conv.geometry.c_out + co) * conv.positions() + position] +=
                            weight * input;
                    }
                }
            }
        }
    }
    conv.collect(|b, channel, position| {
        sums[(b * conv.geometry.c_out + channel) * conv.positions() + position]
    })
}
