//! Truth of `shaders/conv_gemm_coopmat.wgsl`: the convolution as sums of products of small
//! matrices.

use super::Conv;

/// Rows and columns of a matrix.
const SIZE: usize = 16;

/// Each `SIZE x SIZE` outputs (channels x positions) are the sum of the products of a matrix of
/// weights with a matrix of what a tap reads, over the taps and over the input channels, `SIZE` at
/// a time.
#[must_use]
pub fn conv_gemm_coopmat(conv: &Conv<'_>) -> Vec<f64> {
    let [_, c_out] = conv.group_channels();
    let positions = conv.positions();
    let mut sums = vec![0.0; conv.batch * conv.geometry.c_out * positions];
    for b in 0..conv.batch {
        for group in 0..conv.geometry.groups {
            for m in (0..c_out).step_by(SIZE) {
                for n in (0..positions).step_by(SIZE) {
                    let tile = sum_of_products(conv, b, group, m, n);
                    for (i, j) in (0..SIZE).flat_map(|i| (0..SIZE).map(move |j| (i, j))) {
                        if m + i < c_out && n + j < positions {
                            let channel = group * c_out + m + i;
                            sums[(b * conv.geometry.c_out + channel) * positions + n + j] =
                                tile[i][j];
                        }
                    }
                }
            }
        }
    }
    conv.collect(|b, channel, position| {
        sums[(b * conv.geometry.c_out + channel) * positions + position]
    })
}

type Matrix = [[f64; SIZE]; SIZE];

fn sum_of_products(conv: &Conv<'_>, b: usize, group: usize, m: usize, n: usize) -> Matrix {
    let [c_in, c_out] = conv.group_channels();
    let taps = conv.geometry.taps();
    let mut sum = Matrix::default();
    for tap in 0..taps {
        for ci in (0..c_in).step_by(SIZE) {
            let is_inside = |i: usize, k: usize| m + i < c_out && ci + k < c_in;
            let weight = |i, k| conv.weight_at(b, group * c_out + m + i, (ci + k) * taps + tap);
            let input = |k, j| read(conv, b, group * c_in + ci + k, n + j, tap);
            let w: Matrix = matrix(|i, k| if is_inside(i, k) { weight(i, k) } else { 0.0 });
            let x: Matrix = matrix(|k, j| if ci + k < c_in { input(k, j) } else { 0.0 });
            for (i, j) in (0..SIZE).flat_map(|i| (0..SIZE).map(move |j| (i, j))) {
                sum[i][j] += (0..SIZE).map(|k| w[i][k] * x[k][j]).sum::<f64>();
            }
        }
    }
    sum
}

fn matrix(element: impl Fn(usize, usize) -> f64) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| element(i, j)))
}

/// What a tap reads in a channel for an output position; 0 in the padding and past the last
/// position.
fn read(conv: &Conv<'_>, b: usize, channel: usize, position: usize, tap: usize) -> f64 {
    let [_, kh, kw] = conv.geometry.kernel;
    if position >= conv.positions() {
        return 0.0;
    }
    let place = conv.place(position);
    let of_axis = [tap / (kh * kw), tap / kw % kh, tap % kw];
    match [0, 1, 2].map(|axis| conv.tap(axis, place[axis], of_axis[axis])) {
        [Some(z), Some(row), Some(column)] => conv.input_at(b, channel, [z, row, column]),
        _ => 0.0,
    }
}
