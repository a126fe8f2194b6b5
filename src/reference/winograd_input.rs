//! Truth of `shaders/winograd_input.wgsl`: each tile of inputs as a product of matrices.

use super::Conv;
use crate::problem::Winograd;
use crate::problem::winograd::twice;

/// Tiles `[batch, numbers, channels in, tiles]`: `B' d B`, `d` being the inputs that a tile's
/// outputs read; `rows` are those of `B'`.
#[must_use]
pub fn winograd_input(conv: &Conv<'_>, winograd: Winograd, rows: &[Vec<f64>]) -> Vec<f64> {
    let (c_in, numbers) = (conv.geometry.c_in, winograd.numbers());
    let [_, down, across] = winograd.tiles(conv.output);
    let side = winograd.tile() + 2;
    let mut tiles = vec![0.0; conv.batch * numbers * c_in * down * across];
    for b in 0..conv.batch {
        for channel in 0..c_in {
            for tile in 0..down * across {
                let corner = [tile / across * winograd.tile(), tile % across * winograd.tile()];
                let d = (0..side * side)
                    .map(|i| conv.padded(b, channel, [corner[0] + i / side, corner[1] + i % side]));
                for (f, value) in twice(rows, &d.collect::<Vec<_>>()).into_iter().enumerate() {
                    tiles[((b * numbers + f) * c_in + channel) * down * across + tile] = value;
                }
            }
        }
    }
    tiles
}
