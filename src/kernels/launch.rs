//! What a dispatch starts: values, ranges of them, grids, and the limits of devices.

use std::fmt;

use super::shader::{Slot, Variant};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Error, Result, Unit, index32};

/// What kernels read and write: a tensor of the caller's, or scratch memory. A program knows its
/// shape, and a value means something in its own program alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    index: u32,
    name: &'static str,
    is_chunked: bool,
}

impl Value {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { index: 0, name, is_chunked: false }
    }

    /// The same with room for the samples of one chunk of the batch, written and read anew for
    /// each.
    pub(crate) fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    /// The same at another place in its program.
    pub(crate) fn at(self, index: u32) -> Self {
        Self { index, ..self }
    }

    /// Place among the values of its program.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }
}

/// A range of a value that a dispatch binds, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The value.
    pub value: Value,
    /// First element.
    pub start: u64,
    /// Elements.
    pub len: u64,
}

impl Slice {
    /// `batch` samples of `sample` elements each, from sample `first` of the batch on; the count is
    /// checked to fit the 32 bits of shader indices.
    pub(crate) fn samples(value: Value, sample: usize, first: usize, batch: usize) -> Result<Self> {
        let len = elements(value, batch.saturating_mul(sample))?;
        let first = if value.is_chunked { 0 } else { first as u64 };
        Ok(Self { value, start: first.saturating_mul(sample as u64), len })
    }

    /// The first `len` elements.
    pub(crate) fn whole(value: Value, len: usize) -> Result<Self> {
        Self::samples(value, len, 0, 1)
    }

    /// An element, for a binding that a variant never reads: WebGPU wants something in every one.
    pub(crate) fn stand_in(self) -> Self {
        Self { len: 1, ..self }
    }
}

/// One dispatch of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// What to compile.
    pub variant: Variant,
    /// Parameter block. Its first words, one a storage binding, hold the base elements and are
    /// filled in when the values are bound.
    pub params: Vec<u8>,
    /// What the storage bindings take.
    pub slices: Vec<Slice>,
    /// Workgroups that have work.
    pub workgroups: u32,
    /// Workgroups started per dimension; their product is at least `workgroups`.
    pub grid: [u32; 3],
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
}

/// What a workgroup needs beside invocations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    /// Workgroup memory, bytes.
    pub memory: u32,
    /// Loop iterations of one invocation, all loops together, at most.
    pub iterations: u64,
}

impl Resources {
    pub(crate) fn iterations(iterations: u64) -> Self {
        Self { memory: 0, iterations }
    }
}

/// The smallest workgroup from `smallest` on whose invocations keep the driver's loop limit, and
/// their iterations; the largest possible if none does.
pub(crate) fn workgroup_within(
    smallest: u32,
    iterations: impl Fn(u32) -> u64,
    caps: &Caps,
) -> (u32, u64) {
    let mut workgroup = smallest;
    while iterations(workgroup) > u64::from(caps.max_loop_iterations)
        && 2 * workgroup <= caps.max_invocations.min(1024)
    {
        workgroup *= 2;
    }
    (workgroup, iterations(workgroup))
}

/// Slack of a binding: its offset is rounded down to the device's alignment.
fn binding_limit(caps: &Caps) -> u64 {
    caps.max_storage_binding.saturating_sub(u64::from(caps.storage_alignment))
}

/// Bytes of a value that a dispatch binds, at most: half the range of 32-bit indices, so that no
/// kernel's rounding up to whole tiles can pass it.
pub(crate) fn value_limit(caps: &Caps) -> u64 {
    binding_limit(caps).min(1 << 33)
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(
            f,
            "{:<23} {} workgroups ({x} x {y} x {z}) of {}, {} B of workgroup memory",
            self.variant.kernel.name(),
            self.workgroups,
            self.workgroup_size,
            self.workgroup_memory,
        )
    }
}

