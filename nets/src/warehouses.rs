//! Warehouses of a network, and what of them no checkpoint tells.

use std::collections::HashMap;

use dynconv::{Checkpoint, Context, Result, Warehouse};

/// Warehouses, each uploaded once.
pub(crate) struct Warehouses {
    uploaded: HashMap<usize, Warehouse>,
    /// Cells that earlier layers of each warehouse call their own.
    starts: HashMap<usize, usize>,
    /// Of so many cells of a kernel, layers with a non-local basis call one their own.
    step: usize,
}

impl Warehouses {
    pub(crate) fn of(checkpoint: &Checkpoint<'_>) -> Self {
        Self { uploaded: HashMap::new(), starts: HashMap::new(), step: step(checkpoint) }
    }

    /// A warehouse, and the key of its tensor.
    pub(crate) fn get(
        &mut self,
        context: &Context,
        checkpoint: &Checkpoint<'_>,
        number: usize,
    ) -> Result<(Warehouse, String)> {
        let key = key(number);
        if let Some(warehouse) = self.uploaded.get(&number) {
            return Ok((warehouse.clone(), key));
        }
        let (cells, values) = checkpoint.warehouse(&key)?;
        let warehouse = Warehouse::new(context, cells, &values)?;
        self.uploaded.insert(number, warehouse.clone());
        Ok((warehouse, key))
    }

    /// Cells of a warehouse before those that the next layer of so many cells calls its own. Layers
    /// ask in the order in which the published network has them.
    pub(crate) fn start(&mut self, number: usize, cells: usize) -> usize {
        let start = self.starts.entry(number).or_default();
        let before = *start;
        // As the published code counts, for a ratio of 1 / step.
        *start += (0..cells).filter(|i| i % self.step == i / self.step % self.step).count();
        before
    }
}

/// Whether the layer under a prefix takes its kernel from a warehouse.
pub(crate) fn takes_cells(checkpoint: &Checkpoint<'_>, prefix: &str) -> bool {
    checkpoint.contains(&format!("{prefix}attention.norm1.weight"))
}

pub(crate) fn key(number: usize) -> String {
    format!("warehouse_manager.weights.{number}")
}

/// Of how many cells of a kernel layers with a non-local basis call one their own: from the largest
/// layer that has one, as small ones round.
fn step(checkpoint: &Checkpoint<'_>) -> usize {
    let layers = checkpoint.keys().filter_map(|key| key.strip_suffix("fc3.weight"));
    let sizes = layers.filter_map(|prefix| {
        let shape = |name: &str| checkpoint.shape(&format!("{prefix}{name}"));
        let (&[far, basis], &[narrow, _], &[wide]) =
            (shape("fc3.weight")?, shape("fc2.weight")?, shape("basis_bias")?)
        else {
            return None;
        };
        // wide = (own + far + 1) cells, narrow = (own + basis + 1) cells
        let cells = wide.checked_sub(narrow)?.checked_div(far.checked_sub(basis)?)?;
        let own = wide.checked_div(cells)?.checked_sub(far.checked_add(1)?)?;
        Some((cells, own))
    });
    let largest = sizes.max().unwrap_or_default();
    largest.0.checked_div(largest.1).unwrap_or(1).max(1)
}
