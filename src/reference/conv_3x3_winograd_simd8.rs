//! Truth of `shaders/conv_3x3_winograd_simd8.wgsl`: minimal filtering along the rows.

use super::Conv;
use crate::problem::Winograd;

/// The convolution, four outputs of a row at a time.
#[must_use]
pub fn conv_3x3_winograd_simd8(conv: &Conv<'_>) -> Vec<f64> {
    by_matrices(conv, &Winograd::F4.matrices())
}

/// For each four outputs of a row, `A' [ sum (G g) * (B' d) ]` over the channels and rows of taps:
/// `g` the three taps, `d` the six inputs that they read. With the matrices of
/// [`Winograd::F4`](crate::Winograd) it is the convolution; with their magnitudes, and those of all
/// operands, what its rounding errors are relative to.
#[must_use]
pub fn by_matrices(conv: &Conv<'_>, [g, b, a]: &[Vec<Vec<f64>>; 3]) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    conv.collect(|sample, channel, position| {
        let [_, row, column] = conv.place(position);
        let mut products = [0.0; 6];
        for (ci, ky) in (0..c_in).flat_map(|ci| (0..3).map(move |ky| (ci, ky))) {
            let taps: Vec<f64> =
                (0..3).map(|kx| conv.weight_at(sample, channel, 9 * ci + 3 * ky + kx)).collect();
            let input = |i: usize| {
                conv.padded(sample, channel / c_out * c_in + ci, [row + ky, column / 4 * 4 + i])
            };
            let inputs: Vec<f64> = (0..6).map(input).collect();
            for (f, product) in products.iter_mut().enumerate() {
                *product += dot(&g[f], &taps) * dot(&b[f], &inputs);
            }
        }
        dot(&a[column % 4], &products)
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
