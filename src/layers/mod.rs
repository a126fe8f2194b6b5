//! Layers: weights on the device, bound to tensors, recorded into a command encoder.

mod cond_conv;
mod contextual;
mod dcd;
mod dy_cnn;
mod gate;
mod gru;
mod kernel_warehouse;
mod layer_norm;
mod map_conv;
#[cfg(not(target_arch = "wasm32"))]
mod matrices;
mod modulated;
mod od_conv;
mod per_sample;
mod pool;
mod resample;
mod softmax;
mod ways;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

pub use cond_conv::{CondConv, CondConvWeights, Routing};
pub use contextual::Contextual;
pub use dcd::{Dcd2d, DcdWeights};
pub use dy_cnn::{DyCnn, DyCnnWeights, TemperatureSchedule};
pub use gate::{Gains, Gate};
pub use gru::{Gru, GruWeights};
pub use kernel_warehouse::{KernelWarehouse, KernelWarehouseWeights, Warehouse};
pub use layer_norm::LayerNorm;
pub use map_conv::{FdyConv2d, FdyWeights, PixelMix2d, PixelMixWeights};
pub use modulated::ModulatedConv2d;
pub use od_conv::{BatchNorm, Linear, Od, OdWeights, published_heads};
pub use per_sample::PerSample;
pub use pool::{AxisPool, GlobalPool, WindowPool, global_average_pool};
pub use resample::{Resample, concatenated};
pub use softmax::{Softmax, WeightedMean};
use ways::ways;
pub use ways::{AnyLayer, Io};

use crate::device::{Bound, Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result, check_finite, check_len, elements};
use crate::kernels::Value;
use crate::kernels::conv::ConvValues;
use crate::problem::{
    Activation, Algorithm, AttentionSource, Branch, ConvDesc, Epilogue, Geometry, Layout, Parts,
    Problem, WeightOrder, pad_axes,
};
use crate::program::{OfChannels, Operands, Plan, Weights};
use crate::reference::narrow;
#[cfg(not(target_arch = "wasm32"))]
use crate::tune::{Tuned, tune};

/// Kind of layer without attention: an ordinary convolution.
#[derive(Clone, Copy, Debug)]
pub struct Static;

/// Kind of layer whose attention the caller gives.
#[derive(Clone, Copy, Debug)]
pub struct Given;

/// Kind of layer whose kernels are mixed at every position, by a map that the caller gives.
#[derive(Clone, Copy, Debug)]
pub struct Map;

/// Kinds of layer that need nothing but their input.
pub trait OwnAttention: sealed::Sealed + fmt::Debug + Send + Sync {}
impl OwnAttention for Static {}
impl OwnAttention for DyCnn {}
impl OwnAttention for Od {}
impl OwnAttention for CondConv {}
impl OwnAttention for KernelWarehouse {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Static {}
    impl Sealed for super::DyCnn {}
    impl Sealed for super::Od {}
    impl Sealed for super::CondConv {}
    impl Sealed for super::KernelWarehouse {}
}

/// A convolution layer over `D` axes, its weights on the device. `A` is where its kernels come
/// from: [`Static`], [`Given`], [`Map`], [`PerSample`], [`DyCnn`], [`Od`], [`CondConv`] or
/// [`KernelWarehouse`].
///
/// A layer is used in three ways. [`run`](Layer::run) takes host data and gives host data back.
/// [`forward`](Layer::forward) takes a tensor and submits for you. [`bind`](Layer::bind) checks
/// everything once, makes all pipelines, bind groups and scratch memory, and gives a [`Bound`] that
/// records into your encoder as often as you like.
///
/// # Changing weights
///
/// `set_weights` and `set_temperature` put new values where the old ones are: same shapes, no new
/// pipeline, no new buffer. They hold for the layer, its clones and everything that was bound from
/// them. The values are written through the queue, in its order: what was submitted before
/// computes with the old ones, what is submitted afterwards with the new ones, also where it was
/// recorded before. A layer has several tensors, written one after another: what another thread
/// submits meanwhile may see some of the new values only.
#[derive(Clone)]
pub struct Layer<const D: usize, A> {
    context: Context,
    geometry: Geometry,
    attention: AttentionSource,
    has_bias: bool,
    epilogue: Epilogue,
    layouts: [Layout; 2],
    algorithm: Algorithm,
    order: WeightOrder,
    weights: Weights<Tensor>,
    kind: PhantomData<A>,
}

