//! Truth of `shaders/average_pool.wgsl`.

/// Means of `x [outer, size, inner]` over the middle axis.
#[must_use]
pub fn average_pool(x: &[f64], outer: usize, inner: usize) -> Vec<f64> {
    let size = x.len() / (outer * inner);
    let mean =
        |block: &[f64], i: usize| block[i..].iter().step_by(inner).sum::<f64>() / size as f64;
    x.chunks_exact(size * inner).flat_map(|block| (0..inner).map(move |i| mean(block, i))).collect()
}
