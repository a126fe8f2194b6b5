//! Which warehouse each layer of a KernelWarehouse MobileNetV2 takes its cells from. No checkpoint
//! says so, but the sizes of warehouses and attentions must fit.

use dynconv::{Checkpoint, Error, Result};

use crate::mobilenet::{GROUPS, Names};
use crate::warehouses;

/// Published stage of each group of blocks.
const STAGES: [usize; 7] = [1, 2, 3, 4, 5, 6, 6];

/// Groups of blocks, and numbers of warehouses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Houses {
    /// Blocks of each group.
    pub(crate) groups: [usize; 7],
    /// Of the first convolution.
    pub(crate) first: usize,
    /// Of each block's expansion, depthwise convolution and projection.
    pub(crate) blocks: Vec<[usize; 3]>,
    /// Of the last convolution.
    pub(crate) last: usize,
}

impl Houses {
    /// The published groups, of a network without warehouses.
    pub(crate) fn none() -> Self {
        Self { groups: GROUPS, first: 0, blocks: Vec::new(), last: 0 }
    }

    /// As the published code numbers warehouses: in the order in which layers first ask for them. A
    /// stage's first block takes its cells from the stage before. `is_shared` is whether expansions
    /// and projections share theirs.
    fn new(groups: [usize; 7], is_shared: bool) -> Self {
        let mut asked: Vec<(usize, &str)> = Vec::new();
        let mut number = |stage: usize, kind: &'static str| {
            let kind = if is_shared && kind == "projection" { "expansion" } else { kind };
            asked.iter().position(|known| *known == (stage, kind)).unwrap_or_else(|| {
                asked.push((stage, kind));
                asked.len() - 1
            })
        };
        let first = number(0, "first");
        let mut blocks = Vec::new();
        for (group, count) in groups.into_iter().enumerate() {
            for block in 0..count {
                let is_over = block == 0 && group > 0 && STAGES[group] != STAGES[group - 1];
                let stage = STAGES[group] - usize::from(is_over);
                // The first block expands nothing.
                let expansion = if group + block > 0 { number(stage, "expansion") } else { 0 };
                blocks.push([expansion, number(stage, "depthwise"), number(stage, "projection")]);
            }
        }
        Self { groups, first, blocks, last: number(6, "projection") }
    }

    fn count(&self) -> usize {
        let blocks = self.blocks.iter().flatten().copied();
        blocks.chain([self.first, self.last]).max().unwrap_or(0) + 1
    }
}

/// A layer, as far as its warehouse must fit.
struct Layer {
    weights: usize,
    /// Channels out, channels in of a group.
    channels: [usize; 2],
    /// Logits of its attention.
    logits: usize,
}

impl Layer {
    fn read(checkpoint: &Checkpoint<'_>, conv: &str, norm: &str, taps: usize) -> Result<Self> {
        let first = |name: String, axis: usize| -> Result<usize> {
            let shape = checkpoint.needed_shape(&name, "sizes")?;
            Ok(shape.get(axis).copied().unwrap_or(0))
        };
        let c_out = first(format!("{norm}weight"), 0)?;
        let of_group = match taps {
            // Depthwise, but for the first convolution, which sees colours.
            9 if !conv.ends_with("features.0.0.") => 1,
            _ => first(format!("{conv}attention.fc1.weight"), 1)?,
        };
        let logits = first(format!("{conv}attention.fc2.weight"), 0)?;
        let channels = [c_out, of_group];
        let weights = c_out.saturating_mul(of_group).saturating_mul(taps);
        Ok(Self { weights, channels, logits })
    }

    /// Whether cells of this shape `[count, channels out, channels in, taps..]` make its kernel.
    fn fits(&self, cells: &[usize]) -> bool {
        let &[count, c_out, c_in, ..] = cells else { return false };
        let elements = c_out.saturating_mul(c_in);
        let tiles = elements > 0
            && self.channels[0].is_multiple_of(c_out)
            && self.channels[1].is_multiple_of(c_in);
        tiles && (self.weights / elements).saturating_mul(count.saturating_add(1)) == self.logits
    }
}

