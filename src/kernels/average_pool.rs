//! Host side of `shaders/average_pool.wgsl`: average pooling over one axis, or over all positions.

use super::conv::width;
use super::{
    Const, Dispatch, Kernel, KernelDef, Resources, Slice, Slot, Value, Variant, X_WIDTH,
    workgroup_within,
};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Result, index32};
use crate::problem::Layout;

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[Slot::X], storage: &[false, true], lanes: false, matrices: false };

/// Mirrors `PoolParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct PoolParams {
    x_base: u32,
    means_base: u32,
    planes: u32,
    size: u32,
    inner: u32,
}

/// Iterations of the inner loop: short enough that its sum loses little.
const CHUNK: u32 = 1024;

/// Invocations of a workgroup that pool a plane each.
const ALONE: u32 = 8;

/// Pooling of samples that are `[outer, size, inner]` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    outer: usize,
    size: usize,
    inner: usize,
}

impl Pool {
    /// Over all positions.
    pub(crate) fn global(channels: usize, size: usize, layout: Layout) -> Self {
        match layout {
            Layout::ChannelsFirst => Self { outer: channels, size, inner: 1 },
            Layout::ChannelsLast => Self { outer: 1, size, inner: channels },
        }
    }

    /// Over one axis, of `size` elements, between `outer` and `inner` others.
    pub(crate) fn axis(outer: usize, size: usize, inner: usize) -> Self {
        Self { outer, size, inner }
    }

    /// Elements of a mean, and means beside it in memory.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.size, self.inner]
    }

    /// Iterations of an invocation: its elements, its chunks, the steps of the tree. The iteration
    /// that ends a loop counts too.
    fn iterations(&self, workgroup: u32) -> u64 {
        let size = self.size as u64;
        size.div_ceil(workgroup.into())
            + 7 * size.div_ceil(u64::from(workgroup * CHUNK))
            + u64::from(workgroup.ilog2())
            + 2
    }

    /// From an input in `elem` to means, of `batch` samples from `first` on.
    pub(crate) fn dispatch(
        &self,
        values: [Value; 2],
        elem: Elem,
        first: usize,
        batch: usize,
        caps: &Caps,
    ) -> Result<Dispatch> {
        self.dispatch_from(values, elem, [first; 2], batch, caps)
    }

    /// The same, the first sample of the means being another than that of the input.
    pub(crate) fn dispatch_from(
        &self,
        [input, means]: [Value; 2],
        elem: Elem,
        first: [usize; 2],
        batch: usize,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let sample = self.outer.saturating_mul(self.inner);
        let planes = batch.saturating_mul(sample);
        let slices = vec![
            Slice::samples(input, sample.saturating_mul(self.size), first[0], batch)?,
            Slice::samples(means, sample, first[1], batch)?,
        ];
        // Barriers cost a software adapter more than the sum.
        let is_alone =
            caps.is_software() && self.iterations(1) <= u64::from(caps.max_loop_iterations);
        // Maps of a few dozen positions would leave most of a larger workgroup idle.
        let smallest = if self.size <= 256 { 32 } else { 128 };
        let (workgroup, iterations) = match is_alone {
            true => (ALONE, self.iterations(1)),
            false => workgroup_within(smallest, |workgroup| self.iterations(workgroup), caps),
        };
        let is_in_fours = is_alone
            && caps.int64
            && self.inner == 1
            && width(self.size, elem, Layout::ChannelsFirst) == 4;
        let consts = vec![
            ("WORKGROUP", Const::U32(workgroup)),
            ("CHUNK", Const::U32(CHUNK)),
            ("ALONE", Const::Bool(is_alone)),
            ("FOURS", Const::Bool(is_in_fours)),
            (X_WIDTH, Const::U32(if is_in_fours { 4 } else { 1 })),
        ];
        let params = PoolParams {
            planes: index32("planes", planes)?,
            size: index32("positions", self.size)?,
            inner: index32("positions", self.inner)?,
            ..Default::default()
        };
        Dispatch::new(
            Variant { kernel: Kernel::AveragePool, elems: vec![elem], consts },
            bytemuck::bytes_of(&params),
            slices,
            if is_alone { planes.div_ceil(ALONE as usize) as u64 } else { planes as u64 },
            Resources { memory: 4 * workgroup, iterations },
            caps,
        )
    }
}