/// Ordinary 2-D convolution: one kernel for all samples.
pub type StaticConv2d = Layer<2, Static>;
/// 2-D convolution with a kernel bank, mixed by attention that the caller gives.
pub type BankConv2d = Layer<2, Given>;
/// 2-D dynamic convolution (DY-CNN): see [`DyCnn`].
pub type DynConv2d = Layer<2, DyCnn>;
/// 2-D omni-dimensional dynamic convolution (ODConv): see [`Od`].
pub type OdConv2d = Layer<2, Od>;
/// 2-D convolution with a kernel of its own for each sample, given by the caller.
pub type PerSampleConv2d = Layer<2, PerSample>;
/// 2-D CondConv: see [`CondConv`].
pub type CondConv2d = Layer<2, CondConv>;
/// 2-D KernelWarehouse layer: see [`KernelWarehouse`].
pub type KernelWarehouse2d = Layer<2, KernelWarehouse>;
/// 2-D convolution with a kernel bank, mixed at every position by a map that the caller gives.
pub type MapConv2d = Layer<2, Map>;

impl<const D: usize, A> fmt::Debug for Layer<D, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = std::any::type_name::<A>().rsplit("::").next().unwrap_or_default();
        let weights: BTreeMap<_, _> =
            self.weights.as_ref().named().map(|(name, tensor)| (name, Size(tensor))).collect();
        f.debug_struct(&format!("Layer<{D}, {kind}>"))
            .field("geometry", &self.geometry)
            .field("attention", &self.attention)
            .field("has_bias", &self.has_bias)
            .field("epilogue", &self.epilogue)
            .field("layouts", &self.layouts)
            .field("algorithm", &self.algorithm)
            .field("order", &self.order)
            .field("weights", &weights)
            .field("context", self.context.home())
            .finish()
    }
}

/// Weights by their size.
struct Size<'a>(&'a Tensor);

impl fmt::Debug for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", elements(self.0.len()), self.0.elem())
    }
}

impl<const D: usize, A> Layer<D, A> {
    /// A layer without weights.
    fn empty(
        context: &Context,
        desc: &ConvDesc<D>,
        attention: AttentionSource,
        has_bias: bool,
    ) -> Result<Self> {
        Ok(Self {
            context: context.clone(),
            geometry: desc.geometry()?,
            attention,
            has_bias,
            epilogue: Epilogue::default(),
            layouts: [Layout::default(); 2],
            algorithm: Algorithm::Auto,
            order: WeightOrder::Plain,
            weights: Weights::default(),
            kind: PhantomData,
        })
    }

    /// What a layer that computes each channel from itself shares with convolutions.
    fn of_channels(context: &Context, desc: &ConvDesc<D>) -> Result<Self> {
        Self::empty(context, desc, AttentionSource::Static, false)
    }

    /// Adds the steps of such a layer to a program. Weights are bound, and not read.
    fn lower_channels(
        &self,
        builder: &mut Builder,
        io: Io<'_>,
        of: OfChannels,
    ) -> Result<Option<Value>> {
        let Io { x, residual, y, .. } = io;
        let mut problem = self.problem_on(builder, io)?;
        problem.geometry = problem.geometry.at(problem.input);
        if let Some(residual) = residual {
            check_elem("residual", builder.info(residual)?.elem, problem.elems[1])?;
        }
        let affine = self.weights.affine.as_ref();
        let affine = affine.map(|affine| builder.tensor("scale and shift", affine));
        let values = ConvValues { x, weights: x, gains: None, affine, residual, partials: None, y };
        let output = problem.geometry.output_size(problem.input)?;
        pool::push_channels(builder, problem, output, of, values)?;
        Ok(None)
    }

    /// A layer with its bank.
    fn create(
        context: &Context,
        desc: &ConvDesc<D>,
        attention: AttentionSource,
        bank: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let mut layer = Self::empty(context, desc, attention, bias.is_some())?;
        layer.order = WeightOrder::of_bank(&layer.geometry, context.caps());
        layer.fix(layer.banks(bank, bias)?)?;
        Ok(layer)
    }

