//! The kernels that are looked at: convolutions in tiles, in the variants that planning for a GPU
//! gives.

use dynconv::Algorithm;
use dynconv::device::MatrixShape;
use dynconv::kernels::Dispatch;
use dynconv::problem::{AttentionSource, Parts, Problem};
use dynconv::problem::{Layout, WeightOrder};
use dynconv::program::Plan;
use dynconv::{Caps, ConvDesc, Elem, wgpu};

use crate::families::{Family, Origin};
use crate::listing::Iterations;

/// A kernel to compile.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) dispatch: Dispatch,
    /// The shader.
    pub(crate) source: String,
    pub(crate) iterations: Iterations,
}

/// The cases of a family. 3 x 3 taps with padding where the name says no more.
pub(crate) fn all(family: &Family) -> Result<Vec<Case>, String> {
    let mut cases = all_of_gpus()?;
    // A kernel takes the emulator minutes: those that phones run are enough.
    if family.origin == Origin::Emulated {
        cases.retain(|case| case.dispatch.workgroup_memory == 0);
    }
    Ok(cases)
}

fn all_of_gpus() -> Result<Vec<Case>, String> {
    let taps = |c_in, c_out, size| desc(c_in, c_out, size).padding([size / 2; 2]);
    let block = |desc, map| Problem { algorithm: Algorithm::ConvGemmShared, ..problem(desc, map) };
    let gains = Parts { channel: true, filter: true, ..Parts::default() };
    let large = block(taps(128, 128, 3), 56);
    let small = block(taps(64, 64, 3), 8);
    let tiled = Problem { algorithm: Algorithm::ConvTiled, ..problem(taps(64, 64, 3), 56) };
    let pointwise = Problem { algorithm: Algorithm::ConvPointwise, ..problem(taps(64, 64, 1), 56) };
    let register =
        Problem { algorithm: Algorithm::ConvGemmRegister, ..problem(taps(64, 64, 3), 56) };
    let depthwise = problem(taps(64, 64, 3).groups(64), 56);
    let plain = |problem| Problem { order: WeightOrder::Plain, ..problem };
    let mut cases = vec![
        // Sixteen steps of 4 x 4 multiply-adds; 256 invocations load two tiles of 16 x 64.
        case("tiled 64x64", tiled, Iterations { staging: 4, work: 256 })?,
        case("pointwise", pointwise, Iterations { staging: 1, work: 32 })?,
        case("pointwise, plain", plain(pointwise), Iterations { staging: 1, work: 32 })?,
        // All taps of a channel.
        case("register", register, Iterations { staging: 1, work: 9 * 32 })?,
        case("register, plain", plain(register), Iterations { staging: 1, work: 9 * 32 })?,
        // A whole invocation, its four stores included. The first tap adds to nothing: those four
        // are products.
        case("depthwise", depthwise, Iterations { staging: 4, work: 8 * 4 })?,
    ];
    let blocks = [
        ("block 128x128", large),
        ("block 128x64", block(taps(64, 512, 3), 7)),
        ("block 64x128", block(taps(64, 64, 3), 56)),
        ("block 64x64", small),
        ("block 128x128, 1x1", block(taps(128, 128, 1), 56)),
        ("block 128x128, ragged", block(taps(127, 128, 3), 56)),
        ("block 64x64, ragged", block(taps(63, 64, 3), 8)),
        ("block 128x128, plain", plain(large)),
        ("block 64x64, plain", plain(small)),
        ("block 128x128, gains", Problem { attention: AttentionSource::Given(gains), ..large }),
        ("block 128x128, NHWC", Problem { layouts: [Layout::ChannelsLast; 2], ..large }),
        ("block 128x128, f16", Problem { elems: [Elem::F16; 2], ..large }),
        (
            "block 64x64, parts",
            Problem { algorithm: Algorithm::SplitK, batch: 1, ..block(taps(512, 512, 3), 7) },
        ),
    ];
    for (name, problem) in blocks {
        // Both halves of a block of channels.
        cases.push(case(name, problem, Iterations { staging: 1, work: 2 * 512 })?);
    }
    cases.push(matrices()?);
    let mix = Parts { mix: true, ..Parts::default() };
    let odconv = Parts { mix: true, spatial: true, ..gains };
    let mixed = |c_out, kernels, parts| Problem {
        attention: AttentionSource::Given(parts),
        ..block(taps(256, c_out, 3).kernels(kernels), 7)
    };
    let mixes = [
        ("block 128x64, mixes 4", mixed(512, 4, mix), 4),
        ("block 128x64, mixes 4, ODConv", mixed(512, 4, odconv), 4),
        ("block 128x64, mixes 8", mixed(512, 8, mix), 8),
        ("block 64x64, mixes 4", mixed(64, 4, mix), 4),
    ];
    for (name, problem, kernels) in mixes {
        // Each of the eight weights that an invocation loads for each half is mixed, too: a
        // product, and the others added to it.
        cases.push(case(
            name,
            problem,
            Iterations { staging: 1, work: 2 * (512 + 8 * (kernels - 1)) },
        )?);
    }
    Ok(cases)
}

fn desc(c_in: usize, c_out: usize, size: usize) -> ConvDesc<2> {
    ConvDesc::new(c_in, c_out, [size; 2])
}

fn problem(desc: ConvDesc<2>, map: usize) -> Problem {
    let geometry = desc.geometry().expect("the cases are valid");
    Problem {
        order: WeightOrder::of_bank(&geometry, &gpu()),
        ..Problem::new(geometry, 32, [1, map, map])
    }
}

/// The convolution of a plan of the problem, on a device with twice the workgroup memory that
/// WebGPU promises.
fn case(name: &'static str, problem: Problem, iterations: Iterations) -> Result<Case, String> {
    case_for(name, problem, iterations, &gpu())
}

fn gpu() -> Caps {
    let max_workgroup_memory = 32 << 10;
    let device_type = wgpu::DeviceType::IntegratedGpu;
    Caps { device_type, max_workgroup_memory, f16: true, ..Caps::webgpu_default() }
}

fn case_for(
    name: &'static str,
    problem: Problem,
    iterations: Iterations,
    caps: &Caps,
) -> Result<Case, String> {
    let plan = Plan::new(&problem, caps).map_err(|e| format!("{name}: {e}"))?;
    let conv = plan.conv_kernel();
    let dispatch =
        plan.into_dispatches().into_iter().rfind(|dispatch| dispatch.variant.kernel == conv);
    let dispatch = dispatch.ok_or("a plan without its convolution")?;
    let source = dispatch.variant.source();
    Ok(Case { name, dispatch, source, iterations })
}

/// Cooperative matrices of 16 x 16, for the families that have them.
fn matrices() -> Result<Case, String> {
    let shape = MatrixShape { size: 16, operand: Elem::F16 };
    let caps = Caps { subgroups: true, subgroup_size: [32, 64], matrices: vec![shape], ..gpu() };
    let algorithm = Algorithm::ConvGemmCoopmat;
    let elems = [Elem::F16; 2];
    let problem = Problem { algorithm, elems, ..problem(desc(128, 128, 3).padding([1; 2]), 56) };
    // Two products of 2 x 2 matrices a step and subgroup; an invocation stages eight weights and
    // eight inputs.
    case_for("matrix 64x64, f16", problem, Iterations { staging: 8, work: 8 }, &caps)
}
