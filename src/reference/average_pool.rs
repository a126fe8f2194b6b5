//! Truth of `shaders/average_pool.wgsl`.

/// Mean of each of `planes` equal parts of `x`.
#[must_use]
pub fn average_pool(x: &[f64], planes: usize) -> Vec<f64> {
    let size = x.len() / planes;
    x.chunks_exact(size).map(|plane| plane.iter().sum::<f64>() / size as f64).collect()
}