    /// A bank and its bias as the layer keeps them. Layers that share one kernel, or one bank in
    /// every sample, keep both as one row.
    fn banks(&self, bank: &[f32], bias: Option<&[f32]>) -> Result<Weights<Vec<f32>>> {
        let geometry = &self.geometry;
        check_len("kernel bank", bank, geometry.kernels * geometry.weights())?;
        check_finite("kernel bank", bank)?;
        let bias = self.bias_bank(bias)?;
        let bank = geometry.kept(geometry.bank_rows(bank), self.order);
        let problem = self.problem(1, [1; 3]);
        if !problem.shares_kernel() {
            return Ok(Weights { bank: Some(bank), bias, ..Weights::default() });
        }
        let mut row = bank;
        row.extend(bias.unwrap_or_default());
        row.resize(row.len().max(problem.row()), 0.0);
        Ok(Weights { shared: Some(row), ..Weights::default() })
    }

    /// The bias bank, checked.
    fn bias_bank(&self, bias: Option<&[f32]>) -> Result<Option<Vec<f32>>> {
        if self.has_bias != bias.is_some() {
            let word = |has| if has { "one" } else { "none" }.to_string();
            let what = "bias bank of the new weights".into();
            return Err(Error::Shape {
                what,
                expected: word(self.has_bias),
                found: word(bias.is_some()),
            });
        }
        let Some(bias) = bias else { return Ok(None) };
        check_len("bias bank", bias, self.geometry.kernels * self.geometry.c_out)?;
        check_finite("bias bank", bias)?;
        Ok(Some(bias.to_vec()))
    }

