//! The demo's network: a static convolution, three ODConv layers, global pooling, a classifier.

use anyhow::{Context as _, Result, ensure};
use dynconv::device::PassTimer;
use dynconv::problem::Epilogue;
use dynconv::problem::{AttentionSource, Problem};
use dynconv::reference::{self, LayerWeights, widen};
use dynconv::{
    Activation, BatchNorm, Bound, Checkpoint, Context, ConvDesc, OdConv2d, OdWeights, StaticConv2d,
    Tensor, wgpu,
};
use serde::Deserialize;

pub(crate) const CLASSES: usize = 10;
pub(crate) const SIDE: usize = 28;

/// Strides of conv2, conv3, conv4.
const STRIDES: [usize; 3] = [2, 2, 1];
const NAMES: [&str; 6] = ["conv1", "conv2", "conv3", "conv4", "pool", "fc"];

/// What the checkpoint says of itself.
#[derive(Debug, Deserialize)]
struct Config {
    kind: String,
    temperature: f32,
    mean: f32,
    std: f32,
    /// Of all batch norms.
    #[serde(default = "pytorch")]
    epsilon: f64,
}

fn pytorch() -> f64 {
    BatchNorm::EPSILON_PYTORCH
}

/// Weights of the network, checked.
#[derive(Debug)]
pub(crate) struct Network {
    config: Config,
    stem: ConvDesc<2>,
    stem_kernel: Vec<f32>,
    stem_norm: BatchNorm,
    dynamic: Vec<Dynamic>,
    classifier: ConvDesc<2>,
    classifier_weight: Vec<f32>,
    classifier_bias: Vec<f32>,
}

/// An ODConv layer and the batch norm after it.
#[derive(Debug)]
struct Dynamic {
    desc: ConvDesc<2>,
    weights: OdWeights,
    norm: BatchNorm,
}

impl Network {
    pub(crate) fn load(checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let config = checkpoint.metadata("config").context("checkpoint: no metadata \"config\"")?;
        let config: Config =
            serde_json::from_str(config).context("checkpoint: metadata \"config\"")?;
        ensure!(
            config.kind == "od",
            "checkpoint: expected a network of kind \"od\", found \"{}\"",
            config.kind
        );
        ensure!(
            config.std > 0.0 && config.mean.is_finite(),
            "checkpoint: mean and std of the pixels are unusable"
        );

        let mut channels = 16;
        let stem = ConvDesc::new(1, channels, [3, 3]).padding([1, 1]);
        let stem_kernel = checkpoint.tensor("conv1.weight", &[channels, 1, 3, 3])?;
        let stem_norm = checkpoint.batch_norm("bn1.", channels, config.epsilon)?;
        let mut dynamic = Vec::new();
        for (layer, stride) in (2..).zip(STRIDES) {
            let (desc, weights) =
                checkpoint.od_conv::<2>(&format!("conv{layer}."), config.epsilon)?;
            let g = desc.geometry()?;
            ensure!(
                g.c_in == channels,
                "conv{layer}: expected {channels} input channels, found {}",
                g.c_in
            );
            ensure!(
                g.kernel == [1, 3, 3],
                "conv{layer}: expected a 3 x 3 kernel, found {:?}",
                &g.kernel[1..]
            );
            channels = g.c_out;
            let norm = checkpoint.batch_norm(&format!("bn{layer}."), channels, config.epsilon)?;
            dynamic.push(Dynamic { desc: desc.stride([stride; 2]).padding([1, 1]), weights, norm });
        }
        Ok(Self {
            config,
            stem,
            stem_kernel,
            stem_norm,
            dynamic,
            classifier: ConvDesc::new(channels, CLASSES, [1, 1]),
            classifier_weight: checkpoint.tensor("fc.weight", &[CLASSES, channels])?,
            classifier_bias: checkpoint.tensor("fc.bias", &[CLASSES])?,
        })
    }

