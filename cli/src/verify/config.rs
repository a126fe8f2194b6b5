//! The `config` of a golden file: what the layer is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use dynconv::problem::Layout;
use dynconv::{Activation, BatchNorm, Checkpoint, ConvDesc};
use serde::Deserialize;
use serde_json::Value;

/// Keys that say nothing that the tensors do not say, or that describe the file.
const DESCRIPTIVE: [&str; 11] = [
    "latent",
    "squeezed",
    "pooled",
    "cell",
    "cells",
    "torch_f32_error",
    "name",
    "description",
    "comment",
    "source",
    "seed",
];

/// What PyTorch's leaky ReLU has below 0, and what golden files with an epilogue have.
const PYTORCH_SLOPE: f32 = 0.01;
const EPILOGUE_SLOPE: f32 = 0.2;

/// All keys but `kind` have their usual values where they are left out.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    pub kind: String,
    dims: Option<usize>,
    kernels: Option<usize>,
    #[serde(default = "one")]
    pub temperature: f32,
    epsilon: Option<f64>,
    stride: Option<Axes>,
    #[serde(default)]
    padding: Padding,
    dilation: Option<Axes>,
    #[serde(default)]
    pub transposed: bool,
    output_padding: Option<Axes>,
    pub groups: Option<usize>,
    /// Where the weights are stored flat.
    kernel_size: Option<Axes>,
    out_channels: Option<usize>,
    #[serde(default)]
    pub demodulate: bool,
    activation: Option<ActivationText>,
    /// Of input and output, unless these have their own.
    layout: Option<LayoutText>,
    input_layout: Option<LayoutText>,
    output_layout: Option<LayoutText>,
    #[serde(default)]
    pub epilogue: EpilogueText,
    /// Batch norms.
    norm: Option<Norms>,
    #[serde(default)]
    mode: Mode,
    /// How far KernelWarehouse's training mixes in its initial assignment.
    #[serde(default)]
    tau: f64,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

fn one() -> f32 {
    1.0
}

/// One number for all axes, or one an axis.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list of numbers, one an axis")]
enum Axes {
    All(usize),
    Each(Vec<usize>),
}

impl Axes {
    fn get<const D: usize>(&self) -> Result<[usize; D]> {
        match self {
            Self::All(n) => Ok([*n; D]),
            Self::Each(values) => match values.as_slice().try_into() {
                Ok(values) => Ok(values),
                Err(_) => bail!("expected {D} numbers, one an axis, found {values:?}"),
            },
        }
    }
}

/// As [`Axes`]; or before and after the input, for each axis; or "same" or "valid", in any case.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "padding: expected a number, a list of numbers or of pairs [before, after], one an \
                 axis, \"same\" or \"valid\""
)]
enum Padding {
    Even(Axes),
    Sides(Vec<[usize; 2]>),
    Word(String),
}

impl Default for Padding {
    fn default() -> Self {
        Self::Even(Axes::All(0))
    }
}

impl Padding {
    fn of<const D: usize>(&self, desc: ConvDesc<D>) -> Result<ConvDesc<D>> {
        Ok(match self {
            Self::Even(axes) => desc.padding(axes.get()?),
            Self::Sides(sides) => match sides.as_slice().try_into() {
                Ok(sides) => desc.padding_sides(sides),
                Err(_) => bail!("expected {D} pairs [before, after], one an axis, found {sides:?}"),
            },
            Self::Word(word) if word.eq_ignore_ascii_case("same") => desc.padding_same(),
            Self::Word(word) if word.eq_ignore_ascii_case("valid") => desc.padding([0; D]),
            Self::Word(word) => bail!("expected numbers, \"same\" or \"valid\", found \"{word}\""),
        })
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum LayoutText {
    #[serde(rename = "channels_first")]
    First,
    #[serde(rename = "channels_last")]
    Last,
}

/// A name, or a name and its parameters.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "activation: expected a name, or an object of name, slope, scale and bias"
)]
enum ActivationText {
    Name(String),
    With(Parameters),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    name: String,
    slope: Option<f32>,
    scale: Option<f32>,
    bias: Option<f32>,
}

impl ActivationText {
    /// Parameters that are left out have the paper's values; leaky ReLU has the slope given here.
    fn get(&self, usual_slope: f32) -> Result<Activation> {
        let (name, [slope, scale, bias]) = match self {
            Self::Name(name) => (name, [None; 3]),
            Self::With(p) => (&p.name, [p.slope, p.scale, p.bias]),
        };
        let plain: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase();
        let activation = match plain.as_str() {
            "none" | "identity" | "linear" => Activation::None,
            "relu" => Activation::Relu,
            "relu6" => Activation::Relu6,
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "hardswish" => Activation::HardSwish,
            "hardsigmoid" => Activation::HardSigmoid,
            "leakyrelu" => Activation::LeakyRelu { slope: slope.unwrap_or(usual_slope) },
            "starrelu" => Activation::StarRelu {
                scale: scale.unwrap_or(0.8944),
                bias: bias.unwrap_or(-0.4472),
            },
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            _ => bail!("unknown activation \"{name}\""),
        };
        let is_leaky = matches!(activation, Activation::LeakyRelu { .. });
        let is_star = matches!(activation, Activation::StarRelu { .. });
        ensure!(is_leaky || slope.is_none(), "activation {name} has no slope");
        ensure!(
            is_star || scale.is_none() && bias.is_none(),
            "activation {name} has no scale and bias"
        );
        Ok(activation)
    }
}

