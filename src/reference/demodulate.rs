//! Truth of `shaders/demodulate.wgsl`, from the weights themselves.

use crate::problem::Geometry;

/// Gains `[batch, channels in + channels out]`: the styles, then `1 / sqrt(sum (weight * style)^2 +
/// 1e-8)` of each output channel.
#[must_use]
pub fn demodulate(geometry: &Geometry, kernel: &[f64], style: &[f64]) -> Vec<f64> {
    let [c_in, c_out] = [geometry.c_in / geometry.groups, geometry.c_out / geometry.groups];
    let taps = geometry.taps();
    let mut gains = Vec::new();
    for style in style.chunks_exact(geometry.c_in) {
        gains.extend(style);
        for (co, weights) in kernel.chunks_exact(c_in * taps).enumerate() {
            let of_group = &style[co / c_out * c_in..];
            let square: f64 =
                weights.iter().enumerate().map(|(i, w)| (w * of_group[i / taps]).powi(2)).sum();
            gains.push(1.0 / (square + 1e-8).sqrt());
        }
    }
    gains
}