    /// Normalised pixels.
    pub(crate) fn preprocess(&self, pixels: &[u8]) -> Vec<f32> {
        pixels
            .iter()
            .map(|&p| (f32::from(p) / 255.0 - self.config.mean) / self.config.std)
            .collect()
    }

    /// Logits of some images by the CPU reference.
    pub(crate) fn cpu_logits(&self, images: &[f32]) -> Result<Vec<f64>> {
        let batch = images.len() / (SIDE * SIDE);
        let mut x = widen(images);
        let mut size = [1, SIDE, SIDE];
        let stem = LayerWeights { bank: widen(&self.stem_kernel), ..Default::default() };
        let stem = (self.stem, AttentionSource::Static, stem, &self.stem_norm);
        let dynamic = self.dynamic.iter().map(|layer| {
            let weights = layer.weights.reference(&layer.desc.geometry()?, self.config.temperature);
            let branch = layer.weights.branch();
            Ok((layer.desc, AttentionSource::Branch(branch), weights, &layer.norm))
        });
        for layer in std::iter::once(Ok(stem)).chain(dynamic) {
            let (desc, attention, mut weights, norm) = layer.map_err(|e: dynconv::Error| e)?;
            let geometry = desc.geometry()?;
            let (scale, shift) = norm.scale_shift(geometry.c_out)?;
            weights.affine = Some([scale, shift].concat());
            let problem = Problem {
                attention,
                epilogue: Epilogue {
                    affine: true,
                    activation: Activation::Relu,
                    ..Epilogue::default()
                },
                ..Problem::new(geometry, batch, size)
            };
            x = reference::layer(&problem, &weights, &x, &[]).y;
            size = geometry.output_size(size)?;
        }
        let channels = self.classifier.geometry()?.c_in;
        let means = reference::average_pool::average_pool(&x, batch * channels, 1);
        Ok(means.chunks_exact(channels).flat_map(|row| self.classify(row)).collect())
    }

    fn classify(&self, means: &[f64]) -> Vec<f64> {
        let rows = self.classifier_weight.chunks_exact(means.len()).zip(&self.classifier_bias);
        rows.map(|(row, &bias)| {
            row.iter().zip(means).map(|(&w, m)| f64::from(w) * m).sum::<f64>() + f64::from(bias)
        })
        .collect()
    }

    /// The network on the GPU, for batches of `batch` images.
    pub(crate) fn bind(&self, context: &Context, batch: usize) -> Result<GpuNetwork> {
        let mut steps = Vec::new();
        let input = Tensor::zeros(context, &[batch, 1, SIDE, SIDE])?;

        let stem = StaticConv2d::new(context, &self.stem, &self.stem_kernel, None)?;
        let stem = stem.batch_norm(&self.stem_norm)?.activation(Activation::Relu);
        let mut x = Tensor::zeros(context, &stem.output_shape(input.shape())?)?;
        steps.push(GpuStep::new(stem.bind(&input, &x)?, stem.plan(batch, [SIDE; 2])?.flops()));

        for layer in &self.dynamic {
            let op = OdConv2d::new(context, &layer.desc, &layer.weights, self.config.temperature)?;
            let op = op.batch_norm(&layer.norm)?.activation(Activation::Relu);
            let size = [x.shape()[2], x.shape()[3]];
            let plan = op.plan(batch, size)?;
            let y = Tensor::zeros(context, &op.output_shape(x.shape())?)?;
            let mut step = GpuStep::new(op.bind(&x, &y)?, plan.flops());
            step.mix = plan
                .problem()
                .attention_row()
                .mix
                .map(|start| start..start + plan.problem().geometry.kernels);
            steps.push(step);
            x = y;
        }

        let means = Tensor::zeros(context, &[batch, x.shape()[1], 1, 1])?;
        steps.push(GpuStep::new(
            dynconv::layers::global_average_pool(context, &x, &means)?,
            x.len() as u64,
        ));
        let fc = StaticConv2d::new(
            context,
            &self.classifier,
            &self.classifier_weight,
            Some(&self.classifier_bias),
        )?;
        let logits = Tensor::zeros(context, &fc.output_shape(means.shape())?)?;
        steps.push(GpuStep::new(fc.bind(&means, &logits)?, fc.plan(batch, [1, 1])?.flops()));

        let timer = PassTimer::new(context, 6)?;
        Ok(GpuNetwork { batch, input, logits, steps, timer })
    }
}

