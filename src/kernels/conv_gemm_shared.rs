//! Host side of `shaders/conv_gemm_shared.wgsl`: implicit GEMM in large tiles, for GPUs.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, SplitTask, needs, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Result, index32};
use crate::problem::{Geometry, Problem, product};

pub(crate) const DEF: KernelDef = PLAIN;

/// Input channels of a block, and of the halves that are loaded and stored at once.
const BLOCK: u32 = 16;
const HALF: u32 = 8;

/// Tile of a workgroup: output channels and positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub m: u32,
    pub n: u32,
}

/// From large to small. With one buffer, all fit 256 invocations and 16 KiB, which every WebGPU
/// device has; with two, all but the first.
const TILES: [Tile; 4] = [
    Tile { m: 128, n: 128 },
    Tile { m: 128, n: 64 },
    Tile { m: 64, n: 128 },
    Tile { m: 64, n: 64 },
];

impl Tile {
    /// Invocations: each has 8 channels x 8 positions.
    fn workgroup(self) -> u32 {
        self.m / 8 * (self.n / 8)
    }

    /// Bytes of a buffer in workgroup memory: of each input channel a row of weights and one of
    /// inputs, a vector of padding in each.
    fn buffer(self) -> u32 {
        let row = |size: u32| 4 * size + 16;
        HALF * (row(self.m) + row(self.n))
    }

