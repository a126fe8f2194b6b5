//! A whole problem on one line: what a failure prints, and what `dynconv check --case` reads.

use std::fmt;
use std::str::FromStr;

use dynconv::Algorithm;
use dynconv::layers::{AnyLayer, WindowPool};
use dynconv::problem::MapAxis;
use dynconv::problem::{Geometry, Layout, Pooling, Sampling};
use dynconv::{Activation, ConvDesc, Elem, Winograd};

use crate::ops::Op;

/// What kind of layer is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// An ordinary convolution.
    Static,
    /// Attention given by the caller.
    Bank,
    /// A map of mixing weights given by the caller.
    Map(MapAxis),
    /// Kernels given by the caller.
    PerSample,
    /// DY-CNN.
    DyCnn,
    /// ODConv.
    OdConv,
    /// CondConv.
    CondConv,
    /// KernelWarehouse.
    Warehouse,
    /// Pixel mixture.
    PixelMix,
    /// Frequency dynamic convolution.
    Fdy,
    /// Modulated convolution with demodulation.
    Modulated,
    /// Modulated convolution without demodulation.
    Styled,
    /// Dynamic channel fusion.
    Dcd,
    /// Pooling in windows.
    Pool(Pooling),
    /// Attention from a context given by the caller.
    Contextual,
    /// Something else that convolves nothing.
    Op(Op),
}

impl Family {
    /// Whether the layer is several plans in a row, over two axes.
    #[must_use]
    pub fn is_chain(self) -> bool {
        matches!(self, Self::PixelMix | Self::Fdy | Self::Modulated | Self::Styled | Self::Dcd)
    }

    /// Whether the layer computes its attention from its input, and lets it be read.
    #[must_use]
    pub fn has_branch(self) -> bool {
        matches!(
            self,
            Self::DyCnn | Self::OdConv | Self::CondConv | Self::Warehouse | Self::Contextual
        )
    }

    /// Whether all that mixes or replaces its kernels is given by the caller, so that integers stay
    /// integers.
    #[must_use]
    pub fn is_given(self) -> bool {
        self.has_no_kernel()
            || matches!(self, Self::Static | Self::Bank | Self::Map(_) | Self::PerSample)
    }

    /// Whether it convolves nothing: it has no kernels, nor a choice of them.
    #[must_use]
    pub fn has_no_kernel(self) -> bool {
        matches!(self, Self::Pool(_) | Self::Op(_))
    }

    /// Whether it computes every channel from itself, which counts as a group each.
    #[must_use]
    pub fn has_channel_groups(self) -> bool {
        self.has_no_kernel() && !matches!(self, Self::Op(Op::Concat | Op::Gru))
    }

    /// Whether it mixes a bank of several kernels.
    #[must_use]
    pub fn has_bank(self) -> bool {
        !self.has_one_kernel() && self != Self::Warehouse
    }

    /// Whether there is one kernel and nothing to mix.
    #[must_use]
    pub fn has_one_kernel(self) -> bool {
        self == Self::Dcd
            || self.has_no_kernel()
            || matches!(self, Self::Static | Self::PerSample | Self::Modulated | Self::Styled)
    }

    /// Whether it can have a bias.
    #[must_use]
    pub fn takes_bias(self) -> bool {
        let has_none =
            matches!(self, Self::PerSample | Self::OdConv | Self::Modulated | Self::Styled);
        !(has_none || self == Self::Dcd || self.has_no_kernel())
    }

    /// Whether its convolution kernel can be chosen.
    #[must_use]
    pub fn takes_options(self) -> bool {
        !self.has_no_kernel()
    }

    /// Whether a scale and shift can follow.
    #[must_use]
    pub fn takes_affine(self) -> bool {
        self.takes_options() || self == Self::Op(Op::LayerNorm)
    }

    /// Whether an activation can follow.
    #[must_use]
    pub fn takes_activation(self) -> bool {
        match self {
            Self::Op(op) => op.takes_epilogue(),
            _ => self.takes_options(),
        }
    }

