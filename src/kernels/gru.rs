//! Host side of `shaders/gru.wgsl`: the recurrence of a gated recurrent unit.

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value, Variant};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[], storage: &[false, false, true], lanes: false, matrices: false };

/// Mirrors `GruParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct GruParams {
    projections_base: u32,
    weights_base: u32,
    states_base: u32,
    batch: u32,
    directions: u32,
    steps: u32,
    step_begin: u32,
    step_end: u32,
}

/// A recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recurrence {
    pub directions: usize,
    /// Units of a direction.
    pub hidden: usize,
    pub steps: usize,
}

impl Recurrence {
    /// Elements of the weights.
    pub(crate) fn weights(&self) -> usize {
        [self.directions, 3, self.hidden, self.hidden + 1]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }

    /// Dispatches over all steps, of `batch` samples from `first` on: projections `[batch,
    /// directions, 3, hidden, steps]`, weights, and states `[batch, directions, hidden, steps]`.
    pub(crate) fn dispatches(
        &self,
        [projections, weights, states]: [Value; 3],
        (first, batch): (usize, usize),
        caps: &Caps,
    ) -> Result<Vec<Dispatch>> {
        let sample = self.directions.saturating_mul(self.hidden).saturating_mul(self.steps);
        let slices = vec![
            Slice::samples(projections, sample.saturating_mul(3), first, batch)?,
            Slice::whole(weights, self.weights())?,
            Slice::samples(states, sample, first, batch)?,
        ];
        let most = if caps.is_software() { 64 } else { 256 };
        let workgroup = most.min(caps.max_invocations).min(caps.max_workgroup_size);
        let of_step = self.iterations(workgroup);
        // As many steps at a time as the driver's loop limit allows.
        let at_once = (u64::from(caps.max_loop_iterations).saturating_sub(1) / of_step).max(1);
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).min(self.steps.max(1));
        let ranges = (0..self.steps).step_by(at_once);
        ranges
            .map(|begin| {
                let end = self.steps.min(begin + at_once);
                let params = GruParams {
                    batch: index32("batch", batch)?,
                    directions: index32("directions", self.directions)?,
                    steps: index32("steps", self.steps)?,
                    step_begin: index32("steps", begin)?,
                    step_end: index32("steps", end)?,
                    ..Default::default()
                };
                let hidden = index32("hidden units", self.hidden)?;
                let consts =
                    vec![("WORKGROUP", Const::U32(workgroup)), ("HIDDEN", Const::U32(hidden))];
                let variant = Variant { kernel: Kernel::Gru, elems: Vec::new(), consts };
                let resources = Resources {
                    memory: hidden.saturating_mul(4),
                    iterations: of_step.saturating_mul((end - begin) as u64).saturating_add(1),
                };
                let workgroups = (batch * self.directions) as u64;
                let params = bytemuck::bytes_of(&params);
                Dispatch::new(variant, params, slices.clone(), workgroups, resources, caps)
            })
            .collect()
    }

    /// Iterations of an invocation in one step. The iteration that ends a loop counts too.
    fn iterations(&self, workgroup: u32) -> u64 {
        let units = (self.hidden as u64).div_ceil(workgroup.into());
        units.saturating_mul(self.hidden as u64 + 4).saturating_add(3)
    }
}
