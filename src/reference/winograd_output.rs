//! Truth of `shaders/winograd_output.wgsl`: each tile of outputs as a product of matrices.

use super::Conv;
use crate::problem::Winograd;
use crate::problem::winograd::twice;

/// The output from products `[batch, numbers, channels out, tiles]`: `A' m A`, and what follows the
/// sum; `rows` are those of `A'`.
#[must_use]
pub fn winograd_output(
    conv: &Conv<'_>,
    winograd: Winograd,
    rows: &[Vec<f64>],
    products: &[f64],
) -> Vec<f64> {
    let (c_out, numbers, side) = (conv.geometry.c_out, winograd.numbers(), winograd.tile());
    let [_, down, across] = winograd.tiles(conv.output);
    let tiles = down * across;
    let outputs: Vec<Vec<f64>> = (0..conv.batch * c_out * tiles)
        .map(|i| {
            let (b, channel, tile) = (i / (c_out * tiles), i / tiles % c_out, i % tiles);
            let number = |f: usize| products[((b * numbers + f) * c_out + channel) * tiles + tile];
            twice(rows, &(0..numbers).map(number).collect::<Vec<_>>())
        })
        .collect();
    conv.collect(|b, channel, position| {
        let [_, row, column] = conv.place(position);
        let tile = row / side * across + column / side;
        outputs[(b * c_out + channel) * tiles + tile][row % side * side + column % side]
    })
}
