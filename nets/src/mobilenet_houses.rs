//! Which warehouse each layer of a KernelWarehouse MobileNetV2 takes its cells from. No checkpoint
//! says so, but the sizes of warehouses and attentions must fit.

use dynconv::{Checkpoint, Error, Result};

use crate::mobilenet::{GROUPS, Names};
use crate::warehouses;

/// Published stage of each group of blocks.
const STAGES: [usize; 7] = [1, 2, 3, 4, 5, 6, 6];

/// A classifier that takes cells.
pub(crate) const CLASSIFIER: &str = "classifier.1.conv.";

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
    /// Of the classifier, if it takes cells.
    pub(crate) classifier: Option<usize>,
}

impl Houses {
    /// The published groups, of a network without warehouses.
    pub(crate) fn none() -> Self {
        Self { groups: GROUPS, first: 0, blocks: Vec::new(), last: 0, classifier: None }
    }

    /// As the published code numbers warehouses: in the order in which layers first ask for them. A
    /// stage's first block takes its cells from the stage before. `is_shared` is whether expansions
    /// and projections share theirs. An ordinary layer has no number, and 0 here.
    fn new(groups: [usize; 7], is_shared: bool, takers: &Takers) -> Self {
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
        let mut takes = takers.blocks.iter();
        for (group, count) in groups.into_iter().enumerate() {
            for block in 0..count {
                let is_over = block == 0 && group > 0 && STAGES[group] != STAGES[group - 1];
                let stage = STAGES[group] - usize::from(is_over);
                let takes = takes.next().copied().unwrap_or_default();
                let mut of = |step: usize, kind| if takes[step] { number(stage, kind) } else { 0 };
                blocks.push([of(0, "expansion"), of(1, "depthwise"), of(2, "projection")]);
            }
        }
        let last = number(6, "projection");
        let classifier = takers.classifier.then(|| number(0, "classifier"));
        Self { groups, first, blocks, last, classifier }
    }

    fn count(&self) -> usize {
        let blocks = self.blocks.iter().flatten().copied();
        let others = [self.first, self.last].into_iter().chain(self.classifier);
        blocks.chain(others).max().unwrap_or(0) + 1
    }
}