/// What follows the sum.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EpilogueText {
    pub affine: Affine,
    activation: Option<ActivationText>,
    /// Whether a tensor `residual` is added before the activation.
    pub residual: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Affine {
    #[default]
    None,
    /// `param.scale` and `param.shift`.
    ScaleShift,
    /// `param.bn.*`.
    Bn,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Norms {
    eps: f64,
    /// Of training alone.
    #[serde(rename = "momentum")]
    _momentum: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Eval,
    /// Batch norms use the batch's own statistics.
    Train,
}

impl Config {
    pub(super) fn read(vectors: &Checkpoint<'_>) -> Result<Self> {
        let text = vectors.metadata("config").context("no metadata \"config\"")?;
        let config: Self = serde_json::from_str(text).context("metadata \"config\"")?;
        if let Some(key) = config.others.keys().find(|key| !DESCRIPTIVE.contains(&key.as_str())) {
            bail!("config: unknown key \"{key}\", which may change the result");
        }
        ensure!(
            config.tau == 0.0,
            "config: tau is {}, but layers compute the state of inference, 0",
            config.tau
        );
        ensure!(
            config.activation.is_none() || config.epilogue.activation.is_none(),
            "config: activation stands in epilogue, too"
        );
        Ok(config)
    }

    /// Spatial axes: as said, or as the input has.
    pub(super) fn dims(&self, vectors: &Checkpoint<'_>) -> Result<usize> {
        let rank = vectors.shape("x").context("no tensor x")?.len();
        let dims = self.dims.unwrap_or(rank.saturating_sub(2));
        ensure!(rank == dims + 2, "x: expected {} axes for dims {dims}, found {rank}", dims + 2);
        Ok(dims)
    }

    /// Why a case of training cannot be computed: a batch norm in the attention or behind the
    /// layer.
    pub(super) fn uses_batch_statistics(&self) -> bool {
        let normed = ["odconv", "fdyconv", "kernelwarehouse", "dcd"].contains(&self.kind.as_str());
        self.mode == Mode::Train && (normed || self.epilogue.affine == Affine::Bn)
    }

    pub(super) fn epsilon(&self) -> f64 {
        self.epsilon.or(self.norm.map(|bn| bn.eps)).unwrap_or(BatchNorm::EPSILON_PYTORCH)
    }

    pub(super) fn activation(&self) -> Result<Activation> {
        match (&self.activation, &self.epilogue.activation) {
            (Some(text), _) => text.get(PYTORCH_SLOPE),
            (None, Some(text)) => text.get(EPILOGUE_SLOPE),
            (None, None) => Ok(Activation::None),
        }
    }

    /// Layouts of input and output.
    pub(super) fn layouts(&self) -> [Layout; 2] {
        [self.input_layout, self.output_layout].map(|own| match own.or(self.layout) {
            None | Some(LayoutText::First) => Layout::ChannelsFirst,
            Some(LayoutText::Last) => Layout::ChannelsLast,
        })
    }

    /// Channels of the input.
    pub(super) fn c_in(&self, vectors: &Checkpoint<'_>) -> Result<usize> {
        let shape = vectors.shape("x").context("no tensor x")?;
        let channels = match self.layouts()[0] {
            Layout::ChannelsFirst => shape.get(1),
            Layout::ChannelsLast => shape.last(),
        };
        channels.copied().context("x has no channels")
    }

    /// Adds what no checkpoint holds, and refuses a description that contradicts the config.
    pub(super) fn geometry<const D: usize>(&self, desc: ConvDesc<D>) -> Result<ConvDesc<D>> {
        let axes = |axes: &Option<Axes>, usual: usize, what: &'static str| match axes {
            None => Ok([usual; D]),
            Some(axes) => axes.get::<D>().context(what),
        };
        let desc = desc.stride(axes(&self.stride, 1, "stride")?).dilation(axes(
            &self.dilation,
            1,
            "dilation",
        )?);
        let desc = self.padding.of(desc).context("padding")?;
        let output_padding = axes(&self.output_padding, 0, "output_padding")?;
        ensure!(
            self.transposed || output_padding == [0; D],
            "config: output_padding without transposed"
        );
        let desc = if self.transposed { desc.transposed(output_padding) } else { desc };
        let g = desc.geometry()?;
        let said = [
            ("kernels", self.kernels, g.kernels),
            ("groups", self.groups, g.groups),
            ("out_channels", self.out_channels, g.c_out),
        ];
        for (key, said, found) in said {
            if let Some(said) = said.filter(|&said| said != found) {
                bail!("config: {key} is {said}, but the tensors have {found}");
            }
        }
        if let Some(said) = &self.kernel_size {
            let said = said.get::<D>().context("kernel_size")?;
            ensure!(
                g.kernel[3 - D..] == said,
                "config: kernel_size is {said:?}, but the tensors have {:?}",
                g.kernel
            );
        }
        Ok(desc)
    }

    /// Kernel size and output channels, for weights that are stored flat.
    pub(super) fn flat<const D: usize>(&self) -> Result<([usize; D], usize)> {
        let kernel = self
            .kernel_size
            .as_ref()
            .context("config: no kernel_size, but the weights are stored flat")?;
        let c_out = self
            .out_channels
            .context("config: no out_channels, but the weights are stored flat")?;
        Ok((kernel.get().context("kernel_size")?, c_out))
    }
}
