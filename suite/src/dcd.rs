//! Dynamic channel fusion in f64, written out as the formula of [`dynconv::Dcd2d`] reads.

use dynconv::problem::{Geometry, Problem};
use dynconv::reference::{self, LayerWeights, widen};
use dynconv::{BatchNorm, DcdWeights};

use crate::spec::Spec;

/// Output of a layer, in two parts of which it is the sum.
pub(crate) struct Parts {
    /// The scaled convolution, and the residual if there is one.
    pub(crate) convolved: Vec<f64>,
    /// What comes by way of the latent channels.
    pub(crate) fused: Vec<f64>,
}

/// The layer of a problem on its input, without the residual.
pub(crate) fn parts(spec: &Spec, g: &Geometry, w: &DcdWeights, x: &[f64]) -> Parts {
    let problem = Problem::new(*g, 1, spec.input3());
    let samples = x.chunks_exact(x.len() / spec.batch);
    let mut parts = Parts { convolved: Vec::new(), fused: Vec::new() };
    for x in samples {
        let u = squeezed(spec, w, x);
        let lambda: Vec<f64> = product(&w.scale, &u).into_iter().map(hs).collect();
        let kernel = LayerWeights { bank: widen(&w.conv), ..Default::default() };
        let y = reference::layer(&problem, &kernel, x, &[]).y;
        let positions = y.len() / g.c_out;
        parts.convolved.extend(y.iter().enumerate().map(|(i, y)| lambda[i / positions] * y));
        parts.fused.extend(fused(spec, g, w, x, &product(&w.phi, &u)));
    }
    parts
}

/// The pooled input, squeezed and gated.
fn squeezed(spec: &Spec, w: &DcdWeights, x: &[f64]) -> Vec<f64> {
    let cells = (w.squeeze.len() / (w.gate.len().isqrt() * spec.channels[0])).isqrt();
    let u = product(&w.squeeze, &pooled(x, [spec.input[0], spec.input[1]], cells));
    product(&w.gate, &u).iter().zip(&u).map(|(gate, u)| hs(*gate) * u).collect()
}

/// `p * (z + batch_norm2(Phi z))`, `[channels out, positions]`.
fn fused(spec: &Spec, g: &Geometry, w: &DcdWeights, x: &[f64], phi: &[f64]) -> Vec<f64> {
    let (latent, [height, width]) = (w.norm1.weight.len(), [spec.input[0], spec.input[1]]);
    let strides = [g.stride[1], g.stride[2]];
    let [rows, columns] = [height.div_ceil(strides[0]), width.div_ceil(strides[1])];
    let mut y = vec![0.0; g.c_out * rows * columns];
    for position in 0..rows * columns {
        let place = position / columns * strides[0] * width + position % columns * strides[1];
        let pixel: Vec<f64> = (0..g.c_in).map(|ci| x[ci * height * width + place]).collect();
        let q = product(&w.q, &pixel);
        let z: Vec<f64> = (0..latent).map(|l| normalised(&w.norm1, l, q[l])).collect();
        let mixed: Vec<f64> = (0..latent)
            .map(|l| {
                let sum = (0..latent).map(|j| phi[l * latent + j] * z[j]).sum();
                z[l] + normalised(&w.norm2, l, sum)
            })
            .collect();
        for (co, value) in product(&w.p, &mixed).into_iter().enumerate() {
            y[co * rows * columns + position] = value;
        }
    }
    y
}

fn hs(t: f64) -> f64 {
    (t + 3.0).clamp(0.0, 6.0) / 3.0
}

fn product(matrix: &[f32], vector: &[f64]) -> Vec<f64> {
    let rows = matrix.chunks_exact(vector.len());
    rows.map(|row| row.iter().zip(vector).map(|(&a, b)| f64::from(a) * b).sum()).collect()
}

fn normalised(norm: &BatchNorm, channel: usize, value: f64) -> f64 {
    let at = |values: &[f32]| f64::from(values[channel]);
    (value - at(&norm.mean)) / (at(&norm.var) + norm.epsilon).sqrt() * at(&norm.weight)
        + at(&norm.bias)
}

/// Means over the windows of adaptive pooling: from floor(i n / cells) to ceil((i + 1) n / cells).
fn pooled(x: &[f64], [height, width]: [usize; 2], cells: usize) -> Vec<f64> {
    let window = |i: usize, n: usize| i * n / cells..((i + 1) * n).div_ceil(cells);
    let mut means = Vec::new();
    for plane in x.chunks_exact(height * width) {
        for (i, j) in (0..cells).flat_map(|i| (0..cells).map(move |j| (i, j))) {
            let rows =
                window(i, height).flat_map(|row| window(j, width).map(move |column| (row, column)));
            let values: Vec<f64> = rows.map(|(row, column)| plane[row * width + column]).collect();
            means.push(values.iter().sum::<f64>() / values.len() as f64);
        }
    }
    means
}