    /// Uploads weights.
    fn fix(&mut self, values: Weights<Vec<f32>>) -> Result<()> {
        let (context, bank) = (&self.context, self.geometry.bank);
        let upload = |name: &'static str, values: Vec<f32>, elem| {
            Tensor::filled(context, name, &[values.len()], &values, elem)
        };
        let banks = values.bank.map(|values| upload("kernel bank", values, bank)).transpose()?;
        let rest = Weights { bank: None, ..values };
        let rest = rest.map(|name, values| upload(name, values, Elem::F32))?;
        self.weights = Weights { bank: banks, ..rest }.or(std::mem::take(&mut self.weights));
        Ok(())
    }

    /// New values for weights that the layer has. All of them are looked at before any is written.
    fn replacing(&self, values: Weights<Vec<f32>>) -> Result<Vec<(&Tensor, Vec<f32>)>> {
        let mut replaced = Vec::new();
        for (name, tensor, values) in self.weights.as_ref().beside(values) {
            match (tensor, values) {
                (_, None) => {}
                (Some(tensor), Some(values)) if tensor.len() == values.len() => {
                    replaced.push((tensor, values));
                }
                (held, Some(values)) => {
                    return Err(Error::Shape {
                        what: format!("new {name}"),
                        expected: format!("{} elements", held.map_or(0, Tensor::len)),
                        found: values.len().to_string(),
                    });
                }
            }
        }
        Ok(replaced)
    }

    fn replace(&self, values: Weights<Vec<f32>>) -> Result<()> {
        write_all(&self.context, self.replacing(values)?)
    }

    /// Refuses new weights whose attention has other heads or another hidden width.
    fn check_branch(&self, branch: &Branch) -> Result<()> {
        match &self.attention {
            AttentionSource::Branch(own) if own != branch => Err(Error::Shape {
                what: "attention of the new weights".into(),
                expected: own.to_string(),
                found: branch.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn problem(&self, batch: usize, input: [usize; 3]) -> Problem {
        Problem {
            attention: self.attention,
            has_bias: self.has_bias,
            epilogue: self.epilogue,
            layouts: self.layouts,
            algorithm: self.algorithm,
            order: self.order,
            ..Problem::new(self.geometry, batch, input)
        }
    }

    /// Multiplies each output channel by `scale` and adds `shift`, after the bias and before the
    /// activation: a folded batch norm.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both have one finite number an output channel.
    pub fn scale_shift(mut self, scale: &[f32], shift: &[f32]) -> Result<Self> {
        for (what, values) in [("scale", scale), ("shift", shift)] {
            check_len(what, values, self.geometry.c_out)?;
            check_finite(what, values)?;
        }
        let affine = Some([scale, shift].concat());
        self.fix(Weights { affine, ..Weights::default() })?;
        self.epilogue.affine = true;
        Ok(self)
    }

    /// A batch norm after the bias and before the activation: [`Layer::scale_shift`] with its
    /// scale and shift, which are computed in f64.
    ///
    /// # Errors
    /// As [`BatchNorm::scale_shift`] and [`Layer::scale_shift`].
    pub fn batch_norm(self, norm: &BatchNorm) -> Result<Self> {
        let (scale, shift) = norm.scale_shift(self.geometry.c_out)?;
        self.scale_shift(&narrow(&scale), &narrow(&shift))
    }

    /// Applies an activation last.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.epilogue.activation = activation;
        self
    }

    /// Chooses how input and output (and residual) lie in memory.
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.layouts = [input, output];
        self
    }

    /// Chooses the convolution kernel instead of the planner.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// What would run for this batch and input size, for f32 tensors.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, batch: usize, input: [usize; D]) -> Result<Plan> {
        self.context.plan(&self.problem(batch, pad_axes(input, 1)))
    }

    /// Measures, on this layer's device, which convolution kernel is the fastest for f32 tensors of
    /// this input size: see [`tune()`](crate::tune::tune()). `batch` is what is measured; what
    /// comes of it holds for every batch. For other element types, call it with the
    /// [`problem`](Plan::problem) of [`Layer::plan`] and `elems` of your own.
    ///
    /// # Errors
    /// As [`tune()`](crate::tune::tune()).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tune(&self, batch: usize, input: [usize; D]) -> Result<Tuned> {
        tune(&self.context, &self.problem(batch, pad_axes(input, 1)))
    }

    /// Shape of the output for an input of this shape: `[batch, channels, spatial..]`, or with the
    /// channels last.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input does not fit the layer.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let (batch, size) = self.split_shape(input)?;
        let out = self.geometry.output_size(size)?;
        Ok(self.layouts[1].shape(batch, self.geometry.c_out, &out[3 - D..]))
    }

    /// Batch and spatial size of an input shape.
    fn split_shape(&self, shape: &[usize]) -> Result<(usize, [usize; 3])> {
        let c_in = self.geometry.c_in;
        let spatial = match (shape, self.layouts[0]) {
            ([_, channels, spatial @ ..], Layout::ChannelsFirst) if *channels == c_in => {
                spatial.try_into().ok()
            }
            ([_, spatial @ .., channels], Layout::ChannelsLast) if *channels == c_in => {
                spatial.try_into().ok()
            }
            _ => None,
        };
        let spatial: [usize; D] = spatial.ok_or_else(|| Error::Shape {
            what: "input".into(),
            expected: match self.layouts[0] {
                Layout::ChannelsFirst => format!("[batch, {c_in}, {D} spatial sizes]"),
                Layout::ChannelsLast => format!("[batch, {D} spatial sizes, {c_in}]"),
            },
            found: format!("{shape:?}"),
        })?;
        Ok((shape[0], pad_axes(spatial, 1)))
    }

    /// Shape of an input.
    #[cfg(not(target_arch = "wasm32"))]
    fn input_shape(&self, batch: usize, input: [usize; D]) -> Vec<usize> {
        self.layouts[0].shape(batch, self.geometry.c_in, &input)
    }

    /// The problem that the layer is on values of a program.
    fn problem_on(&self, builder: &Builder, io: Io<'_>) -> Result<Problem> {
        let input = builder.info(io.x)?;
        let (batch, size) = self.split_shape(&input.shape)?;
        let mut problem = self.problem(batch, size);
        problem.elems = [input.elem, builder.info(io.y)?.elem];
        problem.epilogue.residual = io.residual.is_some();
        Ok(problem)
    }

    /// Adds the layer's steps to a program; what is given is looked at by its number of elements
    /// alone.
    fn lower_conv(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let problem = self.problem_on(builder, io)?;
        self.lower_problem(builder, &problem, io)
    }

    fn lower_problem(
        &self,
        builder: &mut Builder,
        problem: &Problem,
        io: Io<'_>,
    ) -> Result<Option<Value>> {
        let plan = self.context.plan(problem)?;
        let weights =
            self.weights.as_ref().map(|name, weights| Ok(builder.tensor(name, weights)))?;
        let Io { x, given, residual, y } = io;
        let given = given.first().copied();
        builder.push_plan(plan, &Operands { x, given, residual, weights, y })
    }
}

