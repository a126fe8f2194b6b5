//! Truth of `shaders/aggregate.wgsl`.

use crate::problem::{AttentionRow, Cells, Geometry};

/// Rows `[batch, kernel and bias]`: `s c f sum_k alpha_k bank_k`, then `sum_k alpha_k bias_k`.
#[must_use]
pub fn aggregate(
    geometry: &Geometry,
    bank: &[f64],
    bias: Option<&[f64]>,
    attention: &[f64],
    row: AttentionRow,
    batch: usize,
) -> Vec<f64> {
    let taps = geometry.taps();
    let [c_in, c_out] = [geometry.c_in / geometry.groups, geometry.c_out / geometry.groups];
    let mut rows = Vec::new();
    for b in 0..batch {
        let part = |start: Option<usize>, i: usize| {
            start.map_or(1.0, |start| attention[b * row.stride + start + i])
        };
        let mix = |bank: &[f64], len: usize, i: usize| -> f64 {
            (0..geometry.kernels).map(|k| part(row.mix, k) * bank[k * len + i]).sum()
        };
        for co in 0..geometry.c_out {
            for ci in 0..c_in {
                for tap in 0..taps {
                    let weight = mix(bank, geometry.weights(), (co * c_in + ci) * taps + tap);
                    let channel = co / c_out * c_in + ci;
                    let gains =
                        part(row.spatial, tap) * part(row.channel, channel) * part(row.filter, co);
                    rows.push(gains * weight);
                }
            }
        }
        if let Some(bias) = bias {
            rows.extend((0..geometry.c_out).map(|co| mix(bias, geometry.c_out, co)));
        }
    }
    rows
}

/// Rows assembled from a warehouse `cells [count, channels out, channels in, taps]`, then the bias:
/// cell `(q * GO + og) * GI + ig` of a kernel is the mixture of all cells by that cell's run of
/// attention (KernelWarehouse, ICML 2024, published code).
#[must_use]
pub fn assemble(
    geometry: &Geometry,
    cells: Cells,
    warehouse: &[f64],
    bias: Option<&[f64]>,
    attention: &[f64],
    batch: usize,
) -> Vec<f64> {
    let taps = geometry.taps();
    let c_in = geometry.c_in / geometry.groups;
    let [across, along] = [geometry.c_out / cells.c_out, c_in / cells.c_in];
    let mut rows = Vec::new();
    for sample in attention.chunks_exact(attention.len() / batch) {
        let runs: Vec<&[f64]> = sample.chunks_exact(cells.count).collect();
        for co in 0..geometry.c_out {
            for ci in 0..c_in {
                for tap in 0..taps {
                    let run = runs
                        [(tap / cells.taps * across + co / cells.c_out) * along + ci / cells.c_in];
                    let inside = (co % cells.c_out * cells.c_in + ci % cells.c_in) * cells.taps
                        + tap % cells.taps;
                    rows.push(
                        run.iter()
                            .zip(warehouse.chunks_exact(cells.elements()))
                            .map(|(a, cell)| a * cell[inside])
                            .sum(),
                    );
                }
            }
        }
        rows.extend(bias.unwrap_or(&[]));
    }
    rows
}
