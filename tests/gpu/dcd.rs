//! DCD against its formula, written out in f64.

use dynconv::problem::Problem;
use dynconv::reference::{self, LayerWeights, widen};
use dynconv::{BatchNorm, ConvDesc, Dcd2d, DcdWeights};

use crate::common::{Noise, context, upload};

const CHANNELS: [usize; 2] = [6, 10];
const LATENT: usize = 4;
const SQUEEZED: usize = 5;

fn weights(pooled: usize) -> DcdWeights {
    let mut noise = Noise::new(pooled as u64);
    let [c_in, c_out] = CHANNELS;
    let mut norm = || BatchNorm {
        weight: noise.floats(LATENT),
        bias: noise.floats(LATENT),
        mean: noise.floats(LATENT),
        var: noise.floats(LATENT).iter().map(|v| v.abs() + 0.5).collect(),
        epsilon: 1e-5,
    };
    let (bn1, bn2) = (norm(), norm());
    DcdWeights {
        conv: noise.floats(c_out * c_in * 9),
        q: noise.floats(LATENT * c_in),
        p: noise.floats(c_out * LATENT),
        norm1: bn1,
        norm2: bn2,
        squeeze: noise.floats(SQUEEZED * pooled * pooled * c_in),
        gate: noise.floats(SQUEEZED * SQUEEZED),
        phi: noise.floats(LATENT * LATENT * SQUEEZED),
        scale: noise.floats(c_out * SQUEEZED),
    }
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
fn pooled_means(x: &[f64], [height, width]: [usize; 2], cells: usize) -> Vec<f64> {
    let window = |i: usize, n: usize| i * n / cells..((i + 1) * n).div_ceil(cells);
    let mut means = Vec::new();
    for plane in x.chunks_exact(height * width) {
        for i in 0..cells {
            for j in 0..cells {
                let rows = window(i, height)
                    .flat_map(|row| window(j, width).map(move |column| (row, column)));
                let values: Vec<f64> =
                    rows.map(|(row, column)| plane[row * width + column]).collect();
                means.push(values.iter().sum::<f64>() / values.len() as f64);
            }
        }
    }
    means
}

/// One sample, as the formula reads.
fn truth(
    w: &DcdWeights,
    desc: &ConvDesc<2>,
    stride: usize,
    size: [usize; 2],
    cells: usize,
    x: &[f64],
) -> Vec<f64> {
    let [c_in, c_out] = CHANNELS;
    let [height, width] = size;
    let u = product(&w.squeeze, &pooled_means(x, size, cells));
    let u: Vec<f64> = product(&w.gate, &u).iter().zip(&u).map(|(v, u)| hs(*v) * u).collect();
    let phi = product(&w.phi, &u);
    let lambda: Vec<f64> = product(&w.scale, &u).into_iter().map(hs).collect();

    let problem = Problem::new(desc.geometry().expect("valid"), 1, [1, height, width]);
    let kernel = LayerWeights { bank: widen(&w.conv), ..Default::default() };
    let mut y = reference::layer(&problem, &kernel, x, &[]).y;
    let [rows, columns] = desc.output_size(size).expect("fits");
    for row in 0..rows {
        for column in 0..columns {
            let place = row * stride * width + column * stride;
            let pixel: Vec<f64> = (0..c_in).map(|ci| x[ci * height * width + place]).collect();
            let z: Vec<f64> = product(&w.q, &pixel)
                .iter()
                .enumerate()
                .map(|(l, &v)| normalised(&w.norm1, l, v))
                .collect();
            let mixed = (0..LATENT).map(|l| {
                let sum = (0..LATENT).map(|j| phi[l * LATENT + j] * z[j]).sum();
                z[l] + normalised(&w.norm2, l, sum)
            });
            let path = product(&w.p, &mixed.collect::<Vec<_>>());
            for co in 0..c_out {
                let i = (co * rows + row) * columns + column;
                y[i] = lambda[co] * y[i] + path[co];
            }
        }
    }
    y
}

#[test]
fn dcd_follows_its_formula() {
    for (cells, stride, size) in [(1, 1, [7, 9]), (2, 1, [8, 6]), (2, 2, [9, 7])] {
        let w = weights(cells);
        let [c_in, c_out] = CHANNELS;
        let desc = ConvDesc::new(c_in, c_out, [3, 3]).padding([1, 1]).stride([stride; 2]);
        let x = Noise::new(77).floats(2 * c_in * size[0] * size[1]);
        let layer = Dcd2d::new(context(), &desc, &w).expect("valid");
        let input = upload(context(), &[2, c_in, size[0], size[1]], &x);
        let y = layer.forward(&input).expect("runs").read_blocking(context()).expect("reads");
        let x = widen(&x);
        let truth: Vec<f64> = x
            .chunks_exact(x.len() / 2)
            .flat_map(|x| truth(&w, &desc, stride, size, cells, x))
            .collect();
        let largest = truth.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        for (i, (&y, t)) in y.iter().zip(&truth).enumerate() {
            let error = (f64::from(y) - t).abs() / largest;
            assert!(
                error <= 1e-5,
                "{cells} cells, stride {stride}: element {i} is off by {error:e}"
            );
        }
        assert_eq!(y.len(), truth.len());
    }
}