/// Layers that take their kernels from warehouses: the first and the last convolution always do.
struct Takers {
    /// Each block's expansion, if it has one, depthwise convolution and projection.
    blocks: Vec<[bool; 3]>,
    classifier: bool,
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
    /// A layer of so many taps, if it takes cells; `of` is the tensor that has a value for each
    /// channel out.
    fn read(
        checkpoint: &Checkpoint<'_>,
        conv: &str,
        of: &str,
        taps: usize,
    ) -> Result<Option<Self>> {
        if !warehouses::takes_cells(checkpoint, conv) {
            return Ok(None);
        }
        let c_out = first_size(checkpoint, of)?;
        let of_group = match taps {
            // Depthwise, but for the first convolution, which sees colours.
            9 if !conv.ends_with("features.0.0.") => 1,
            _ => {
                let key = format!("{conv}attention.fc1.weight");
                let shape = checkpoint.needed_shape(&key, "[hidden, channels in]")?;
                shape.get(1).copied().unwrap_or(0)
            }
        };
        let logits = first_size(checkpoint, &format!("{conv}attention.fc2.weight"))?;
        let channels = [c_out, of_group];
        let weights = c_out.saturating_mul(of_group).saturating_mul(taps);
        Ok(Some(Self { weights, channels, logits }))
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

fn first_size(checkpoint: &Checkpoint<'_>, key: &str) -> Result<usize> {
    Ok(checkpoint.needed_shape(key, "sizes")?.first().copied().unwrap_or(0))
}

/// The layers of a network that take cells; `None` stands for one that takes none.
struct Layers {
    first: Option<Layer>,
    /// Each block's expansion, if it has one, depthwise convolution and projection.
    blocks: Vec<[Option<Layer>; 3]>,
    /// Channels out of each block.
    widths: Vec<usize>,
    last: Option<Layer>,
    classifier: Option<Layer>,
}

impl Layers {
    fn read(checkpoint: &Checkpoint<'_>, names: Names) -> Result<Self> {
        let read = |conv: &str, norm: &str, taps| {
            Layer::read(checkpoint, conv, &format!("{norm}weight"), taps)
        };
        let (mut blocks, mut widths) = (Vec::new(), Vec::new());
        loop {
            let number = blocks.len() + 1;
            let steps = names.block(number, number > 1);
            let norms: Vec<String> =
                steps.iter().map(|(_, norm)| format!("{norm}weight")).collect();
            if !checkpoint.contains(&norms[0]) {
                break;
            }
            let depthwise = steps.len() - 2;
            let mut block = [None, None, None];
            for (step, (conv, norm)) in steps.iter().enumerate() {
                let taps = if step == depthwise { 9 } else { 1 };
                block[step + 3 - steps.len()] = read(conv, norm, taps)?;
            }
            blocks.push(block);
            widths.push(first_size(checkpoint, &norms[depthwise + 1])?);
        }
        let last = format!("features.{}.", blocks.len() + 1);
        Ok(Self {
            first: read("features.0.0.", "features.0.1.", 9)?,
            last: read(&format!("{last}0."), &format!("{last}1."), 1)?,
            classifier: Layer::read(checkpoint, CLASSIFIER, &format!("{CLASSIFIER}bias"), 1)?,
            blocks,
            widths,
        })
    }

    fn takers(&self) -> Takers {
        Takers {
            blocks: self.blocks.iter().map(|block| block.each_ref().map(Option::is_some)).collect(),
            classifier: self.classifier.is_some(),
        }
    }

    /// Whether the warehouses that each layer is given can make its kernel.
    fn fit(&self, checkpoint: &Checkpoint<'_>, houses: &Houses) -> bool {
        let fits = |layer: &Option<Layer>, house: usize| {
            let cells = checkpoint.shape(&warehouses::key(house)).unwrap_or_default();
            layer.as_ref().is_none_or(|layer| layer.fits(cells))
        };
        let mut blocks = self.blocks.iter().flatten().zip(houses.blocks.iter().flatten());
        blocks.all(|(layer, &house)| fits(layer, house))
            && fits(&self.first, houses.first)
            && fits(&self.last, houses.last)
            && houses.classifier.is_none_or(|house| fits(&self.classifier, house))
    }
}

/// The only assignment that fits the sizes; the published groups where these fit.
///
/// # Errors
/// [`Error::Shape`] if none fits, [`Error::Unsupported`] if several do.
pub(crate) fn find(checkpoint: &Checkpoint<'_>, names: Names) -> Result<Houses> {
    let count = (0..).take_while(|&i| checkpoint.contains(&warehouses::key(i))).count();
    let layers = Layers::read(checkpoint, names)?;
    let takers = layers.takers();
    let number = layers.blocks.len();
    let published = (number == GROUPS.iter().sum::<usize>()).then_some(GROUPS);
    for groups in [published.into_iter().collect(), groupings(&layers.widths)] {
        let both = groups.into_iter().flat_map(|groups: [usize; 7]| {
            [true, false].map(|is_shared| Houses::new(groups, is_shared, &takers))
        });
        let fit = both.filter(|houses| houses.count() == count && layers.fit(checkpoint, houses));
        let mut found: Vec<Houses> = fit.collect();
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
        let all = [[false, true, true]].into_iter().chain([[true; 3]; 16]);
        let all = Takers { blocks: all.collect(), classifier: false };
        let houses = Houses::new(GROUPS, true, &all);
        assert_eq!(houses.blocks[0], [0, 1, 2]);
        // The first block of a stage takes its cells from the stage before.
        assert_eq!(houses.blocks[1], [2, 1, 2]);
        assert_eq!(houses.blocks[2], [3, 4, 3]);
        assert_eq!(houses.count(), 13);
    }

    #[test]
    fn ordinary_layers_have_no_number() {
        let early = [[false, true, false]; 14].into_iter().chain([[true; 3]; 3]);
        let takers = Takers { blocks: early.collect(), classifier: true };
        let houses = Houses::new(GROUPS, false, &takers);
        assert_eq!(houses.blocks[13], [0, 5, 0]);
        assert_eq!(houses.blocks[14], [6, 7, 8]);
        assert_eq!((houses.last, houses.classifier, houses.count()), (8, Some(9), 10));
    }
}
