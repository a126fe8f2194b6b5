//! Host side of `shaders/conv_gemm_coopmat.wgsl`: implicit GEMM in cooperative matrices, on the
//! hardware that GPUs have for them.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, without_map};
use super::{Const, Dispatch, Kernel, KernelDef, Resources};
use crate::caps::{Caps, MatrixShape};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::problem::{Geometry, Problem, product};

pub(crate) const DEF: KernelDef = KernelDef { matrices: true, ..PLAIN };

/// Name of the constant that says what matrices hold.
const OPERAND: &str = "Operand";

/// A tile of `4 size x 4 size` outputs, and who computes it.
#[derive(Clone, Copy, Debug)]
struct Tile {
    shape: MatrixShape,
    workgroup: u32,
}

impl Tile {
    fn new(shape: MatrixShape, caps: &Caps) -> Self {
        let [_, largest] = caps.subgroup_size;
        // Four subgroups at least, whatever size they have; and a position for each invocation.
        Self { shape, workgroup: (4 * largest).next_power_of_two().max(Self::side(shape)) }
    }

    fn side(shape: MatrixShape) -> u32 {
        4 * shape.size
    }

    /// Input channels of a step: as many as leave room for the sums in 16 KiB, which every WebGPU
    /// device has.
    fn block(self) -> u32 {
        if self.shape.operand == Elem::F32 { 16 } else { 32 }
    }

    /// Workgroup memory, bytes: weights and inputs of a step, their rows padded, and four matrices
    /// of sums.
    fn memory(self) -> u32 {
        let (side, block) = (Self::side(self.shape), self.block());
        let operands = 2 * side * (block + 8);
        let bytes = if self.shape.operand == Elem::F32 { 4 } else { 2 };
        bytes * operands + 4 * 4 * self.shape.size * self.shape.size
    }

    /// Loop iterations of an invocation. The iteration that ends a loop counts too.
    fn iterations(self, task: &ConvTask<'_>) -> u64 {
        let (side, block, size) = (Self::side(self.shape), self.block(), self.shape.size);
        let steps =
            task.channels.len().div_ceil(block as usize).saturating_mul(task.geometry.taps())
                as u64;
        // Staging takes as many iterations for weights as for inputs.
        let step = 2 * (block * side / self.workgroup + 1) + block / size + 2;
        let elements = (4 * size * size).div_ceil(self.workgroup);
        let stores = elements * if task.has_bias { 3 } else { 1 };
        steps
            .saturating_mul(u64::from(step))
            .saturating_add(u64::from(1 + elements + 1 + 4 * (stores + 2) + 1))
    }

    fn consts(self) -> [(&'static str, Const); 8] {
        // Cooperative matrices have their size in the name of their type, and WGSL has no constants
        // that are types.
        let (operand, types) = match (self.shape.operand, self.shape.size) {
            (Elem::F32, 8) => {
                ("f32", ["coop_mat8x8<f32, A>", "coop_mat8x8<f32, B>", "coop_mat8x8<f32, C>"])
            }
            (Elem::F32, _) => {
                ("f32", ["coop_mat16x16<f32, A>", "coop_mat16x16<f32, B>", "coop_mat16x16<f32, C>"])
            }
            (_, 8) => {
                ("f16", ["coop_mat8x8<f16, A>", "coop_mat8x8<f16, B>", "coop_mat8x8<f32, C>"])
            }
            (_, _) => {
                ("f16", ["coop_mat16x16<f16, A>", "coop_mat16x16<f16, B>", "coop_mat16x16<f32, C>"])
            }
        };
        let [a, b, c] = types.map(Const::Type);
        [
            ("WORKGROUP", Const::U32(self.workgroup)),
            ("MATRIX", Const::U32(self.shape.size)),
            ("BLOCK", Const::U32(self.block())),
            ("IS_HALF", Const::Bool(self.shape.operand != Elem::F32)),
            (OPERAND, Const::Type(operand)),
            ("MatrixA", a),
            ("MatrixB", b),
            ("MatrixC", c),
        ]
    }
}

/// The largest matrices of a device for an input in `elem`: their operands are f32 for an input in
/// f32, else f16.
fn shape(elem: Elem, caps: &Caps) -> Option<MatrixShape> {
    let operand = if elem == Elem::F32 { Elem::F32 } else { Elem::F16 };
    let fitting = caps.matrices.iter().filter(|shape| shape.operand == operand);
    let knows = caps.subgroups && (caps.f16 || operand != Elem::F16);
    fitting.max_by_key(|shape| shape.size).copied().filter(|_| knows)
}

/// Whether at least two thirds of the tiles have work, and of the channels of a step.
pub(crate) fn fills(g: &Geometry, positions: usize, elem: Elem, caps: &Caps) -> bool {
    let Some(shape) = shape(elem, caps) else { return false };
    let tile = Tile::new(shape, caps);
    let share = |size: usize, of: u32| size as f64 / size.next_multiple_of(of as usize) as f64;
    let side = Tile::side(shape);
    let filled = share(g.c_out / g.groups, side)
        * share(positions, side)
        * share(g.c_in / g.groups, tile.block());
    tile.workgroup <= caps.max_invocations.min(caps.max_workgroup_size) && 3.0 * filled >= 2.0
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        let (g, positions) = (&problem.geometry, product(&output));
        let suits = !caps.is_software() && fills(g, positions, problem.elems[0], caps);
        suits.then(|| {
            format!(
                "{} channels x {positions} positions fill tiles of cooperative matrices",
                g.c_out / g.groups
            )
        })
    }

    /// None where the device has no such matrices, which `launch` says.
    fn iterations(&self, task: &ConvTask<'_>, caps: &Caps) -> u64 {
        shape(task.elems[0], caps).map_or(0, |shape| Tile::new(shape, caps).iterations(task))
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let shape = shape(task.elems[0], caps).ok_or_else(|| Error::MissingFeature {
            feature: "EXPERIMENTAL_COOPERATIVE_MATRIX, in matrices that Context::with_matrices has \
                      tested",
            needed_for: format!("conv_gemm_coopmat with an input in Elem::{:?}", task.elems[0]),
        })?;
        let tile = Tile::new(shape, caps);
        let [_, c_out] = task.group_channels();
        let side = Tile::side(shape) as usize;
        let tiles = c_out.div_ceil(side) * task.positions().div_ceil(side);
        let workgroups = task.batch * task.geometry.groups * tiles;
        let resources = Resources { memory: tile.memory(), iterations: tile.iterations(task) };
        let (consts, slices) = (tile.consts(), task.slices()?);
        task.dispatch_of(Kernel::ConvGemmCoopmat, &consts, workgroups, resources, slices, caps)
    }
}