/// The only assignment that fits the sizes; the published groups where these fit.
///
/// # Errors
/// [`Error::Shape`] if none fits, [`Error::Unsupported`] if several do.
pub(crate) fn find(checkpoint: &Checkpoint<'_>, names: Names) -> Result<Houses> {
    let count = (0..).take_while(|&i| checkpoint.contains(&warehouses::key(i))).count();
    let cells = |number: usize| checkpoint.shape(&warehouses::key(number)).unwrap_or_default();
    let of_block = |block: usize| names.block(block, block > 1);
    let has = |block: usize| checkpoint.contains(&format!("{}weight", of_block(block)[0].1));
    let number = (1..).take_while(|&block| has(block)).count();
    let mut layers = Vec::new();
    for block in 1..=number {
        let steps = of_block(block);
        let depthwise = steps.len() - 2;
        let read = steps.iter().enumerate().map(|(step, (conv, norm))| {
            Layer::read(checkpoint, conv, norm, if step == depthwise { 9 } else { 1 })
        });
        layers.push(read.collect::<Result<Vec<_>>>()?);
    }
    let first = Layer::read(checkpoint, "features.0.0.", "features.0.1.", 9)?;
    let stage = format!("features.{}.", number + 1);
    let last = Layer::read(checkpoint, &format!("{stage}0."), &format!("{stage}1."), 1)?;
    let fits = |houses: &Houses| {
        let all = layers.iter().zip(&houses.blocks).all(|(layers, houses)| {
            let houses = &houses[3 - layers.len()..];
            layers.iter().zip(houses).all(|(layer, &house)| layer.fits(cells(house)))
        });
        houses.count() == count
            && all
            && first.fits(cells(houses.first))
            && last.fits(cells(houses.last))
    };
    let widths: Vec<usize> =
        layers.iter().filter_map(|steps| Some(steps.last()?.channels[0])).collect();
    let published = (number == GROUPS.iter().sum::<usize>()).then_some(GROUPS);
    for groups in [published.into_iter().collect(), groupings(&widths)] {
        let both = groups.into_iter().flat_map(|groups: [usize; 7]| {
            [true, false].map(|is_shared| Houses::new(groups, is_shared))
        });
        let mut found: Vec<Houses> = both.filter(&fits).collect();
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            several => {
                return Err(Error::Unsupported {
                    what: format!("a network of {number} blocks"),
                    because: format!("{several} ways to group them fit its warehouses"),
                });
            }
        }
    }
    Err(Error::Shape {
        what: "warehouses of the network".into(),
        expected: "sizes that fit the attentions of the published layers".into(),
        found: format!("{count} warehouses, {number} blocks"),
    })
}

/// All ways to cut blocks of these widths into seven groups of equal width each.
fn groupings(widths: &[usize]) -> Vec<[usize; 7]> {
    fn cut(widths: &[usize], groups: &mut Vec<usize>, found: &mut Vec<[usize; 7]>) {
        if let Ok(whole) = <[usize; 7]>::try_from(&groups[..]) {
            if widths.is_empty() {
                found.push(whole);
            }
            return;
        }
        let alike = widths.iter().take_while(|width| Some(*width) == widths.first()).count();
        for count in 1..=alike {
            groups.push(count);
            cut(&widths[count..], groups, found);
            groups.pop();
        }
    }
    let mut found = Vec::new();
    cut(widths, &mut Vec::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_where_widths_change() {
        let found = groupings(&[16, 24, 24, 32, 64, 96, 160, 320]);
        assert_eq!(found, [[1, 2, 1, 1, 1, 1, 1]]);
        assert_eq!(groupings(&[8; 8]).len(), 7);
        assert!(groupings(&[1, 2, 3, 4, 5, 6, 7, 8]).is_empty());
    }

    #[test]
    fn warehouses_are_numbered_as_layers_ask() {
        let houses = Houses::new(GROUPS, true);
        assert_eq!(houses.blocks[0], [0, 1, 2]);
        // The first block of a stage takes its cells from the stage before.
        assert_eq!(houses.blocks[1], [2, 1, 2]);
        assert_eq!(houses.blocks[2], [3, 4, 3]);
        assert_eq!(houses.count(), 13);
    }
}