/// Implements what every kind of layer has for layers of one step.
macro_rules! any_layer {
    ([$($generics:tt)*] $layer:ty, |$self:ident, $input:ident| $given:expr) => {
        impl<$($generics)*> AnyLayer for $layer {
            fn context(&self) -> &Context {
                &self.context
            }

            fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
                let ($self, $input) = (self, self.split_shape(input)?);
                $given
            }

            fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
                Self::output_shape(self, input)
            }

            fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
                self.lower_conv(builder, io)
            }
        }
    };
}
use any_layer;

any_layer!(
    [const D: usize, A: OwnAttention] Layer<D, A>,
    |_layer, _input| Ok(Vec::new())
);
ways!([const D: usize, A: OwnAttention] Layer<D, A>, D);

any_layer!(
    [const D: usize] Layer<D, Given>,
    |layer, input| {
        let row = layer.problem(input.0, input.1).attention_row();
        Ok(vec![("attention", vec![input.0, row.stride])])
    }
);
ways!([const D: usize] Layer<D, Given>, D, attention);

impl<const D: usize> Layer<D, Static> {
    /// An ordinary convolution. `kernel [channels out, channels in / groups, kernel..]`, `bias
    /// [channels out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit or the description has more than one kernel,
    /// [`Error::Value`] for NaN.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        kernel: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        one_kernel("a static convolution", &desc.geometry()?)?;
        Self::create(context, desc, AttentionSource::Static, kernel, bias)
    }
}

impl<const D: usize> Layer<D, Given> {
    /// A convolution with a kernel bank: `y_b = conv(x_b, sum_k a_bk * bank_k) + sum_k a_bk *
    /// bias_k` (Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR
    /// 2020, eq. 2), the attention `a` being whatever the caller computed.
    ///
    /// `bank [K, channels out, channels in / groups, kernel..]`, `bias [K, channels out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or infinity.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        bank: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let parts = Parts { mix: true, ..Parts::default() };
        Self::create(context, desc, AttentionSource::Given(parts), bank, bias)
    }

    /// The same with gains of the input channels, as of squeeze and excitation: attention is
    /// `[batch, channels in + K]`, the gains first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_channel_gains(
        context: &Context,
        desc: &ConvDesc<D>,
        bank: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let parts = Parts { channel: true, mix: true, ..Parts::default() };
        Self::create(context, desc, AttentionSource::Given(parts), bank, bias)
    }
}

/// Queues new values of tensors.
fn write_all(context: &Context, values: Vec<(&Tensor, Vec<f32>)>) -> Result<()> {
    values.into_iter().try_for_each(|(tensor, values)| tensor.write(context, &values))
}

/// Kinds of layer whose weights are a bank and its bias, and nothing else.
macro_rules! new_banks {
    ($($kind:ty),*) => {$(
        impl<const D: usize> Layer<D, $kind> {
            /// New weights of the same shapes, given as to the constructor: see [Changing
            /// weights](Layer#changing-weights).
            ///
            /// # Errors
            /// As the constructor; [`Error::Shape`] if one has a bias and the other has not.
            /// Nothing is changed then.
            pub fn set_weights(&self, bank: &[f32], bias: Option<&[f32]>) -> Result<()> {
                self.replace(self.banks(bank, bias)?)
            }
        }
    )*};
}

new_banks!(Static, Given, Map);

/// Kinds of layer whose attention has a temperature.
macro_rules! new_temperature {
    ($($kind:ty),*) => {$(
        impl<const D: usize> Layer<D, $kind> {
            /// Another temperature, from the next submission on, as for [new
            /// weights](Layer#changing-weights).
            ///
            /// # Errors
            /// [`Error::Value`] for a temperature that is not above 0; nothing is changed then.
            pub fn set_temperature(&self, temperature: f32) -> Result<()> {
                let temperature = checked_temperature(temperature)?;
                let temperature = Some(vec![temperature]);
                self.replace(Weights { temperature, ..Weights::default() })
            }
        }
    )*};
}

new_temperature!(DyCnn, Od);

/// Refuses a description of several kernels, for layers that have one.
fn one_kernel(what: &str, geometry: &Geometry) -> Result<()> {
    if geometry.kernels == 1 {
        return Ok(());
    }
    let what = format!("kernels of {what}");
    Err(Error::Shape { what, expected: "1".into(), found: geometry.kernels.to_string() })
}