    /// Whether a residual can be added, and layouts be chosen.
    #[must_use]
    pub fn takes_residual(self) -> bool {
        matches!(self, Self::Pool(_)) || self.takes_activation()
    }

    /// Whether the mixing differs from position to position.
    #[must_use]
    pub fn mixes_positions(self) -> bool {
        matches!(self, Self::Map(_) | Self::PixelMix | Self::Fdy)
    }
}

/// What the planner is told of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limits {
    /// What the device says.
    #[default]
    Device,
    /// Bindings and grids as small as the problem allows: the batch runs in parts, dispatches fold.
    Tight,
    /// Loops as short as the problem allows: sums run in parts.
    Short,
    /// Loops as long as they like, whatever is known of the driver.
    Boundless,
}

/// A problem: a layer, its input, and the seed of all its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Kind of layer.
    pub family: Family,
    /// Samples.
    pub batch: usize,
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Input size, one number an axis.
    pub input: Vec<usize>,
    /// Kernel size.
    pub kernel: Vec<usize>,
    /// Stride.
    pub stride: Vec<usize>,
    /// Padding before and after, an axis.
    pub padding: Vec<[usize; 2]>,
    /// Dilation.
    pub dilation: Vec<usize>,
    /// Groups.
    pub groups: usize,
    /// Kernels in the bank; of a warehouse, its cells.
    pub kernels: usize,
    /// Output padding of a transposed convolution.
    pub transposed: Option<Vec<usize>>,
    /// Tiles of minimal filtering.
    pub winograd: Option<Winograd>,
    /// Convolution kernel.
    pub conv: Algorithm,
    /// What follows last.
    pub activation: Activation,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether a scale and shift follow.
    pub affine: bool,
    /// Whether a residual is added.
    pub residual: bool,
    /// Layouts of input and output.
    pub layouts: [Layout; 2],
    /// Element types of input, output and bank.
    pub elems: [Elem; 3],
    /// What the planner is told.
    pub limits: Limits,
    /// Elements before each tensor in its buffer.
    pub offset: usize,
    /// Seed of the numbers.
    pub seed: u64,
}

/// The slope below 0 of the suite's leaky ReLU; a power of two, so that integers stay exact.
const SLOPE: f32 = 0.25;

