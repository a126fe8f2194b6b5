//! Truth of `shaders/conv_gemm_register.wgsl`: the convolution with the input channel outermost.

use super::Conv;

/// For each output, channel after channel: the inner product of its taps with the window that they
/// cover.
#[must_use]
pub fn conv_gemm_register(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    conv.collect(|b, channel, position| {
        let first = channel / c_out * c_in;
        (0..c_in).map(|ci| window(conv, b, channel, [first, ci], conv.place(position))).sum()
    })
}

fn window(
    conv: &Conv<'_>,
    b: usize,
    channel: usize,
    [first, ci]: [usize; 2],
    place: [usize; 3],
) -> f64 {
    let [kd, kh, kw] = conv.geometry.kernel;
    let mut sum = 0.0;
    for kz in 0..kd {
        for ky in 0..kh {
            for kx in 0..kw {
                let read =
                    [(0, kz), (1, ky), (2, kx)].map(|(axis, tap)| conv.tap(axis, place[axis], tap));
                if let [Some(z), Some(row), Some(column)] = read {
                    let r = ((ci * kd + kz) * kh + ky) * kw + kx;
                    sum += conv.weight_at(b, channel, r)
                        * conv.input_at(b, first + ci, [z, row, column]);
                }
            }
        }
    }
    sum
}