/// A batch norm as scale and shift in f32.
fn narrowed_scale_shift(norm: &BatchNorm) -> Result<(Vec<f32>, Vec<f32>)> {
    let (scale, shift) = norm.scale_shift(norm.weight.len())?;
    Ok((narrow(&scale), narrow(&shift)))
}

/// What a layer of several steps hands on to its convolutions: the one that takes most of the time,
/// the last one, and those whose outputs that one adds, which are scaled with it.
macro_rules! several_steps {
    ($($layer:ty: $main:ident, $last:ident, [$($added:ident),*];)*) => {$(
        impl $layer {
            #[cfg(not(target_arch = "wasm32"))]
            fn input_shape(&self, batch: usize, input: [usize; 2]) -> Vec<usize> {
                self.$main.input_shape(batch, input)
            }

            /// The plan of the layer's main convolution, for f32 tensors. What the whole layer runs
            /// says [`program`](AnyLayer::program).
            ///
            /// # Errors
            /// As [`Layer::plan`].
            pub fn plan(&self, batch: usize, input: [usize; 2]) -> Result<Plan> {
                self.$main.plan(batch, input)
            }

            /// As [`Layer::tune`], for the layer's main convolution.
            ///
            /// # Errors
            /// As [`Layer::tune`].
            #[cfg(not(target_arch = "wasm32"))]
            pub fn tune(&self, batch: usize, input: [usize; 2]) -> Result<Tuned> {
                self.$main.tune(batch, input)
            }

            /// Chooses the kernel of the main convolution instead of the planner.
            #[must_use]
            pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
                self.$main = self.$main.algorithm(algorithm);
                self
            }

            /// As [`Layer::activation`].
            #[must_use]
            pub fn activation(mut self, activation: Activation) -> Self {
                self.$last = self.$last.activation(activation);
                self
            }

            /// As [`Layer::scale_shift`].
            ///
            /// # Errors
            /// As [`Layer::scale_shift`].
            pub fn scale_shift(mut self, scale: &[f32], shift: &[f32]) -> Result<Self> {
                $(self.$added = self.$added.scale_shift(scale, &vec![0.0; shift.len()])?;)*
                self.$last = self.$last.scale_shift(scale, shift)?;
                Ok(self)
            }

            /// As [`Layer::batch_norm`].
            ///
            /// # Errors
            /// As [`Layer::batch_norm`].
            pub fn batch_norm(self, norm: &BatchNorm) -> Result<Self> {
                let (scale, shift) = norm.scale_shift(self.$last.geometry.c_out)?;
                self.scale_shift(&narrow(&scale), &narrow(&shift))
            }
        }
    )*};
}

several_steps! {
    PixelMix2d: conv, conv, [];
    FdyConv2d: conv, conv, [];
    ModulatedConv2d: conv, conv, [];
    Dcd2d: conv, p, [conv];
}

/// What layers that compute each channel from itself hand on to what they share with convolutions.
macro_rules! of_channels {
    ($($layer:ident),*) => {$(
        impl<const D: usize> $layer<D> {
            /// As [`Layer::activation`].
            #[must_use]
            pub fn activation(mut self, activation: Activation) -> Self {
                self.layer = self.layer.activation(activation);
                self
            }

            /// As [`Layer::layouts`].
            #[must_use]
            pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
                self.layer = self.layer.layouts(input, output);
                self
            }
        }
    )*};
}

of_channels!(Gate, LayerNorm, Resample);

/// Attention weights as the kernel wants them: `rows` x `columns` turned to `columns` x `rows`,
/// then the bias.
fn transposed_with_bias(weights: &[f32], columns: usize, bias: &[f32]) -> Vec<f32> {
    let rows = weights.len() / columns;
    let mut packed = Vec::with_capacity(weights.len() + bias.len());
    for column in 0..columns {
        packed.extend((0..rows).map(|row| weights[row * columns + column]));
    }
    packed.extend(bias);
    packed
}

/// A temperature as devices get it. They may take subnormal numbers for 0, so the smallest normal
/// one stands for these: only logits, or differences of them, near 1e-38 show it.
fn checked_temperature(temperature: f32) -> Result<f32> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(temperature.max(f32::MIN_POSITIVE));
    }
    Err(Error::Value {
        what: "temperature".into(),
        needed: "a finite number above 0".into(),
        found: temperature.to_string(),
    })
}