/// Activations by name, with the parameters that the suite uses.
pub const ACTIVATIONS: [(&str, Activation); 11] = [
    ("none", Activation::None),
    ("relu", Activation::Relu),
    ("relu6", Activation::Relu6),
    ("silu", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("hard_swish", Activation::HardSwish),
    ("hard_sigmoid", Activation::HardSigmoid),
    ("leaky_relu", Activation::LeakyRelu { slope: SLOPE }),
    ("star_relu", Activation::StarRelu { scale: 0.5, bias: -1.0 }),
    ("sigmoid", Activation::Sigmoid),
    ("tanh", Activation::Tanh),
];

/// Kinds of layer by name.
pub const FAMILIES: [(&str, Family); 31] = [
    ("static", Family::Static),
    ("bank", Family::Bank),
    ("map", Family::Map(MapAxis::All)),
    ("map0", Family::Map(MapAxis::One(0))),
    ("map1", Family::Map(MapAxis::One(1))),
    ("map2", Family::Map(MapAxis::One(2))),
    ("per_sample", Family::PerSample),
    ("dycnn", Family::DyCnn),
    ("odconv", Family::OdConv),
    ("condconv", Family::CondConv),
    ("warehouse", Family::Warehouse),
    ("pixelmix", Family::PixelMix),
    ("fdy", Family::Fdy),
    ("modulated", Family::Modulated),
    ("styled", Family::Styled),
    ("dcd", Family::Dcd),
    ("maxpool", Family::Pool(Pooling::Max)),
    ("meanpool", Family::Pool(Pooling::Mean)),
    ("padpool", Family::Pool(Pooling::MeanWithPadding)),
    ("contextual", Family::Contextual),
    ("gate", Family::Op(Op::Gate)),
    ("gate_positions", Family::Op(Op::GatePositions)),
    ("gate_axes", Family::Op(Op::GateAxes)),
    ("layer_norm", Family::Op(Op::LayerNorm)),
    ("nearest", Family::Op(Op::Resample(Sampling::Nearest))),
    ("linear", Family::Op(Op::Resample(Sampling::Linear))),
    ("reflection", Family::Op(Op::Resample(Sampling::Reflection))),
    ("edge", Family::Op(Op::Resample(Sampling::Edge))),
    ("concat", Family::Op(Op::Concat)),
    ("weighted_mean", Family::Op(Op::WeightedMean)),
    ("gru", Family::Op(Op::Gru)),
];

const LAYOUTS: [(&str, Layout); 2] =
    [("nchw", Layout::ChannelsFirst), ("nhwc", Layout::ChannelsLast)];

const ELEMS: [(&str, Elem); 4] = [
    ("f32", Elem::F32),
    ("f16", Elem::F16),
    ("f16_storage", Elem::F16Storage),
    ("bf16_storage", Elem::Bf16Storage),
];

const WINOGRADS: [(&str, Option<Winograd>); 2] =
    [("f2", Some(Winograd::F2)), ("f4", Some(Winograd::F4))];

const LIMITS: [(&str, Limits); 4] = [
    ("device", Limits::Device),
    ("tight", Limits::Tight),
    ("short", Limits::Short),
    ("boundless", Limits::Boundless),
];

/// Names of the words of a problem, in the order in which they are printed.
pub const WORDS: [&str; 19] = [
    "batch",
    "channels",
    "input",
    "kernel",
    "stride",
    "padding",
    "dilation",
    "groups",
    "kernels",
    "transposed",
    "winograd",
    "conv",
    "activation",
    "with",
    "layouts",
    "elems",
    "limits",
    "offset",
    "seed",
];

/// Elements of a tensor at most, 512 MiB of them in f32: the host has several copies of each.
pub const MOST_ELEMENTS: u128 = 1 << 27;
/// The largest offset of a tensor in its buffer, in elements.
const MOST_OFFSET: u128 = 1 << 20;
/// The largest seed; laws count on from it.
const MOST_SEED: u128 = u32::MAX as u128;

/// A line that is no problem.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A word that says nothing.
    #[error("\"{word}\": expected {expected}")]
    Word {
        /// The word.
        word: String,
        /// What could stand there.
        expected: String,
    },
    /// Something that every problem must say.
    #[error("the problem does not say its {0}")]
    Missing(&'static str),
    /// A word that stands twice.
    #[error("\"{0}\": expected every word once")]
    Twice(String),
    /// More than a run on this host could hold.
    #[error("too large: {what}: expected at most {most}, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it can be.
        most: u128,
        /// How large it is.
        found: u128,
    },
    /// A problem that no device could compute.
    #[error("impossible: {0}")]
    Impossible(dynconv::Error),
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, v)| v == value).map_or("?", |(name, _)| name)
}

fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Result<T, SpecError> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
        SpecError::Word {
            word: word.into(),
            expected: table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        }
    })
}

fn number<T: FromStr>(word: &str) -> Result<T, SpecError> {
    let is_long = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let expected = if is_long { "a number of at most 64 bits" } else { "a number" };
    word.parse().map_err(|_| SpecError::Word { word: word.into(), expected: expected.into() })
}

/// Numbers with an `x` between them.
fn sizes(word: &str) -> Result<Vec<usize>, SpecError> {
    word.split('x').map(number).collect()
}

/// Paddings with an `x` between them, each one number or `before:after`.
fn paddings(word: &str) -> Result<Vec<[usize; 2]>, SpecError> {
    let sides = |part: &str| match part.split_once(':') {
        None => number(part).map(|n| [n; 2]),
        Some((before, after)) => Ok([number(before)?, number(after)?]),
    };
    word.split('x').map(sides).collect()
}