    /// Buffers: one is written while the other is read, where there is memory for two. Sums come
    /// out the same.
    fn buffers(self, caps: &Caps) -> u32 {
        if 2 * self.buffer() <= caps.max_workgroup_memory { 2 } else { 1 }
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
        self.workgroup() <= invocations && self.buffer() <= caps.max_workgroup_memory
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

/// Whether the kernel computes a convolution: the bits of its taps fit half a word.
fn is_possible(g: &Geometry) -> bool {
    !g.transposed && g.kernel.iter().fold(0_usize, |sum, &n| sum.saturating_add(n)) <= 16
}

/// Tiles that have work, from large to small; none if most of half a block of channels would be
/// empty.
///
/// Whether there are any decides whether this kernel runs, however small the batch: a lone 64 x 64
/// tile still takes fewer operations than that of `conv_tiled` (93 in a hundred are multiply-adds,
/// not 20), which has no more workgroups; and a sample comes out alike in every batch.
fn filled_tiles(g: &Geometry, positions: usize, caps: &Caps) -> impl Iterator<Item = Tile> {
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let pays = is_possible(g) && 3 * c_in >= 2 * c_in.next_multiple_of(HALF as usize);
    TILES
        .into_iter()
        .filter(move |tile| pays && tile.fits(caps) && tile.is_filled(c_out, positions))
}

/// The largest tile that has work and gives every core two of the workgroups that `times` times a
/// sample's tiles are, or else one; or else the smallest.
fn choose_tile(g: &Geometry, positions: usize, times: usize, caps: &Caps) -> Tile {
    let filled = || filled_tiles(g, positions, caps);
    let workgroups = |tile: &Tile| times * g.groups * tile.count(g.c_out / g.groups, positions);
    let busy = |share: usize| filled().find(|tile| workgroups(tile) >= share * cores(caps));
    let [.., smallest] = TILES;
    busy(2).or_else(|| busy(1)).or_else(|| filled().last()).unwrap_or(smallest)
}

/// Reduction steps of a slice, at least.
const SLICE_STEPS: usize = 256;

/// Input channels of each slice of a sum that is split among workgroups, whole blocks of them;
/// `None` where it is not.
///
/// As many slices as give every core two workgroups for one sample: the 64 invocations of a 64 x 64
/// tile keep about half of a core busy. 512 -> 512 channels with 3 x 3 taps at 7 x 7 are 8 such
/// tiles, so that 56 of 64 cores would do nothing; in 16 slices of 288 steps they are 128.
///
/// Each sum of a slice is written and read, 8 bytes. With 256 steps these are 64 operations a
/// byte, while GPUs compute some 30 to 80 in the time that a byte takes. Large batches, which need
/// no slices, pay for them all the same, since the order of summation must not depend on the batch;
/// so a slice has no fewer steps than there are positions either: its sums are no more than the
/// weights it reads, and large maps are left whole.
fn slices(task: SplitTask<'_>, caps: &Caps) -> Option<usize> {
    let SplitTask { geometry: g, positions, least, mixes } = task;
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let [.., smallest] = TILES;
    let tile = filled_tiles(g, positions, caps).last().unwrap_or(smallest);
    let wanted = (2 * cores(caps)).div_ceil(g.groups * tile.count(c_out, positions));
    let possible = c_in * g.taps() / SLICE_STEPS.max(positions);
    let blocks = c_in.div_ceil(BLOCK as usize);
    let mut slices = wanted.min(possible).max(least).min(blocks);
    if slices < 2 {
        return None;
    }
    let channels = |slices: usize| blocks.div_ceil(slices) * BLOCK as usize;
    while slices < blocks
        && iterations_over(g, channels(slices), false, mixes) > u64::from(caps.max_loop_iterations)
    {
        slices = blocks.min(2 * slices);
    }
    Some(channels(slices))
}

/// The most kernels that are mixed as they are loaded: one beside each channel of half a block.
const MIXES: usize = HALF as usize;

/// Loop iterations of an invocation.
fn iterations(task: &ConvTask<'_>) -> u64 {
    iterations_over(task.geometry, task.slice_channels(), task.has_bias, task.mix.is_some())
}

/// Loop iterations over so many channels: blocks and what is left of the channels, every tap of
/// them, the bits of four positions, stores and their biases, kernels mixed before the first step.
/// The iteration that ends a loop counts too.
fn iterations_over(g: &Geometry, channels: usize, has_bias: bool, mixes: bool) -> u64 {
    let rest = (channels % BLOCK as usize).div_ceil(HALF as usize);
    // Halves are loops over their channels, where they are not written out.
    let [of_block, of_rest] = [1 + 2 * (HALF as usize + 1), 1 + HALF as usize + 1];
    let sums =
        (of_block * (channels / BLOCK as usize) + of_rest * rest).saturating_mul(g.taps()) as u64;
    let bits = 4 * (g.kernel.iter().sum::<usize>() + 3) as u64;
    let stores = 9 + 8 * 9 + if has_bias { 64 * 2 } else { 0 };
    let mixes = if mixes { g.kernels as u64 + 1 } else { 0 };
    sums.saturating_add(2 + bits + stores + mixes)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let what = "a convolution that is not transposed, its kernel sizes adding up to at most 16";
        needs(is_possible(&problem.geometry), what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        let (g, positions) = (&problem.geometry, product(&output));
        let has_memory = !caps.is_software() && !caps.is_mobile();
        (has_memory && filled_tiles(g, positions, caps).next().is_some()).then(|| {
            format!("{} channels x {positions} positions fill large tiles", g.c_out / g.groups)
        })
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let [_, c_out] = task.group_channels();
        let samples = task.batch * task.slice_count();
        let tile = choose_tile(task.geometry, task.positions(), samples, caps);
        let workgroups = samples * task.geometry.groups * tile.count(c_out, task.positions());
        let has_rest = !task.channels.len().is_multiple_of(BLOCK as usize);
        let buffers = tile.buffers(caps);
        let spatial = task.mix.and_then(|mix| mix.spatial);
        let consts = [
            ("WORKGROUP", tile.workgroup()),
            ("TILE_M", tile.m),
            ("TILE_N", tile.n),
            ("BUFFERS", buffers),
            ("PADDED", task.is_padded().into()),
            ("REST", has_rest.into()),
            ("MIXES", task.mix.map_or(Ok(0), |_| index32("kernels", task.geometry.kernels))?),
            ("MIX_OFFSET", index32("attention row", task.mix.map_or(0, |mix| mix.weights))?),
            ("SPATIAL_GAIN", spatial.is_some().into()),
            ("SPATIAL_OFFSET", index32("attention row", spatial.unwrap_or(0))?),
            ("WRITTEN_OUT", (!caps.is_software()).into()),
            ("SPLIT", task.is_split().into()),
        ];
        let resources = Resources { memory: buffers * tile.buffer(), iterations: iterations(task) };
        task.dispatch(Kernel::ConvGemmShared, &consts, workgroups, resources, caps)
    }

    /// Whether each sample's kernel is mixed as it is loaded, and never stored: where it would be
    /// used for few positions, so that reading it again takes as long as computing with it. Tiles
    /// with the same channels mix the same weights, which more positions would make many.
    fn mixes(&self, g: &Geometry, positions: usize) -> bool {
        g.bank == Elem::F32 && g.kernels <= MIXES && positions <= 128
    }

    fn slices(&self, task: SplitTask<'_>, caps: &Caps) -> Option<usize> {
        slices(task, caps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::LARGEST_TILES;

    #[test]
    fn caps_know_what_the_largest_tile_takes() {
        let [largest, ..] = TILES;
        assert_eq!(LARGEST_TILES, [largest.workgroup(), 2 * largest.buffer()]);
    }
}
