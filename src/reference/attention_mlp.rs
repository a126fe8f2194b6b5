//! Truth of `shaders/attention_mlp.wgsl`. Weights have a row an output here, and the batch norm is not folded.

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

/// An attention branch.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Hidden layer `[hidden, channels]`, without bias.
    pub hidden: Vec<f64>,
    /// Batch norm of the hidden layer.
    pub norm: Option<Norm>,
    /// Heads one after another, `[sigmoids + kernels, hidden]`.
    pub heads: Vec<f64>,
    /// Bias of the heads.
    pub head_bias: Vec<f64>,
    /// Outputs that are gains.
    pub sigmoids: usize,
    /// Outputs that are mixing weights, after the gains.
    pub kernels: usize,
    /// Divides every logit.
    pub temperature: f64,
}

/// Attention rows `[batch, sigmoids + kernels]` from channel means `[batch, channels]`.
#[must_use]
pub fn attention_mlp(mlp: &Mlp, means: &[f64], batch: usize) -> Vec<f64> {
    let channels = means.len() / batch;
    means.chunks_exact(channels).flat_map(|sample| attention_row(mlp, sample)).collect()
}

fn attention_row(mlp: &Mlp, means: &[f64]) -> Vec<f64> {
    let mut hidden = product(&mlp.hidden, means);
    if let Some(norm) = &mlp.norm {
        for (i, h) in hidden.iter_mut().enumerate() {
            *h = (*h - norm.mean[i]) / (norm.var[i] + norm.epsilon).sqrt() * norm.weight[i] + norm.bias[i];
        }
    }
    for h in &mut hidden {
        *h = h.max(0.0);
    }
    let logits = product(&mlp.heads, &hidden);
    let logits: Vec<f64> = logits.iter().zip(&mlp.head_bias).map(|(z, b)| (z + b) / mlp.temperature).collect();
    let (gains, mix) = logits.split_at(mlp.sigmoids);
    gains.iter().map(|&z| sigmoid(z)).chain(softmax(mix)).collect()
}

/// Matrix (rows outermost) times vector.
fn product(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(vector.len()).map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
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
