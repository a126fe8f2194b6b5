//! Host side of `shaders/conv_block.wgsl`: implicit GEMM in large tiles, for GPUs.

use super::conv::{CONV, ConvTask, SLOTS, STORAGE};
use super::conv_register::REGISTER_TILE;
use super::{DISPATCH, Dispatch, Kernel, KernelDef, Needs};
use crate::caps::Caps;
use crate::desc::Geometry;
use crate::elem::Elem;
use crate::error::{Error, Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_block",
    slots: SLOTS,
    parts: &[DISPATCH, CONV, REGISTER_TILE, ("conv_block.wgsl", include_str!("../../shaders/conv_block.wgsl"))],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

/// Input channels of a step.
const BLOCK: u32 = 8;

/// Tile of a workgroup: output channels and positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub m: u32,
    pub n: u32,
}

/// From large to small. All fit 256 invocations and 16 KiB, which every WebGPU device has.
const TILES: [Tile; 4] =
    [Tile { m: 128, n: 128 }, Tile { m: 128, n: 64 }, Tile { m: 64, n: 128 }, Tile { m: 64, n: 64 }];

impl Tile {
    /// Invocations: each has 8 channels x 8 positions.
    fn workgroup(self) -> u32 {
        self.m / 8 * (self.n / 8)
    }

    /// Workgroup memory, bytes: of each input channel a row of weights and one of inputs, a vector of padding in each.
    fn memory(self) -> u32 {
        let row = |size: u32| 4 * size + 16;
        BLOCK * (row(self.m) + row(self.n))
    }

    /// Tiles of one group of one sample.
    fn count(self, c_out: usize, positions: usize) -> usize {
        c_out.div_ceil(self.m as usize) * positions.div_ceil(self.n as usize)
    }

    /// Whether at least two thirds of the tiles have work.
    fn is_filled(self, c_out: usize, positions: usize) -> bool {
        let all = self.count(c_out, positions) * self.m as usize * self.n as usize;
        3 * c_out * positions >= 2 * all
    }

    fn fits(self, caps: &Caps) -> bool {
        let invocations = caps.max_invocations.min(caps.max_workgroup_size);
        self.workgroup() <= invocations && self.memory() <= caps.max_workgroup_memory
    }
}

/// Cores that a device is taken to have, since none tells.
fn cores(caps: &Caps) -> usize {
    match caps.device_type {
        wgpu::DeviceType::DiscreteGpu => 64,
        wgpu::DeviceType::Cpu => 1,
        _ => 32,
    }
}

/// The largest tile that has work and gives every core two workgroups, or else one; none if there is no such tile, or if most of a block of
/// channels would be empty.
pub(crate) fn filled_tile(g: &Geometry, positions: usize, batch: usize, caps: &Caps) -> Option<Tile> {
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    if !g.is_blockable() || 3 * c_in < 2 * c_in.next_multiple_of(BLOCK as usize) {
        return None;
    }
    let filled = || TILES.into_iter().filter(|tile| tile.fits(caps) && tile.is_filled(c_out, positions));
    let busy = |tile: &Tile, times: usize| batch * g.groups * tile.count(c_out, positions) >= times * cores(caps);
    filled().find(|tile| busy(tile, 2)).or_else(|| filled().find(|tile| busy(tile, 1)))
}

/// The most kernels that are mixed as they are loaded: one beside each channel of a block.
const MIXES: usize = BLOCK as usize;

/// Whether each sample's kernel is mixed as it is loaded, and never stored: where it would be used for few positions, so that reading it again
/// takes as long as computing with it. Tiles with the same channels mix the same weights, which more positions would make many.
pub(crate) fn mixes(g: &Geometry, positions: usize) -> bool {
    g.bank == Elem::F32 && g.kernels <= MIXES && positions <= 128
}

/// Loop trips of an invocation: steps, the bits of four positions, stores and their biases, kernels mixed before the first step. The trip that ends a loop counts too.
pub(crate) fn trips(task: &ConvTask<'_>) -> u64 {
    let steps = task.channels.len().div_ceil(BLOCK as usize).saturating_mul(task.geometry.taps()) as u64;
    let bits = 4 * (task.geometry.kernel.iter().sum::<usize>() + 3) as u64;
    let stores = 9 + 8 * 9 + if task.has_bias { 64 * 2 } else { 0 };
    let mixes = task.mix.map_or(0, |_| task.geometry.kernels as u64 + 1);
    steps.saturating_add(1 + bits + stores + mixes)
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_block")?;
    if !task.geometry.is_blockable() {
        return Err(Error::Unsupported {
            what: "conv_block".into(),
            because: "it needs a convolution that is not transposed, its kernel sizes adding up to at most 16".into(),
        });
    }
    let [_, c_out] = task.group_channels();
    let [.., smallest] = TILES;
    let tile = filled_tile(task.geometry, task.positions(), task.batch, caps).unwrap_or(smallest);
    let workgroups = task.batch * task.geometry.groups * tile.count(c_out, task.positions());
    let is_padded = task.geometry.padding != [[0; 2]; 3];
    let is_ragged = !task.channels.len().is_multiple_of(BLOCK as usize);
    let spatial = task.mix.and_then(|mix| mix.spatial);
    let consts = [
        ("WORKGROUP", tile.workgroup()),
        ("TILE_M", tile.m),
        ("TILE_N", tile.n),
        ("PADDED", is_padded.into()),
        ("RAGGED", is_ragged.into()),
        ("MIXES", task.mix.map_or(Ok(0), |_| index32("kernels", task.geometry.kernels))?),
        ("MIX_OFFSET", index32("attention row", task.mix.map_or(0, |mix| mix.weights))?),
        ("SPATIAL_GAIN", spatial.is_some().into()),
        ("SPATIAL_OFFSET", index32("attention row", spatial.unwrap_or(0))?),
    ];
    let needs = Needs { memory: tile.memory(), trips: trips(task) };
    task.dispatch(Kernel::ConvBlock, &consts, workgroups, needs, caps)
}