/// What is said once is meant for every axis.
fn spread<T: Copy>(values: Vec<T>, axes: usize) -> Vec<T> {
    if let [value] = values[..] { vec![value; axes] } else { values }
}

/// The product of sizes; no product of sizes that fit memory reaches the largest number.
fn product(sizes: impl IntoIterator<Item = usize>) -> u128 {
    sizes.into_iter().fold(1, |product, size| product.saturating_mul(size as u128))
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

impl Spec {
    /// A dense convolution with nothing special about it.
    #[must_use]
    pub fn new(
        family: Family,
        batch: usize,
        channels: [usize; 2],
        input: &[usize],
        kernel: &[usize],
    ) -> Self {
        let axes = input.len();
        Self {
            family,
            batch,
            channels,
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            stride: vec![1; axes],
            padding: vec![[0; 2]; axes],
            dilation: vec![1; axes],
            groups: 1,
            kernels: 1,
            transposed: None,
            winograd: None,
            conv: Algorithm::Auto,
            activation: Activation::None,
            bias: false,
            affine: false,
            residual: false,
            layouts: [Layout::ChannelsFirst; 2],
            elems: [Elem::F32; 3],
            limits: Limits::Device,
            offset: 0,
            seed: 1,
        }
    }

    /// The description of its convolution.
    ///
    /// # Errors
    /// [`dynconv::Error::Shape`] unless every list has `D` numbers.
    pub fn desc<const D: usize>(&self) -> dynconv::Result<ConvDesc<D>> {
        let axes = |what: &str, values: &[usize]| -> dynconv::Result<[usize; D]> {
            values.try_into().map_err(|_| dynconv::Error::Shape {
                what: format!("axes of the {what}"),
                expected: D.to_string(),
                found: values.len().to_string(),
            })
        };
        let [before, after] = [0, 1].map(|side| {
            axes("padding", &self.padding.iter().map(|sides| sides[side]).collect::<Vec<_>>())
        });
        let (before, after) = (before?, after?);
        let mut desc =
            ConvDesc::new(self.channels[0], self.channels[1], axes("kernel", &self.kernel)?)
                .kernels(if self.family == Family::Warehouse { 1 } else { self.kernels })
                .stride(axes("stride", &self.stride)?)
                .padding_sides(std::array::from_fn(|axis| [before[axis], after[axis]]))
                .dilation(axes("dilation", &self.dilation)?)
                .groups(self.groups)
                .bank_elem(self.elems[2]);
        if let Some(output_padding) = &self.transposed {
            desc = desc.transposed(axes("output padding", output_padding)?);
        }
        Ok(self.winograd.map_or(desc, |winograd| desc.winograd(winograd)))
    }

    /// Its geometry over three axes.
    ///
    /// # Errors
    /// As [`ConvDesc::geometry`].
    pub fn geometry(&self) -> dynconv::Result<Geometry> {
        match self.input.len() {
            1 => self.desc::<1>()?.geometry(),
            2 => self.desc::<2>()?.geometry(),
            _ => self.desc::<3>()?.geometry(),
        }
    }

    /// Input size over three axes.
    #[must_use]
    pub fn input3(&self) -> [usize; 3] {
        let mut size = [1; 3];
        // A problem of more than three axes is refused with its description.
        for (to, from) in size.iter_mut().rev().zip(self.input.iter().rev()) {
            *to = *from;
        }
        size
    }

    /// The same problem for one sample.
    #[must_use]
    pub fn single(&self) -> Self {
        Self { batch: 1, ..self.clone() }
    }

    /// Whether nothing stands between the sum and the output but what is linear.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.activation == Activation::None
    }

    /// Whether integers stay integers (or halves) to the end.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        use Activation::{LeakyRelu, None, Relu, Relu6, StarRelu};
        matches!(self.activation, None | Relu | Relu6 | LeakyRelu { .. } | StarRelu { .. })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} batch={} channels={}",
            name_of(&FAMILIES, &self.family),
            self.batch,
            joined(&self.channels)
        )?;
        write!(f, " input={} kernel={}", joined(&self.input), joined(&self.kernel))?;
        let plain = Self::new(self.family, self.batch, self.channels, &self.input, &self.kernel);
        let sides = |[before, after]: &[usize; 2]| {
            if before == after { before.to_string() } else { format!("{before}:{after}") }
        };
        let with: Vec<&str> =
            [("bias", self.bias), ("affine", self.affine), ("residual", self.residual)]
                .into_iter()
                .filter_map(|(name, is_there)| is_there.then_some(name))
                .collect();
        let layouts = self.layouts.map(|layout| name_of(&LAYOUTS, &layout));
        let elems = self.elems.map(|elem| name_of(&ELEMS, &elem));
        let words = [
            ("stride", self.stride != plain.stride, joined(&self.stride)),
            (
                "padding",
                self.padding != plain.padding,
                joined(&self.padding.iter().map(sides).collect::<Vec<_>>()),
            ),
            ("dilation", self.dilation != plain.dilation, joined(&self.dilation)),
            ("groups", self.groups != 1, self.groups.to_string()),
            ("kernels", self.kernels != 1, self.kernels.to_string()),
            (
                "transposed",
                self.transposed.is_some(),
                self.transposed.as_deref().map(joined).unwrap_or_default(),
            ),
            ("winograd", self.winograd.is_some(), name_of(&WINOGRADS, &self.winograd).into()),
            ("conv", self.conv != plain.conv, self.conv.name().into()),
            (
                "activation",
                self.activation != plain.activation,
                name_of(&ACTIVATIONS, &self.activation).into(),
            ),
            ("with", !with.is_empty(), with.join("+")),
            ("layouts", self.layouts != plain.layouts, layouts.join(",")),
            ("elems", self.elems != plain.elems, elems.join(",")),
            ("limits", self.limits != plain.limits, name_of(&LIMITS, &self.limits).into()),
            ("offset", self.offset != 0, self.offset.to_string()),
            ("seed", self.seed != plain.seed, self.seed.to_string()),
        ];
        for (name, _, value) in words.iter().filter(|(_, differs, _)| *differs) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(line: &str) -> Result<Self, SpecError> {
        let (family, words) =
            line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        if family.is_empty() {
            return Err(SpecError::Missing("kind of layer"));
        }
        Self::read(find(&FAMILIES, family)?, words, &WORDS, &[])
    }
}

