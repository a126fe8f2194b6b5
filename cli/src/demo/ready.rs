//! The demo's network on a device: bound for one batch size, timed by its operations.

use anyhow::{Context as _, Result};
use dynconv::device::PassTimer;
use dynconv::layers::AnyLayer;
use dynconv::program::Operation;
use dynconv::{Bound, Context, Tensor, wgpu};
use dynconv_nets::Network;

use super::SIDE;
use crate::report::LayerRow;

/// The network bound to tensors of one batch size.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) batch: usize,
    names: Vec<String>,
    input: Tensor,
    bound: Bound,
    timer: Option<PassTimer>,
}

/// Kernel attention of a dynamic layer, a row an image.
#[derive(Debug)]
pub(super) struct Mix {
    pub(super) layer: String,
    pub(super) rows: Vec<Vec<f32>>,
}

impl Ready {
    /// For a network each of whose operations is a stage.
    pub(super) fn new(context: &Context, network: &Network, batch: usize) -> Result<Self> {
        let input = Tensor::zeros(context, &[batch, 1, SIDE, SIDE])?;
        let logits = Tensor::zeros(context, &network.output_shape(input.shape())?)?;
        let bound = network.bind(&input, &logits)?;
        let count = u32::try_from(bound.program().operations().len())?;
        let timer = PassTimer::new(context, count)?;
        let names = network.stages().map(str::to_owned).collect();
        Ok(Self { batch, names, input, bound, timer })
    }

    fn operations(&self) -> impl Iterator<Item = (&str, &Operation)> {
        self.names.iter().map(String::as_str).zip(self.bound.program().operations())
    }

    /// Queues one batch of normalised images.
    pub(super) fn submit(&self, context: &Context, images: &[f32]) -> Result<()> {
        self.input.write(context, images)?;
        let mut encoder =
            context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (number, (_, operation)) in (0..).zip(self.operations()) {
            let timestamp_writes = self.timer.as_ref().map(|timer| timer.writes(number));
            let descriptor = wgpu::ComputePassDescriptor { label: Some("layer"), timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            self.bound.steps()[operation.steps()].iter().for_each(|step| step.record_in(&mut pass));
        }
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        context.queue().submit([encoder.finish()]);
        Ok(())
    }

    pub(super) fn read_logits(&self, context: &Context) -> Result<Vec<f32>> {
        Ok(self.bound.output().read_blocking(context)?)
    }

    /// Milliseconds of each layer in the last batch, where the device can time.
    pub(super) fn read_times(&self, context: &Context) -> Result<Option<Vec<f64>>> {
        Ok(self.timer.as_ref().map(|timer| timer.read(context)).transpose()?)
    }

    /// Kernel attention of each dynamic layer in the last batch.
    pub(super) fn read_attention(&self, context: &Context) -> Result<Vec<Mix>> {
        let mut layers = Vec::new();
        for (name, operation) in self.operations() {
            let (Some(attention), Some(problem)) = (operation.attention(), operation.problem())
            else {
                continue;
            };
            let row = problem.attention_row();
            let Some(first) = row.mix else { continue };
            let tensor = self.bound.kept(attention).context("attention that is kept")?;
            let rows = tensor.read_blocking(context)?;
            let mix = |row: &[f32]| row[first..first + problem.geometry.kernels].to_vec();
            let rows = rows.chunks_exact(row.stride).map(mix).collect();
            layers.push(Mix { layer: name.to_owned(), rows });
        }
        Ok(layers)
    }

    /// What each layer is, its times still open, and its operations.
    pub(super) fn layers(&self) -> Result<Vec<(LayerRow, u64)>> {
        let program = self.bound.program();
        let row = |(name, operation): (&str, &Operation)| -> Result<_> {
            let [from, to] = [operation.input(), operation.output()];
            let [from, to] = [program.info(from)?, program.info(to)?];
            let steps = &self.bound.steps()[operation.steps()];
            let kernels: Vec<&str> =
                steps.iter().map(|step| step.dispatch().variant.kernel.name()).collect();
            let flops = match operation.problem() {
                Some(problem) => {
                    let output = problem.geometry.output_size(problem.input)?;
                    problem.geometry.flops(problem.batch, problem.input, output)
                }
                None => from.len() as u64,
            };
            let row = LayerRow {
                name: name.to_owned(),
                shape: format!("{} -> {}", sizes(&from.shape), sizes(&to.shape)),
                kernel: kernels.join(" + "),
                gpu_ms: None,
                gflops: None,
            };
            Ok((row, flops))
        };
        self.operations().map(row).collect()
    }
}

/// Channels and map of a shape: `16x28x28`.
fn sizes(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape[1..].iter().map(ToString::to_string).collect();
    sizes.join("x")
}
