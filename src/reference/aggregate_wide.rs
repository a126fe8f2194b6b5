//! Truth of `shaders/aggregate_wide.wgsl`: rows in blocks, the gains of channels and filters left out.

use super::aggregate::aggregate;
use crate::desc::{BLOCK, Geometry, WeightOrder};
use crate::kernels::aggregate::AttentionRow;

/// Rows `[batch, kernel in blocks and bias]`: `s sum_k alpha_k bank_k`, then `sum_k alpha_k bias_k`, then zeros up to whole blocks. The
/// bank is in plain order.
#[must_use]
pub fn aggregate_wide(
    geometry: &Geometry,
    bank: &[f64],
    bias: Option<&[f64]>,
    attention: &[f64],
    row: AttentionRow,
    batch: usize,
) -> Vec<f64> {
    let left = AttentionRow { channel: None, filter: None, ..row };
    let plain = aggregate(geometry, bank, bias, attention, left, batch);
    let mut rows = Vec::new();
    for sample in plain.chunks_exact(geometry.row(WeightOrder::Plain, bias.is_some())) {
        let (weights, bias) = sample.split_at(geometry.weights());
        let c_out = geometry.c_out / geometry.groups;
        let reduction = geometry.c_in / geometry.groups * geometry.taps();
        let start = rows.len();
        for group in weights.chunks_exact(c_out * reduction) {
            for first in (0..c_out).step_by(BLOCK) {
                for r in 0..reduction {
                    let channels = first..first + BLOCK;
                    rows.extend(channels.map(|co| if co < c_out { group[co * reduction + r] } else { 0.0 }));
                }
            }
        }
        rows.extend(bias);
        rows.resize(start + geometry.row(WeightOrder::Blocked, !bias.is_empty()), 0.0);
    }
    rows
}
