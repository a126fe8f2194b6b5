//! Truth of `shaders/aggregate_wide.wgsl`: rows in blocks, the gains of channels and filters left
//! out.

use super::aggregate::aggregate;
use crate::problem::{AttentionRow, Geometry, WeightOrder};

/// Rows `[batch, kernel in blocks and bias]`: `s sum_k alpha_k bank_k`, then `sum_k alpha_k
/// bias_k`, then zeros up to whole blocks. The bank is in plain order.
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
        let start = rows.len();
        rows.extend(geometry.in_order(weights.to_vec(), WeightOrder::Blocked));
        rows.extend(bias);
        rows.resize(start + geometry.row(WeightOrder::Blocked, !bias.is_empty()), 0.0);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{ConvDesc, Parts};

    #[test]
    fn a_row_in_blocks_is_the_plain_row_elsewhere() {
        let desc = ConvDesc::new(4, 36, [2]).groups(2).kernels(2);
        let g = desc.geometry().expect("valid");
        let bank: Vec<f64> = (1_u32..).map(f64::from).take(2 * g.weights()).collect();
        let bias: Vec<f64> = (1_u32..).map(f64::from).take(72).collect();
        let row = AttentionRow::new(&g, Parts { mix: true, spatial: true, ..Parts::default() }, 2);
        let attention = [2.0, 3.0, 0.5, -1.0];
        let plain = aggregate(&g, &bank, Some(&bias), &attention, row, 1);
        let wide = aggregate_wide(&g, &bank, Some(&bias), &attention, row, 1);
        // Two groups of 18 channels are two blocks each, of 2 input channels, 2 taps and 16 output
        // channels.
        assert_eq!(wide.len(), 2 * 2 * 2 * 2 * 16 + 48);
        for co in 0..36 {
            for r in 0..4 {
                let block = co / 18 * 2 + co % 18 / 16;
                assert_eq!(
                    wide[(block * 4 + r) * 16 + co % 18 % 16],
                    plain[co * 4 + r],
                    "channel {co}, weight {r}"
                );
            }
            assert_eq!(wide[256 + co], plain[36 * 4 + co], "bias {co}");
        }
        assert_eq!(wide.iter().filter(|value| **value == 0.0).count(), 2 * 4 * 14 + 12);
    }
}