/// The network bound to tensors of one batch size.
#[derive(Debug)]
pub(crate) struct GpuNetwork {
    pub batch: usize,
    input: Tensor,
    logits: Tensor,
    steps: Vec<GpuStep>,
    timer: Option<PassTimer>,
}

#[derive(Debug)]
struct GpuStep {
    bound: Bound,
    flops: u64,
    /// Where the mixing weights lie in an attention row.
    mix: Option<std::ops::Range<usize>>,
}

impl GpuStep {
    fn new(bound: Bound, flops: u64) -> Self {
        Self { bound, flops, mix: None }
    }
}

/// Kernel attention of a dynamic layer, a row an image.
#[derive(Debug)]
pub(crate) struct Mix {
    pub layer: &'static str,
    pub rows: Vec<Vec<f32>>,
}

/// What one layer is, for the table.
#[derive(Debug)]
pub(crate) struct LayerInfo {
    pub name: &'static str,
    pub shape: String,
    pub kernel: String,
    pub flops: u64,
}

impl GpuNetwork {
    /// Queues one batch of normalised images.
    pub(crate) fn submit(&self, context: &Context, images: &[f32]) -> Result<()> {
        self.input.write(context, images)?;
        let mut encoder =
            context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (number, step) in (0..).zip(&self.steps) {
            let timestamp_writes = self.timer.as_ref().map(|timer| timer.writes(number));
            let descriptor = wgpu::ComputePassDescriptor { label: Some("layer"), timestamp_writes };
            step.bound.record_in(&mut encoder.begin_compute_pass(&descriptor));
        }
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        context.queue().submit([encoder.finish()]);
        Ok(())
    }

    pub(crate) fn read_logits(&self, context: &Context) -> Result<Vec<f32>> {
        Ok(self.logits.read_blocking(context)?)
    }

    /// Milliseconds of each layer in the last batch, where the device can time.
    pub(crate) fn read_times(&self, context: &Context) -> Result<Option<Vec<f64>>> {
        Ok(self.timer.as_ref().map(|timer| timer.read(context)).transpose()?)
    }

    /// Kernel attention of each dynamic layer in the last batch.
    pub(crate) fn read_attention(&self, context: &Context) -> Result<Vec<Mix>> {
        let mut layers = Vec::new();
        for (step, name) in self.steps.iter().zip(NAMES) {
            if let (Some(mix), Some(tensor)) = (&step.mix, step.bound.attention()) {
                let rows = tensor.read_blocking(context)?;
                let rows =
                    rows.chunks_exact(tensor.shape()[1]).map(|row| row[mix.clone()].to_vec());
                layers.push(Mix { layer: name, rows: rows.collect() });
            }
        }
        Ok(layers)
    }

    pub(crate) fn layers(&self) -> Vec<LayerInfo> {
        let mut shape = self.input.shape();
        let mut layers = Vec::new();
        for (step, name) in self.steps.iter().zip(NAMES) {
            let output = step.bound.output().shape();
            let kernel: Vec<&str> =
                step.bound.steps().iter().map(|s| s.dispatch().variant.kernel.name()).collect();
            layers.push(LayerInfo {
                name,
                shape: format!("{} -> {}", sizes(shape), sizes(output)),
                kernel: kernel.join(" + "),
                flops: step.flops,
            });
            shape = output;
        }
        layers
    }
}

/// Channels and map of a shape: `16 x 28 x 28`.
fn sizes(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape[1..].iter().map(ToString::to_string).collect();
    sizes.join("x")
}
