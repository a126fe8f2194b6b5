//! Host side of `shaders/conv_tiled.wgsl`: implicit GEMM in workgroup memory.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{AttentionSource, Problem, product};

pub(crate) const DEF: KernelDef = PLAIN;

/// Tile of a workgroup: output channels, positions, reduction steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    m: u32,
    n: u32,
    k: u32,
}

/// From large to small. All fit 256 invocations and 16 KiB, which every WebGPU device has.
const TILES: [Tile; 3] =
    [Tile { m: 64, n: 64, k: 16 }, Tile { m: 32, n: 32, k: 16 }, Tile { m: 16, n: 16, k: 16 }];

/// The largest tile that is not mostly empty on this problem: at least two thirds of it have work.
pub(crate) fn choose_tile(task: &ConvTask<'_>) -> Tile {
    let [_, c_out] = task.group_channels();
    let used = |tile: &Tile| {
        let share = |size: usize, tile: u32| {
            size as f64 / (size.div_ceil(tile as usize) * tile as usize) as f64
        };
        share(c_out, tile.m) * share(task.positions(), tile.n)
    };
    let smallest = TILES[TILES.len() - 1];
    TILES.into_iter().find(|tile| used(tile) * 3.0 >= 2.0).unwrap_or(smallest)
}

/// Loop iterations of an invocation.
pub(crate) fn iterations(task: &ConvTask<'_>) -> u64 {
    let Tile { m, n, k } = choose_tile(task);
    let reduction =
        task.channels.len().saturating_mul(task.geometry.taps()).saturating_mul(task.mixed());
    // A step stages k * m and k * n elements by m * n / 16 invocations, then multiplies k times.
    // The iteration that ends a loop counts too.
    let step = u64::from(4 + 16 * k / m + 16 * k / n + k);
    step.saturating_mul(reduction.div_ceil(k as usize) as u64) + 64 * task.mixed() as u64
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, _problem: &Problem, _output: [usize; 3]) -> Accepts {
        Ok(())
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], _caps: &Caps) -> Option<String> {
        let g = &problem.geometry;
        Some(match problem.attention {
            AttentionSource::Map(_) => "mixes at every position".into(),
            _ => format!(
                "{} channels x {} positions fill tiles",
                g.c_out / g.groups,
                product(&output)
            ),
        })
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let Tile { m, n, k } = choose_tile(task);
        let [_, c_out] = task.group_channels();
        let tiles = c_out.div_ceil(m as usize) * task.positions().div_ceil(n as usize);
        let workgroups = task.batch * task.geometry.groups * tiles;
        let resources = Resources { memory: 4 * k * (m + n), iterations: iterations(task) };
        let consts = [("WORKGROUP", m / 4 * (n / 4)), ("TILE_M", m), ("TILE_N", n), ("TILE_K", k)];
        task.dispatch(Kernel::ConvTiled, &consts, workgroups, resources, caps)
    }
}
