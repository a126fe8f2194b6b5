//! Truth of `shaders/window_pool.wgsl`: the largest or the mean of what windows cover.

use super::Conv;
use crate::problem::Pooling;

/// Pools each channel of `conv`, whose kernel is the window and whose weights are not looked at.
#[must_use]
pub fn window_pool(conv: &Conv<'_>, pooling: Pooling) -> Vec<f64> {
    let [kd, kh, kw] = conv.geometry.kernel;
    conv.collect(|b, channel, position| {
        let place = conv.place(position);
        let taps =
            (0..kd).flat_map(|kz| (0..kh).flat_map(move |ky| (0..kw).map(move |kx| [kz, ky, kx])));
        let mut covered = Vec::new();
        for tap in taps {
            let read = [0, 1, 2].map(|axis| conv.tap(axis, place[axis], tap[axis]));
            if let [Some(z), Some(row), Some(column)] = read {
                covered.push(conv.input_at(b, channel, [z, row, column]));
            }
        }
        let sum: f64 = covered.iter().sum();
        match pooling {
            // A NaN is larger than any number.
            Pooling::Max if covered.iter().any(|value| value.is_nan()) => f64::NAN,
            Pooling::Max => covered.into_iter().fold(f64::NEG_INFINITY, f64::max),
            Pooling::Mean => sum / covered.len() as f64,
            Pooling::MeanWithPadding => sum / conv.geometry.taps() as f64,
        }
    })
}