impl Dispatch {
    /// Checks everything that the device limits, since wgpu does not check all of it.
    pub(crate) fn new(
        variant: Variant,
        params: &[u8],
        slices: Vec<Slice>,
        workgroups: u64,
        resources: Resources,
        caps: &Caps,
    ) -> Result<Self> {
        let name = variant.kernel.name();
        if variant.elems.contains(&Elem::F16) && !caps.f16 {
            return Err(Error::MissingFeature {
                feature: "SHADER_F16",
                needed_for: format!("{name} with Elem::F16"),
            });
        }
        variant.kernel.check_lanes(caps)?;
        let slots = variant.kernel.def().slots.iter().zip(&variant.elems);
        if slots.into_iter().any(|(slot, elem)| *slot != Slot::Bank && *elem == Elem::Bf16Storage) {
            return Err(Error::Unsupported {
                what: "an input or output in Elem::Bf16Storage".into(),
                because: "only kernel banks are stored so".into(),
            });
        }
        let workgroup_size = variant.number("WORKGROUP");
        let limit =
            |limit, what: String, unit, needed: u64, available: u64, remedy: &str| match needed
                > available
            {
                true => Err(Error::Limit {
                    limit,
                    unit,
                    what,
                    needed,
                    available,
                    remedy: remedy.into(),
                }),
                false => Ok(()),
            };
        limit(
            "max_compute_invocations_per_workgroup",
            format!("a workgroup of {name}"),
            Unit::Invocations,
            u64::from(workgroup_size),
            u64::from(caps.max_invocations.min(caps.max_workgroup_size)),
            "request the device with a larger limit",
        )?;
        limit(
            "max_compute_workgroup_storage_size",
            format!("workgroup memory of {name}"),
            Unit::Bytes,
            u64::from(resources.memory),
            u64::from(caps.max_workgroup_memory),
            "request the device with a larger limit",
        )?;
        limit(
            "the number of loop iterations that this driver carries out",
            format!("an invocation of {name}"),
            Unit::Iterations,
            resources.iterations,
            u64::from(caps.max_loop_iterations),
            "use a newer driver",
        )?;
        limit(
            "max_storage_buffers_per_shader_stage",
            name.into(),
            Unit::Bindings,
            slices.len() as u64,
            u64::from(caps.max_storage_buffers),
            "request the device with a larger limit",
        )?;
        for slice in &slices {
            limit(
                "max_storage_buffer_binding_size",
                format!("{} of {name}", slice.value.name),
                Unit::Bytes,
                slice.len * 4,
                binding_limit(caps),
                "request the device with a larger limit, or use a smaller batch",
            )?;
        }
        let workgroups = u32::try_from(workgroups).map_err(|_| Error::Overflow {
            what: format!("number of workgroups of {name}"),
            value: workgroups.into(),
            limit: u32::MAX.into(),
        })?;
        let grid = fold(workgroups, caps.max_workgroups).ok_or_else(|| Error::Limit {
            limit: "max_compute_workgroups_per_dimension",
            unit: Unit::Workgroups,
            what: format!("dispatch of {name}"),
            needed: workgroups.into(),
            available: u64::from(caps.max_workgroups).pow(3),
            remedy: "use a smaller batch".into(),
        })?;
        // Kernels number invocations in 32 bits.
        let invocations =
            grid.iter().map(|&n| u128::from(n)).product::<u128>() * u128::from(workgroup_size);
        if invocations > u128::from(u32::MAX) {
            return Err(Error::Overflow {
                what: format!("number of invocations of {name}"),
                value: invocations,
                limit: u32::MAX.into(),
            });
        }
        Ok(Self {
            variant,
            params: params.to_vec(),
            slices,
            workgroups,
            grid,
            workgroup_size,
            workgroup_memory: resources.memory,
        })
    }
}

/// The smallest near-even grid of at most `max` workgroups a dimension that holds `workgroups`.
pub(crate) fn fold(workgroups: u32, max: u32) -> Option<[u32; 3]> {
    let max = max.max(1);
    let z = workgroups.div_ceil(max).div_ceil(max).max(1);
    let plane = workgroups.div_ceil(z);
    let y = plane.div_ceil(max).max(1);
    let x = plane.div_ceil(y).max(1);
    (x <= max && y <= max && z <= max).then_some([x, y, z])
}

/// Element count of a run of samples, checked to fit the 32 bits of shader indices.
fn elements(what: Value, count: usize) -> Result<u64> {
    index32(&format!("elements of the {}", what.name), count).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_covers_every_workgroup_within_the_limit() {
        for n in [1, 2, 7, 65_535, 65_536, 65_537, 131_071, 10_000_019, u32::MAX] {
            let [x, y, z] = fold(n, 65_535).expect("fits");
            let total = u64::from(x) * u64::from(y) * u64::from(z);
            assert!(total >= u64::from(n), "{n}: {total}");
            assert!(x <= 65_535 && y <= 65_535 && z <= 65_535, "{n}");
            // At most one row a plane is surplus.
            assert!(
                total - u64::from(n) <= u64::from(y) * u64::from(z) + u64::from(z),
                "{n}: {total}"
            );
        }
        assert_eq!(fold(8, 2), Some([2, 2, 2]));
        assert_eq!(fold(9, 2), None);
    }
}