impl Spec {
    /// Reads a problem from its words `name=value`. Only the words of `known` may stand there;
    /// `defaults` has those that need not. Whether the problem is possible is another question:
    /// [`Spec::check`].
    ///
    /// # Errors
    /// [`SpecError`] for a word that says nothing, stands twice or is missing.
    pub fn read(
        family: Family,
        words: &str,
        known: &[&str],
        defaults: &[(&'static str, &'static str)],
    ) -> Result<Self, SpecError> {
        let wrong = |word: &str, expected: &str| SpecError::Word {
            word: word.into(),
            expected: expected.into(),
        };
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| wrong(word, "name=value"))?;
            if !known.contains(&name) {
                return Err(wrong(name, &known.join(", ")));
            }
            if pairs.iter().any(|(said, _)| *said == name) {
                return Err(SpecError::Twice(name.into()));
            }
            pairs.push((name, value));
        }
        let needed = |name: &'static str| {
            let found = pairs.iter().chain(defaults).find(|(found, _)| *found == name);
            found.map(|(_, value)| *value).ok_or(SpecError::Missing(name))
        };
        let channels = sizes(needed("channels")?)?;
        let Ok(channels) = <[usize; 2]>::try_from(channels) else {
            return Err(wrong(needed("channels")?, "two numbers"));
        };
        let (input, kernel) = (sizes(needed("input")?)?, sizes(needed("kernel")?)?);
        let mut spec = Self::new(family, number(needed("batch")?)?, channels, &input, &kernel);
        let unsaid = defaults.iter().filter(|(name, _)| pairs.iter().all(|(said, _)| said != name));
        for (name, value) in pairs.iter().chain(unsaid) {
            spec.set(name, value)?;
        }
        Ok(spec)
    }

    /// Refuses a problem that no device could compute, or whose numbers this host could not hold.
    ///
    /// # Errors
    /// [`SpecError::TooLarge`] and [`SpecError::Impossible`], with the library's words.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_sizes().map_err(SpecError::Impossible)?;
        let impossible = SpecError::Impossible;
        let g = self.geometry().map_err(impossible)?;
        self.check_step().map_err(impossible)?;
        let output = g.output_size(self.input3()).map_err(impossible)?;
        let [c_in, c_out, kernels, batch] = [g.c_in, g.c_out, g.kernels, self.batch];
        let weights = product([c_out, c_in / g.groups, g.taps()]);
        let given = match self.family {
            Family::Map(MapAxis::All) => product(output).saturating_mul(kernels as u128),
            Family::PerSample => weights,
            _ => 0,
        };
        // A branch squeezes the channels to a quarter or less, but not below 16, and has a head for
        // each kind of gain.
        let widest = c_in.max(c_out).max(kernels).max(g.taps());
        let branch = match self.family {
            Family::Dcd => product([c_out / 4 + 2, c_out / 4 + 2, c_in / 4 + 2]),
            family if family.is_given() => 0,
            _ => product([c_in / 4 + 16, widest]),
        };
        let counts = [
            (
                "elements of the input",
                product(self.input.iter().copied().chain([batch, c_in])),
                MOST_ELEMENTS,
            ),
            (
                "elements of the output",
                product(output.into_iter().chain([batch, c_out])),
                MOST_ELEMENTS,
            ),
            (
                "elements of all kernels",
                weights.saturating_mul(self.kernels as u128),
                MOST_ELEMENTS,
            ),
            ("elements given by the caller", given.saturating_mul(batch as u128), MOST_ELEMENTS),
            ("weights of the attention", branch, MOST_ELEMENTS),
            ("offset", self.offset as u128, MOST_OFFSET),
            ("seed", self.seed.into(), MOST_SEED),
        ];
        match counts.into_iter().find(|(_, found, most)| found > most) {
            None => Ok(()),
            Some((what, found, most)) => Err(SpecError::TooLarge { what, most, found }),
        }
    }

    /// Refuses what is no pool or other step, as the layer does.
    fn check_step(&self) -> dynconv::Result<()> {
        let pooling = match self.family {
            Family::Pool(pooling) => pooling,
            Family::Op(op) => {
                let (layer, shape) = op.planned(self)?;
                return self.check_output(&layer.output_shape(&shape)?);
            }
            _ => return Ok(()),
        };
        let context = crate::variants::noop();
        let shape = [&[self.batch, self.channels[0]], &self.input[..]].concat();
        match self.input.len() {
            1 => WindowPool::new(&context, &self.desc::<1>()?, pooling)?.output_shape(&shape),
            2 => WindowPool::new(&context, &self.desc::<2>()?, pooling)?.output_shape(&shape),
            _ => WindowPool::new(&context, &self.desc::<3>()?, pooling)?.output_shape(&shape),
        }
        .map(drop)
    }

    /// Refuses a layer whose output has another size than the description says.
    fn check_output(&self, found: &[usize]) -> dynconv::Result<()> {
        let size = self.geometry()?.output_size(self.input3())?;
        let spatial = &size[3 - self.input.len().min(3)..];
        let expected = [&[self.batch, self.channels[1]], spatial].concat();
        if found == expected {
            return Ok(());
        }
        Err(dynconv::Error::Shape {
            what: "output of the layer".into(),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
        })
    }

    /// Refuses an empty batch, and lists that have not one number for each of one to three axes.
    fn check_sizes(&self) -> dynconv::Result<()> {
        let refuse = |what: String, expected: String, found: usize| {
            Err(dynconv::Error::Shape { what, expected, found: found.to_string() })
        };
        if self.batch == 0 {
            return refuse("batch".into(), "at least 1".into(), 0);
        }
        let axes = self.input.len();
        if axes > 3 {
            return refuse("axes of the input".into(), "1 to 3".into(), axes);
        }
        let output_padding = self.transposed.as_ref().map_or(axes, Vec::len);
        let lists = [
            ("kernel", self.kernel.len()),
            ("stride", self.stride.len()),
            ("padding", self.padding.len()),
            ("dilation", self.dilation.len()),
            ("output padding", output_padding),
        ];
        match lists.into_iter().find(|(_, len)| *len != axes) {
            None => Ok(()),
            Some((what, len)) => {
                refuse(format!("axes of the {what}"), format!("{axes}, as of the input"), len)
            }
        }
    }
}

