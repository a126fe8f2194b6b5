//! What an adapter can do at most, measured: multiply-adds in registers, and bytes from memory to
//! memory.

use std::fmt::Write as _;
use std::time::Instant;

use dynconv::{Context, Tensor, wgpu};
use dynconv_suite::noise::Noise;

use crate::contest::{Clock, Contender, Spread, take_turns};
use crate::error::{Error, Result};

/// Multiply-adds of one chain. Old software Vulkan ends loops after 65,535 iterations; these are
/// 512 iterations of 16.
const STEPS: u32 = 8192;
/// Multiply-adds of one chain in an iteration of the loop.
const UNROLLED: u32 = 16;
/// What a chain is multiplied by, and what is added: it goes from where it begins towards 1, and
/// where it has come to after all steps tells how many they were.
const FACTOR: f32 = 1.0 - SUMMAND;
const SUMMAND: f32 = 1.0 / 4096.0;
/// Independent chains of an invocation, and invocations of a workgroup. Few chains keep registers
/// free, many hide the latency of one; the small workgroups are for software adapters, which take
/// one after another.
const VARIANTS: [[u32; 2]; 6] = [[4, 64], [8, 64], [16, 64], [4, 256], [8, 256], [16, 256]];
/// A measurement of the peak lasts this long: the device's clock frequency has risen by then.
const PEAK_MS: f64 = 20.0;
/// Buffers are copied that no cache can hold, if the device allows.
const COPIED: u64 = 256 << 20;
const SAMPLES: usize = 5;

/// What an adapter can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Multiplications and additions in f32, 10^9 a second.
    pub gflops: f64,
    /// Bytes read and bytes written by a copy, 10^9 a second.
    pub copy_gbps: f64,
}

impl Peak {
    /// Measures an adapter. `quick` takes small samples, once: to see that it works, not what the
    /// numbers are.
    ///
    /// # Errors
    /// [`Error::Fault`] if a shader or a buffer is refused, or if the device computes something
    /// else; [`Error::Device`].
    pub fn measure(context: &Context, quick: bool) -> Result<Self> {
        let clock = Clock::new(context)?;
        let mut gflops = 0.0_f64;
        for [chains, workgroup] in VARIANTS.into_iter().take(if quick { 1 } else { VARIANTS.len() })
        {
            if workgroup <= context.caps().max_invocations.min(context.caps().max_workgroup_size) {
                gflops = gflops.max(multiply_adds(context, &clock, chains, workgroup, quick)?);
            }
        }
        let caps = context.caps();
        let most =
            caps.max_storage_binding.min(caps.max_buffer).min(if quick { 1 << 20 } else { COPIED });
        let copy_gbps = copies(context, &clock, most / 1024 * 1024, quick)?;
        Ok(Self { gflops, copy_gbps })
    }
}

/// A fixed piece of work that no kernel of the library has a part in. It takes turns with every
/// layer, and tells how fast the machine itself was meanwhile.
#[derive(Debug)]
pub(crate) struct Gauge {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Gauge {
    const INVOCATIONS: u32 = 1 << 12;
    const CHAINS: u32 = 4;
    const WORKGROUP: u32 = 64;

    pub(crate) fn new(context: &Context) -> Result<Self> {
        let pipeline = compile(context, "peak", chains_source(Self::CHAINS, Self::WORKGROUP))?;
        let factors = Tensor::upload(context, &[4], &[FACTOR, SUMMAND, APART, 0.0])?;
        let y = Tensor::zeros(context, &[Self::INVOCATIONS as usize])?;
        let bindings = bind(context, &pipeline, [factors.buffer(), y.buffer()]);
        Ok(Self { pipeline, bindings })
    }

    pub(crate) fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        dispatch(pass, &self.pipeline, &self.bindings, [Self::INVOCATIONS / Self::WORKGROUP, 1]);
    }
}

/// A shader of independent chains of multiply-adds.
fn chains_source(chains: u32, workgroup: u32) -> String {
    let each = |line: &dyn Fn(u32) -> String| (0..chains).map(line).collect::<Vec<_>>();
    let mut text = String::from(
        "@group(0) @binding(0) var<storage, read> factors: array<f32>;\n\
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;\n\n",
    );
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "@compute @workgroup_size({workgroup})\n\
         fn peak(@builtin(global_invocation_id) id: vec3<u32>) {{\n    \
         let a = factors[0];\n    let b = factors[1];\n    \
         let begin = 2.0 + factors[2] * f32(id.x % 64u);\n"
    );
    text += &each(&|c| format!("    var c{c} = begin + {c}.0 * factors[2];\n")).concat();
    let _ = writeln!(text, "    for (var i = 0u; i < {}u; i++) {{", STEPS / UNROLLED);
    for _ in 0..UNROLLED {
        text += &each(&|c| format!("        c{c} = fma(c{c}, a, b);\n")).concat();
    }
    let _ = write!(text, "    }}\n    y[id.x] = {};\n}}\n", each(&|c| format!("c{c}")).join(" + "));
    text
}

/// The step from one chain's beginning to the next one's.
const APART: f32 = 1.0 / 64.0;

/// What an invocation must find: each chain is at `1 + (begin - 1) * FACTOR^steps`.
fn expected(invocation: usize, chains: u32, steps: f64) -> f64 {
    let power = f64::from(FACTOR).powf(steps);
    let begin = |chain: u32| 2.0 + f64::from(APART) * ((invocation % 64) as f64 + f64::from(chain));
    (0..chains).map(|chain| 1.0 + (begin(chain) - 1.0) * power).sum()
}

