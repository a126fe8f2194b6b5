//! Truth of `shaders/attention_mlp.wgsl`. Weights have a row an output here, and the batch norm is
//! not folded.

/// A batch norm in evaluation mode.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale (gamma).
    pub weight: Vec<f64>,
    /// Shift (beta).
    pub bias: Vec<f64>,
    /// Running mean.
    pub mean: Vec<f64>,
    /// Running variance.
    pub var: Vec<f64>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// What becomes of the logits after the gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// All outputs are sigmoids.
    Sigmoid,
    /// One softmax over the kernels.
    Softmax {
        /// Kernels of the bank.
        kernels: usize,
    },
    /// Signed attention over cells: each run of `cells + 1` logits is divided by the sum of its
    /// magnitudes plus 1e-3, and its last element dropped.
    Signed {
        /// Cells of the warehouse.
        cells: usize,
    },
}

/// An attention branch.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Hidden layer `[hidden, channels]`; empty where the heads read the means.
    pub hidden: Vec<f64>,
    /// Bias of the hidden layer.
    pub hidden_bias: Option<Vec<f64>>,
    /// Batch norm of the hidden layer.
    pub norm: Option<Norm>,
    /// Heads one after another, `[logits, hidden]`.
    pub heads: Vec<f64>,
    /// Bias of the heads.
    pub head_bias: Vec<f64>,
    /// Logits that become gains, first of all.
    pub sigmoids: usize,
    /// What becomes of the rest.
    pub head: Head,
    /// Divides every logit.
    pub temperature: f64,
}

/// Attention rows, a sample after the other, from channel means `[batch, channels]`.
#[must_use]
pub fn attention_mlp(mlp: &Mlp, means: &[f64], batch: usize) -> Vec<f64> {
    let channels = means.len() / batch;
    means.chunks_exact(channels).flat_map(|sample| attention_row(mlp, sample)).collect()
}

fn attention_row(mlp: &Mlp, means: &[f64]) -> Vec<f64> {
    let hidden = if mlp.hidden.is_empty() { means.to_vec() } else { hidden_layer(mlp, means) };
    let logits = product(&mlp.heads, &hidden);
    let logits: Vec<f64> =
        logits.iter().zip(&mlp.head_bias).map(|(z, b)| (z + b) / mlp.temperature).collect();
    let (gains, rest) = logits.split_at(mlp.sigmoids);
    let mut row: Vec<f64> = gains.iter().map(|&z| sigmoid(z)).collect();
    match mlp.head {
        Head::Sigmoid => {}
        Head::Softmax { .. } => row.extend(softmax(rest)),
        Head::Signed { cells } => row.extend(rest.chunks_exact(cells + 1).flat_map(signed)),
    }
    row
}

fn hidden_layer(mlp: &Mlp, means: &[f64]) -> Vec<f64> {
    let mut hidden = product(&mlp.hidden, means);
    if let Some(bias) = &mlp.hidden_bias {
        hidden.iter_mut().zip(bias).for_each(|(h, b)| *h += b);
    }
    if let Some(norm) = &mlp.norm {
        for (i, h) in hidden.iter_mut().enumerate() {
            *h = (*h - norm.mean[i]) / (norm.var[i] + norm.epsilon).sqrt() * norm.weight[i]
                + norm.bias[i];
        }
    }
    hidden.into_iter().map(super::relu).collect()
}

/// Matrix (rows outermost) times vector.
fn product(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(vector.len())
        .map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum())
        .collect()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn signed(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| z.abs()).sum();
    logits[..logits.len() - 1].iter().map(|z| z / (sum + 1e-3)).collect()
}