impl Spec {
    /// Takes one `name=value`.
    fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        let list = |expected| SpecError::Word { word: value.into(), expected };
        let axes = self.input.len();
        match name {
            "batch" | "channels" | "input" | "kernel" => {}
            "stride" => self.stride = spread(sizes(value)?, axes),
            "padding" => self.padding = spread(paddings(value)?, axes),
            "dilation" => self.dilation = spread(sizes(value)?, axes),
            "groups" => self.groups = number(value)?,
            "kernels" => self.kernels = number(value)?,
            "transposed" => self.transposed = Some(spread(sizes(value)?, axes)),
            "winograd" => self.winograd = find(&WINOGRADS, value)?,
            "conv" => {
                self.conv = {
                    let names: Vec<_> =
                        Algorithm::ALL.iter().map(|conv| (conv.name(), *conv)).collect();
                    find(&names, value)?
                }
            }
            "activation" => self.activation = find(&ACTIVATIONS, value)?,
            "with" => {
                for part in value.split('+') {
                    let has = match find(&[("bias", 0), ("affine", 1), ("residual", 2)], part)? {
                        0 => &mut self.bias,
                        1 => &mut self.affine,
                        _ => &mut self.residual,
                    };
                    if std::mem::replace(has, true) {
                        return Err(SpecError::Twice(part.into()));
                    }
                }
            }
            "layouts" => {
                let all: Vec<Layout> =
                    value.split(',').map(|word| find(&LAYOUTS, word)).collect::<Result<_, _>>()?;
                self.layouts = all.try_into().map_err(|_| list("two layouts".into()))?;
            }
            "elems" => {
                let all: Vec<Elem> =
                    value.split(',').map(|word| find(&ELEMS, word)).collect::<Result<_, _>>()?;
                self.elems = all.try_into().map_err(|_| list("three element types".into()))?;
            }
            "limits" => self.limits = find(&LIMITS, value)?,
            "offset" => self.offset = number(value)?,
            "seed" => self.seed = number(value)?,
            _ => return Err(SpecError::Word { word: name.into(), expected: WORDS.join(", ") }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_whole_problem() {
        let line = "odconv batch=2 channels=4x6 input=7x9 kernel=3x2 stride=2x1 padding=1:0x2 \
                    dilation=1x2 groups=2 kernels=4 transposed=1x0 conv=tiled activation=relu \
                    with=bias+residual layouts=nhwc,nchw elems=f16,f32,bf16_storage \
                    limits=tight offset=3 seed=99";
        let spec: Spec = line.parse().expect("parses");
        assert_eq!(spec.to_string(), line);
        assert_eq!(spec.padding, [[1, 0], [2, 2]]);
        assert!(spec.bias && spec.residual && !spec.affine);
        let plain = "static batch=1 channels=1x1 input=5 kernel=1";
        assert_eq!(plain.parse::<Spec>().expect("parses").to_string(), plain);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let message = |line: &str| line.parse::<Spec>().expect_err("is wrong").to_string();
        assert_eq!(
            message("bank batch=1 channels=1x1 kernel=3x3"),
            "the problem does not say its input"
        );
        assert!(message("blank").starts_with("\"blank\": expected static, bank"));
        assert_eq!(
            message("bank batch=two channels=1x1 input=3 kernel=3"),
            "\"two\": expected a number"
        );
        let rest = "bank batch=1 channels=1x1 input=3 kernel=3";
        assert!(
            message(&format!("{rest} sride=2"))
                .starts_with("\"sride\": expected batch, channels, ")
        );
        assert_eq!(message(&format!("{rest} seed=2 seed=2")), "\"seed\": expected every word once");
        assert_eq!(
            message(&format!("{rest} with=bias+bias")),
            "\"bias\": expected every word once"
        );
        assert!(
            message(&format!("{rest} offset=99999999999999999999"))
                .ends_with("a number of at most 64 bits")
        );
        assert_eq!(message(" "), "the problem does not say its kind of layer");
        assert!(
            message("bank batch=1 channels=1x1 input=3 kernel=3 with=bios")
                .contains("bias, affine, residual")
        );
    }

    #[test]
    fn a_single_number_is_meant_for_every_axis() {
        let spread: Spec = "bank batch=1 channels=1x1 input=9x9 kernel=3x3 padding=1:0 \
                            stride=2 dilation=2 transposed=1"
            .parse()
            .expect("parses");
        let whole = "bank batch=1 channels=1x1 input=9x9 kernel=3x3 stride=2x2 padding=1:0x1:0 \
                     dilation=2x2 transposed=1x1";
        assert_eq!(spread.to_string(), whole);
        assert_eq!(whole.parse::<Spec>().expect("parses"), spread);
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_bound() {
        let message = |line: &str| {
            line.parse::<Spec>().expect("parses").check().expect_err("is too large").to_string()
        };
        let all = [
            (
                "bank batch=1 channels=99999999999x3 input=3 kernel=3",
                "is 99999999999, more than the 4294967295",
            ),
            (
                "bank batch=1 channels=1x1 input=4000000000x4000000000 kernel=3x3",
                "elements of the input: expected at most",
            ),
            (
                "bank batch=18446744073709551615 channels=1x1 input=8 kernel=3",
                "elements of the input: expected at most",
            ),
            (
                "bank batch=1 channels=1x1 input=1 kernel=1 padding=4000000000",
                "elements of the output: expected at most",
            ),
            (
                "bank batch=1 channels=1x1 input=3 kernel=3 kernels=1000000000000",
                "is 1000000000000, more than the 4294967295",
            ),
            (
                "bank batch=1 channels=1x1 input=3 kernel=3 kernels=1000000000",
                "elements of all kernels: expected at most",
            ),
            (
                "map batch=9 channels=1x1 input=99999 kernel=3 kernels=999",
                "elements given by the caller: expected at most",
            ),
            (
                "per_sample batch=99999 channels=99x99 input=3 kernel=3",
                "elements given by the caller: expected at most",
            ),
            (
                "dycnn batch=1 channels=99999x1 input=3 kernel=3",
                "weights of the attention: expected at most 134217728",
            ),
            (
                "odconv batch=1 channels=1x99999999 input=1 kernel=1",
                "weights of the attention: expected at most 134217728",
            ),
            (
                "dcd batch=1 channels=1x99999 input=2x2 kernel=1x1",
                "weights of the attention: expected at most 134217728",
            ),
            (
                "bank batch=1 channels=1x1 input=3 kernel=3 offset=1000000000000000000",
                "offset: expected at most 1048576",
            ),
            (
                "bank batch=1 channels=1x1 input=3 kernel=3 seed=18446744073709551615",
                "seed: expected at most 4294967295",
            ),
        ];
        for (line, expected) in all {
            assert!(message(line).contains(expected), "{line}: {}", message(line));
        }
    }
}
