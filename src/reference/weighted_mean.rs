//! Truth of `shaders/weighted_mean.wgsl`.

/// Means of `x` over its last axis of `size` elements, by weights of which none counts as less than
/// `least`.
#[must_use]
pub fn weighted_mean(x: &[f64], weights: &[f64], size: usize, least: f64) -> Vec<f64> {
    let planes = x.chunks_exact(size).zip(weights.chunks_exact(size));
    planes
        .map(|(x, weights)| {
            let weights = weights.iter().map(|&weight| if weight < least { least } else { weight });
            let pairs = x.iter().zip(weights.clone());
            pairs.map(|(x, weight)| x * weight).sum::<f64>() / weights.sum::<f64>()
        })
        .collect()
}
