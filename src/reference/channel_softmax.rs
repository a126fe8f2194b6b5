//! Truth of `shaders/channel_softmax.wgsl`.

/// Softmax over the channels of `logits [batch, channels, size]`.
#[must_use]
pub fn channel_softmax(logits: &[f64], channels: usize, size: usize, temperature: f64) -> Vec<f64> {
    let mut maps = vec![0.0; logits.len()];
    for (sample, out) in
        logits.chunks_exact(channels * size).zip(maps.chunks_exact_mut(channels * size))
    {
        for p in 0..size {
            let at = |k: usize| sample[k * size + p] / temperature;
            let largest = (0..channels).map(at).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..channels).map(|k| (at(k) - largest).exp()).sum();
            for k in 0..channels {
                out[k * size + p] = (at(k) - largest).exp() / sum;
            }
        }
    }
    maps
}