/// 10^9 operations a second, the best of some samples.
fn multiply_adds(
    context: &Context,
    clock: &Clock<'_>,
    chains: u32,
    workgroup: u32,
    quick: bool,
) -> Result<f64> {
    let pipeline = compile(context, "peak", chains_source(chains, workgroup))?;
    let factors = Tensor::upload(context, &[4], &[FACTOR, SUMMAND, APART, 0.0])?;
    let mut invocations: u32 = if quick { 1 << 8 } else { 1 << 13 };
    loop {
        let y = Tensor::zeros(context, &[invocations as usize])?;
        let bindings = bind(context, &pipeline, [factors.buffer(), y.buffer()]);
        let groups = invocations / workgroup;
        let mut contender =
            Contender::new(Box::new(|pass| dispatch(pass, &pipeline, &bindings, [groups, 1])));
        let first = clock.time(contender.work(), 1)?.best();
        // Enough invocations for the sample to be long and the device to be full.
        let groups_fit = 2 * invocations / workgroup <= context.caps().max_workgroups;
        if !quick && first < PEAK_MS && invocations < 1 << 22 && groups_fit {
            invocations *= 2;
            continue;
        }
        check_chains(&y.read_blocking(context)?, chains)?;
        take_turns(
            clock,
            &mut [&mut contender],
            if quick { 1 } else { SAMPLES },
            quick,
            &mut || Ok(()),
        )?;
        let flops = 2.0 * f64::from(STEPS) * f64::from(chains) * f64::from(invocations);
        return Ok(flops / contender.spread().min * 1e-6);
    }
}

/// Every step rounds twice at most, by 2^-24 of a number below 4, and what it adds fades with
/// [`FACTOR`]: 4096 of them add up.
fn check_chains(found: &[f32], chains: u32) -> Result<()> {
    let tolerance = f64::from(chains) * 4096.0 * 2.0 * 4.0 / f64::from(1 << 24);
    for (i, &value) in found.iter().enumerate() {
        let expected = expected(i, chains, f64::from(STEPS));
        if (f64::from(value) - expected).abs() > tolerance || !value.is_finite() {
            return Err(Error::wrong(format!(
                "multiply-adds: invocation {i} found {value}, expected {expected}"
            )));
        }
    }
    Ok(())
}

/// 10^9 bytes a second, read and written, by the better of a shader and the driver's own copy.
fn copies(context: &Context, clock: &Clock<'_>, bytes: u64, quick: bool) -> Result<f64> {
    let len = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    let values = Noise::new(9).floats(len);
    let x = Tensor::upload(context, &[len], &values)?;
    let samples = if quick { 1 } else { SAMPLES };
    let gbps = |ms: f64| 2.0 * bytes as f64 / ms * 1e-6;
    let check = |what: &str, y: &Tensor| match y.read_blocking(context)? == values {
        true => Ok(()),
        false => Err(Error::wrong(format!("{what} differs from what was copied"))),
    };

    let y = Tensor::zeros(context, &[len])?;
    let pipeline = compile(context, "copy", include_str!("shaders/copy.wgsl").into())?;
    let bindings = bind(context, &pipeline, [x.buffer(), y.buffer()]);
    let groups = u32::try_from(bytes.div_ceil(64 * 256)).unwrap_or(u32::MAX);
    let columns = groups.min(1 << 14);
    let grid = [columns, groups.div_ceil(columns)];
    let mut contender = Contender::new(Box::new(|pass| dispatch(pass, &pipeline, &bindings, grid)));
    take_turns(clock, &mut [&mut contender], samples, quick, &mut || Ok(()))?;
    check("the copy by a shader", &y)?;
    let by_shader = gbps(contender.spread().min);

    let y = Tensor::zeros(context, &[len])?;
    copy_ms(context, &x, &y, 1)?;
    check("the driver's copy", &y)?;
    // Timed by the host, so that it has to last.
    let repeats = if quick { 1 } else { 16 };
    let times =
        (0..samples).map(|_| copy_ms(context, &x, &y, repeats)).collect::<Result<Vec<_>>>()?;
    Ok(by_shader.max(gbps(Spread::of(&times).min)))
}

/// Milliseconds of one copy by the driver, by the host's clock.
fn copy_ms(context: &Context, x: &Tensor, y: &Tensor, repeats: u32) -> Result<f64> {
    context.wait()?;
    let start = Instant::now();
    let mut encoder =
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for _ in 0..repeats {
        encoder.copy_buffer_to_buffer(x.buffer(), 0, y.buffer(), 0, x.range().end);
    }
    context.queue().submit([encoder.finish()]);
    context.wait()?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(repeats))
}

fn compile(context: &Context, entry: &str, source: String) -> Result<wgpu::ComputePipeline> {
    let device = context.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let module =
        device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(entry), source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    match pollster::block_on(scope.pop()) {
        None => Ok(pipeline),
        Some(error) => Err(Error::Device(format!("shader {entry}: {error}"))),
    }
}

fn bind(
    context: &Context,
    pipeline: &wgpu::ComputePipeline,
    buffers: [&wgpu::Buffer; 2],
) -> wgpu::BindGroup {
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    context.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
}

fn dispatch(
    pass: &mut wgpu::ComputePass<'_>,
    pipeline: &wgpu::ComputePipeline,
    bindings: &wgpu::BindGroup,
    grid: [u32; 2],
) {
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, bindings, &[]);
    pass.dispatch_workgroups(grid[0], grid[1], 1);
}

#[cfg(test)]
mod tests {
    use dynconv::reference::narrow;

    use super::*;

    #[test]
    fn chains_that_stop_early_are_found() {
        let after =
            |steps: f64| narrow(&(0..70).map(|i| expected(i, 4, steps)).collect::<Vec<_>>());
        assert!(check_chains(&after(f64::from(STEPS)), 4).is_ok());
        assert!(check_chains(&after(0.9 * f64::from(STEPS)), 4).is_err());
    }
}
