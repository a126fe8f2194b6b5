//! GPU time and GFLOP/s of every convolution kernel on a few shapes, aggregation included: `cargo bench`.
//!
//! GFLOP/s counts the static convolution of the same shape: `2 * batch * weights * positions` (the aggregation's own
//! operations are overhead, not work). Each result is checked against the f64 reference before it is timed. Times are
//! timestamps around one compute pass, median of the runs after a warm-up; inputs are noise, and stay the same.

use dynconv::plan::ConvChoice;
use dynconv::reference::{self, LayerWeights, widen};
use dynconv::{BankConv2d, Bound, Context, ConvDesc, Tensor, bytemuck, wgpu};

const RUNS: usize = 7;

struct Shape {
    name: &'static str,
    desc: ConvDesc<2>,
    batch: usize,
    size: [usize; 2],
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::request_blocking()?;
    println!("{} ({})", context.caps().name, context.caps().driver);
    if !context.caps().timestamps {
        let needed_for = "timing".into();
        return Err(dynconv::Error::MissingFeature { feature: "TIMESTAMP_QUERY", needed_for }.into());
    }
    let three = |c: usize| ConvDesc::new(c, c, [3, 3]).kernels(4).padding([1, 1]);
    let shapes = [
        Shape { name: "64 -> 64, 3x3, 56x56", desc: three(64), batch: 8, size: [56, 56] },
        Shape { name: "512 -> 512, 3x3, 7x7", desc: three(512), batch: 8, size: [7, 7] },
        Shape {
            name: "64 -> 256, 1x1, 56x56",
            desc: ConvDesc::new(64, 256, [1, 1]).kernels(4),
            batch: 8,
            size: [56, 56],
        },
        Shape { name: "192 depthwise, 3x3, 28x28", desc: three(192).groups(192), batch: 8, size: [28, 28] },
    ];
    for shape in &shapes {
        println!("\n{}, batch {}, K = 4", shape.name, shape.batch);
        for kernel in [
            ConvChoice::Direct,
            ConvChoice::Tiled,
            ConvChoice::Register,
            ConvChoice::Lanes,
            ConvChoice::Pointwise,
            ConvChoice::Depthwise,
        ] {
            match measure(&context, shape, kernel) {
                Ok(row) => println!("{row}"),
                Err(dynconv::Error::Unsupported { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn measure(context: &Context, shape: &Shape, kernel: ConvChoice) -> dynconv::Result<String> {
    let geometry = shape.desc.geometry()?;
    let bank = noise(geometry.kernels * geometry.weights(), 1);
    let layer = BankConv2d::new(context, &shape.desc, &bank, None)?.kernel(kernel);
    let plan = layer.plan(shape.batch, shape.size)?;

    let input = [shape.batch, geometry.c_in, shape.size[0], shape.size[1]];
    let values = noise(input.iter().product(), 2);
    let mix = noise(shape.batch * geometry.kernels, 3);
    let x = Tensor::upload(context, &input, &values)?;
    let attention = Tensor::upload(context, &[shape.batch, geometry.kernels], &mix)?;
    let y = Tensor::zeros(context, &layer.output_shape(&input)?)?;
    let bound = layer.bind(&x, &attention, &y)?;

    time_pass(context, &bound);
    let error = check(&plan, &bank, &values, &mix, &y.read_blocking(context)?);
    let mut times: Vec<f64> = (0..RUNS).map(|_| time_pass(context, &bound)).collect();
    times.sort_by(f64::total_cmp);
    let median = times[RUNS / 2];
    Ok(format!(
        "  {:<15} {:9.2} ms (min {:.2}, max {:.2})  {:7.2} GFLOP/s  error {error:.1e}",
        plan.conv_kernel().name(),
        median,
        times[0],
        times[RUNS - 1],
        plan.flops() as f64 / median * 1e-6,
    ))
}

/// Relative error of the first sample against the f64 reference.
fn check(plan: &dynconv::plan::Plan, bank: &[f32], x: &[f32], mix: &[f32], y: &[f32]) -> f64 {
    let mut problem = *plan.problem();
    let samples = problem.batch;
    problem.batch = 1;
    let weights = LayerWeights { bank: widen(bank), ..Default::default() };
    let truth = reference::layer(&problem, &weights, &widen(&x[..x.len() / samples]), &widen(mix)).y;
    let largest = truth.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let error = truth.iter().zip(y).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max) / largest;
    assert!(error < 1e-5, "wrong result: relative error {error}");
    error
}

/// Milliseconds of one recording, by timestamps.
fn time_pass(context: &Context, bound: &Bound) -> f64 {
    let device = context.device();
    let queries =
        device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 });
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
    };
    let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
    let readable = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let writes = wgpu::ComputePassTimestampWrites {
        query_set: &queries,
        beginning_of_pass_write_index: Some(0),
        end_of_pass_write_index: Some(1),
    };
    bound.record_in(
        &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) }),
    );
    encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &readable, 0, 16);
    context.queue().submit([encoder.finish()]);
    readable.map_async(wgpu::MapMode::Read, .., |result| result.expect("timestamps are readable"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device finishes");
    let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&readable.get_mapped_range(..).expect("is mapped"));
    (stamps[1] - stamps[0]) as f64 * f64::from(context.queue().get_timestamp_period()) * 1e-6
}

/// Values in [-0.5, 0.5) from a linear congruential generator.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..len).map(|_| next()).collect()
}
