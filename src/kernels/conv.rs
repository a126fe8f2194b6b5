//! What the convolution kernels share on the host: the parameter block and constants of
//! `shaders/lib/conv.wgsl`.

use std::ops::Range;

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Slot, Value, Variant};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Result, index32};
use crate::problem::{
    Activation, AttentionSource, BLOCK, Epilogue, Geometry, Layout, MapAxis, Problem, WeightOrder,
    product,
};

/// Bindings of every convolution kernel whose element type varies.
pub(crate) const SLOTS: &[Slot] = &[Slot::X, Slot::Y];
/// Bindings of every convolution kernel: x, sample_weights, gains, affine, residual, y.
pub(crate) const STORAGE: &[bool] = &[false, false, false, false, false, true];
/// What most convolution kernels are.
pub(crate) const PLAIN: KernelDef =
    KernelDef { slots: SLOTS, storage: STORAGE, lanes: false, matrices: false };
/// Kernels for subgroups of eight, which bind sample_weights once more to load several at once.
pub(crate) const SIMD8: KernelDef =
    KernelDef { storage: &[false, false, false, false, false, true, false], lanes: true, ..PLAIN };

/// Says why a kernel cannot compute a problem.
pub(crate) type Accepts = std::result::Result<(), String>;

/// A convolution kernel, as the planner knows it.
pub(crate) trait ConvKernel: Sync {
    /// Refuses what the kernel cannot compute on any device.
    fn accepts(&self, problem: &Problem, output: [usize; 3]) -> Accepts;

    /// Why the planner takes the kernel for a problem that it accepts; `None` leaves the problem to
    /// the kernels behind. A rule looks at the layer, its map and the device, never at the batch:
    /// an output does not depend on what else is in its batch.
    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String>;

    /// Loop iterations of an invocation, at most.
    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        task.iterations(32)
    }

    /// What starts the kernel on a problem that it accepts.
    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch>;

    /// Whether it computes the plain sum, which is exact where all numbers are small integers.
    fn sums_plainly(&self) -> bool {
        true
    }

    /// Whether it mixes each sample's kernel as it loads it, where the bank allows.
    fn mixes(&self, _geometry: &Geometry, _positions: usize) -> bool {
        false
    }

    /// Input channels of each slice of a sum that is split among workgroups, `least` slices at
    /// least; `None` where it is not.
    fn slices(&self, _task: SplitTask<'_>, _caps: &Caps) -> Option<usize> {
        None
    }
}

/// A sum that may be split among workgroups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitTask<'a> {
    pub geometry: &'a Geometry,
    pub positions: usize,
    /// Slices at least, where there are as many blocks of channels.
    pub least: usize,
    /// Whether kernels are mixed as they are loaded.
    pub mixes: bool,
}

/// Refuses unless `condition` holds.
pub(crate) fn needs(condition: bool, what: &str) -> Accepts {
    if condition { Ok(()) } else { Err(format!("it needs {what}")) }
}

/// Refuses a map, for kernels that cannot mix at every position.
pub(crate) fn without_map(problem: &Problem) -> Accepts {
    match problem.attention {
        AttentionSource::Map(_) => Err("it cannot mix kernels at every position".into()),
        _ => Ok(()),
    }
}

/// Whether a sample has eight output channels a group and eight positions.
pub(crate) fn fills_eight(g: &Geometry, output: [usize; 3]) -> bool {
    g.c_out / g.groups >= 8 && product(&output) >= 8
}

/// Whether there is one input channel a group, of several groups.
pub(crate) fn is_depthwise(g: &Geometry) -> bool {
    g.c_in == g.groups && g.groups > 1
}

/// Mirrors `ConvParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ConvParams {
    x_base: u32,
    sample_weights_base: u32,
    gains_base: u32,
    affine_base: u32,
    residual_base: u32,
    y_base: u32,
    wide_weights_base: u32,
    batch: u32,
    groups: u32,
    c_in: u32,
    c_out: u32,
    ci_begin: u32,
    ci_end: u32,
    slice_channels: u32,
    in_d: u32,
    in_h: u32,
    in_w: u32,
    out_d: u32,
    out_h: u32,
    out_w: u32,
    pad_d: u32,
    pad_h: u32,
    pad_w: u32,
    sample_stride: u32,
    bias_offset: u32,
    gain_stride: u32,
    channel_gain_offset: u32,
    filter_gain_offset: u32,
    activation_a: f32,
    activation_b: f32,
    workgroups: u32,
}

/// An activation's number in the shader, and its two parameters.
fn activation_parts(activation: Activation) -> (u32, [f32; 2]) {
    match activation {
        Activation::None => (0, [0.0; 2]),
        Activation::Relu => (1, [0.0; 2]),
        Activation::Relu6 => (2, [0.0; 2]),
        Activation::Silu => (3, [0.0; 2]),
        Activation::Gelu => (4, [0.0; 2]),
        Activation::HardSwish => (5, [0.0; 2]),
        Activation::HardSigmoid => (6, [0.0; 2]),
        Activation::LeakyRelu { slope } => (7, [slope, 0.0]),
        Activation::StarRelu { scale, bias } => (8, [scale, bias]),
        Activation::Sigmoid => (9, [0.0; 2]),
        Activation::Tanh => (10, [0.0; 2]),
    }
}

/// Where in an attention row the mixing weights of the bank's kernels begin, and the gains of the
/// taps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub weights: usize,
    pub spatial: Option<usize>,
}

/// Which step of a convolution a dispatch takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All of it, from the input to the output.
    Whole,
    /// Sums over this many input channels each, from the input to the partial sums `[slices, batch,
    /// channels out, positions]`.
    Slices(usize),
    /// From partial sums, each over this many input channels, to the output.
    Sum(usize),
}

/// What a convolution reads and writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ConvValues {
    /// `[batch, channels in, input..]`
    pub x: Value,
    /// Each sample's kernel and bias, one row that all share, or the bank that is mixed.
    pub weights: Value,
    /// Attention rows, or maps of mixing weights.
    pub gains: Option<Value>,
    /// Scale and shift `[2, channels out]`.
    pub affine: Option<Value>,
    /// Added to the output before the activation, of the output's shape.
    pub residual: Option<Value>,
    /// Sums over some of the input channels each `[slices, batch, channels out, positions]`.
    pub partials: Option<Value>,
    /// `[batch, channels out, output..]`
    pub y: Value,
}

/// A convolution of some samples of the batch, by whichever kernel.
#[derive(Clone, Debug)]
pub(crate) struct ConvTask<'a> {
    pub geometry: &'a Geometry,
    pub input: [usize; 3],
    pub output: [usize; 3],
    /// First sample and number of samples.
    pub first: usize,
    pub batch: usize,
    /// Input channels of a group that this dispatch sums over.
    pub channels: Range<usize>,
    pub stage: Stage,
    /// Whether all samples share the first weights.
    pub shared: bool,
    /// Elements of each sample's weights.
    pub row: usize,
    /// Order of the weights in a row.
    pub order: WeightOrder,
    pub has_bias: bool,
    /// Whether the attention rows are maps of mixing weights instead of gains.
    pub map: Option<MapAxis>,
    /// Elements of an attention row, and where in it the gains that the convolution applies begin.
    pub gain_stride: usize,
    pub channel_gain: Option<usize>,
    pub filter_gain: Option<usize>,
    /// How the convolution mixes each sample's kernel itself, from the bank.
    pub mix: Option<Mix>,
    pub epilogue: Epilogue,
    pub values: ConvValues,
    /// Of input and output.
    pub layouts: [Layout; 2],
    pub elems: [Elem; 2],
    /// First elements of input and output, where the task is a strip of one sample.
    pub places: Option<[usize; 2]>,
}

impl<'a> ConvTask<'a> {
    /// A step that computes each channel from itself and has no weights: some samples, from the
    /// first one given on.
    pub(crate) fn of_channels(
        problem: &'a Problem,
        first: usize,
        output: [usize; 3],
        values: ConvValues,
    ) -> Self {
        Self {
            geometry: &problem.geometry,
            input: problem.input,
            output,
            first,
            batch: problem.batch,
            channels: 0..problem.geometry.c_in / problem.geometry.groups,
            stage: Stage::Whole,
            shared: true,
            row: 1,
            order: problem.order,
            has_bias: false,
            map: None,
            gain_stride: 0,
            channel_gain: None,
            filter_gain: None,
            mix: None,
            epilogue: problem.epilogue,
            values,
            layouts: problem.layouts,
            elems: problem.elems,
            places: None,
        }
    }
}

impl ConvTask<'_> {
    pub(crate) fn positions(&self) -> usize {
        product(&self.output)
    }

    /// Channels of one group: in and out.
    pub(crate) fn group_channels(&self) -> [usize; 2] {
        [self.geometry.c_in / self.geometry.groups, self.geometry.c_out / self.geometry.groups]
    }

    /// Input channels of a group that an invocation sums over.
    pub(crate) fn slice_channels(&self) -> usize {
        match self.stage {
            Stage::Whole => self.channels.len(),
            Stage::Slices(channels) | Stage::Sum(channels) => channels,
        }
    }

    /// Slices that the sum is split in among workgroups.
    pub(crate) fn slice_count(&self) -> usize {
        self.channels.len().div_ceil(self.slice_channels())
    }

    /// What comes before the end of the sum, left as it is in f32.
    pub(crate) fn begun(&self) -> Self {
        Self {
            has_bias: false,
            filter_gain: None,
            epilogue: Epilogue::default(),
            layouts: [self.layouts[0], Layout::ChannelsFirst],
            elems: [self.elems[0], Elem::F32],
            ..self.clone()
        }
    }

    /// What comes after that.
    pub(crate) fn ended(&self) -> Self {
        Self {
            channel_gain: None,
            layouts: [Layout::ChannelsFirst, self.layouts[1]],
            elems: [Elem::F32, self.elems[1]],
            ..self.clone()
        }
    }

    /// The step that leaves raw sums over `channels` input channels each.
    pub(crate) fn in_slices(&self, channels: usize) -> Self {
        Self { stage: Stage::Slices(channels), ..self.begun() }
    }

    /// The step that adds them up.
    pub(crate) fn total(&self, channels: usize) -> Self {
        Self { stage: Stage::Sum(channels), ..self.ended() }
    }

    /// Inputs that one load can take in kernels that load an odd number of columns away from what
    /// the first output reads first: 2 where that is an even element, else 1.
    pub(crate) fn pairs(&self) -> u32 {
        let is_paired = self.geometry.padding[2][0] % 2 == 1;
        if is_paired { width(self.input[2], self.elems[0], self.layouts[0]).min(2) } else { 1 }
    }

    /// Kernels that a map mixes, 1 without a map.
    pub(crate) fn mixed(&self) -> usize {
        self.map.map_or(1, |_| self.geometry.kernels)
    }

    /// Whether taps may lie outside the map.
    pub(crate) fn is_padded(&self) -> bool {
        self.geometry.padding != [[0; 2]; 3]
    }

    /// Iterations of the loops over the taps of one input channel, if no driver unrolls them. The
    /// iteration that ends a loop counts too.
    fn tap_iterations(&self) -> u64 {
        let [kd, kh, kw] = self.geometry.kernel.map(|n| n as u64);
        let row = kh.saturating_mul(kw + 2) + 1;
        kd.saturating_mul(row.saturating_add(1)) + 1
    }

    /// Iterations of loops that go over the channels and their taps, for every kernel mixed, and
    /// over `stores` outputs and their biases.
    pub(crate) fn iterations(&self, stores: u64) -> u64 {
        let channels = self.channels.len() as u64;
        let of_kernel = channels.saturating_mul(1 + self.tap_iterations()) + 2 + 4 * stores;
        of_kernel.saturating_mul(self.mixed() as u64)
    }

    /// Whether workgroups sum over slices of the channels.
    pub(crate) fn is_split(&self) -> bool {
        matches!(self.stage, Stage::Slices(_))
    }

    /// The dispatch of `kernel` with constants of its own beside the shared ones.
    pub(crate) fn dispatch(
        &self,
        kernel: Kernel,
        own_consts: &[(&'static str, u32)],
        workgroups: usize,
        resources: Resources,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let own_consts: Vec<_> =
            own_consts.iter().map(|&(name, value)| (name, Const::U32(value))).collect();
        self.dispatch_of(kernel, &own_consts, workgroups, resources, self.slices()?, caps)
    }

    /// The same with constants of any kind, and of other slices than a convolution's.
    pub(crate) fn dispatch_of(
        &self,
        kernel: Kernel,
        own_consts: &[(&'static str, Const)],
        workgroups: usize,
        resources: Resources,
        mut slices: Vec<Slice>,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let [x, y] = self.elems;
        let elems =
            kernel.def().slots.iter().map(|slot| if *slot == Slot::X { x } else { y }).collect();
        let variant = Variant { kernel, elems, consts: self.consts(own_consts)? };
        let params = self.params(workgroups)?;
        // Kernels for lanes bind the weights once more, to read several elements at once.
        if kernel.def().storage.len() > slices.len() {
            slices.push(slices[1]);
        }
        Dispatch::new(
            variant,
            bytemuck::bytes_of(&params),
            slices,
            workgroups as u64,
            resources,
            caps,
        )
    }

    fn consts(&self, own: &[(&'static str, Const)]) -> Result<Vec<(&'static str, Const)>> {
        let g = self.geometry;
        let axes = [
            (["KERNEL_D", "KERNEL_H", "KERNEL_W"], g.kernel),
            (["STRIDE_D", "STRIDE_H", "STRIDE_W"], g.stride),
            (["DILATION_D", "DILATION_H", "DILATION_W"], g.dilation),
        ];
        let mut consts = own.to_vec();
        for (names, values) in axes {
            for (name, value) in names.into_iter().zip(values) {
                consts.push((name, Const::U32(index32(name, value)?)));
            }
        }
        let map = match self.map {
            None => 0,
            Some(MapAxis::All) => 1,
            Some(MapAxis::One(axis)) => 2 + index32("axis", axis)?,
        };
        consts.push(("CONTINUES", Const::Bool(self.channels.start > 0)));
        let ends = self.channels.end == self.group_channels()[0] && !self.is_split();
        consts.push(("ENDS", Const::Bool(ends)));
        consts.push(("MIXED", Const::U32(index32("kernels", self.mixed())?)));
        consts.push(("MAP", Const::U32(map)));
        let step = if self.order == WeightOrder::Blocked { BLOCK } else { 1 };
        consts.push(("WEIGHT_STEP", Const::U32(index32("block", step)?)));
        consts.push(("TRANSPOSED", Const::Bool(g.transposed)));
        consts.push(("X_NHWC", Const::Bool(self.layouts[0] == Layout::ChannelsLast)));
        consts.push(("Y_NHWC", Const::Bool(self.layouts[1] == Layout::ChannelsLast)));
        consts.push(("HAS_BIAS", Const::Bool(self.has_bias)));
        consts.push(("CHANNEL_GAIN", Const::Bool(self.channel_gain.is_some())));
        consts.push(("FILTER_GAIN", Const::Bool(self.filter_gain.is_some())));
        consts.push(("HAS_AFFINE", Const::Bool(self.epilogue.affine)));
        consts.push(("HAS_RESIDUAL", Const::Bool(self.epilogue.residual)));
        consts.push(("ACTIVATION", Const::U32(activation_parts(self.epilogue.activation).0)));
        Ok(consts)
    }

    fn params(&self, workgroups: usize) -> Result<ConvParams> {
        let g = self.geometry;
        let [c_in, c_out] = self.group_channels();
        let n = |what: &str, value: usize| index32(what, value);
        let (_, [activation_a, activation_b]) = activation_parts(self.epilogue.activation);
        // A position may lie as far as this from 0 before it wraps; see tap_position in the shader.
        for axis in 0..3 {
            let out = (self.output[axis] + 3).saturating_mul(g.stride[axis]);
            let reach = out.saturating_add(g.kernel[axis].saturating_mul(g.dilation[axis]));
            let outside = g.padding[axis][0].saturating_add(self.input[axis]);
            n("reach of the kernel", reach.saturating_add(outside))?;
        }
        Ok(ConvParams {
            batch: n("batch", self.batch)?,
            groups: n("groups", g.groups)?,
            c_in: n("input channels", c_in)?,
            c_out: n("output channels", c_out)?,
            ci_begin: n("input channels", self.channels.start)?,
            ci_end: n("input channels", self.channels.end)?,
            slice_channels: n("input channels", self.slice_channels())?,
            in_d: n("input depth", self.input[0])?,
            in_h: n("input height", self.input[1])?,
            in_w: n("input width", self.input[2])?,
            out_d: n("output depth", self.output[0])?,
            out_h: n("output height", self.output[1])?,
            out_w: n("output width", self.output[2])?,
            pad_d: n("padding", g.padding[0][0])?,
            pad_h: n("padding", g.padding[1][0])?,
            pad_w: n("padding", g.padding[2][0])?,
            sample_stride: if self.shared || self.mix.is_some() {
                0
            } else {
                n("kernel row", self.row)?
            },
            bias_offset: n("kernel row", self.mixed() * g.kernel_len(self.order))?,
            gain_stride: n("attention row", self.gain_stride)?,
            channel_gain_offset: n("attention row", self.channel_gain.unwrap_or(0))?,
            filter_gain_offset: n("attention row", self.filter_gain.unwrap_or(0))?,
            activation_a,
            activation_b,
            workgroups: n("workgroups", workgroups)?,
            ..Default::default()
        })
    }

    /// Input or partial sums, weights, gains, affine, residual and what is written.
    pub(crate) fn slices(&self) -> Result<Vec<Slice>> {
        let g = self.geometry;
        self.slices_from(match self.stage {
            Stage::Sum(_) => self.partials()?,
            _ => self.map(self.values.x, 0, product(&[g.c_in, product(&self.input)]))?,
        })
    }

    /// The same, reading something else than the input.
    pub(crate) fn slices_from(&self, x: Slice) -> Result<Vec<Slice>> {
        let g = self.geometry;
        let unused = x.stand_in();
        let reads_weights = !matches!(self.stage, Stage::Sum(_)) || self.has_bias;
        let weights = match self.mix {
            _ if !reads_weights => unused,
            Some(_) => Slice::whole(self.values.weights, g.kernels * g.kernel_len(self.order))?,
            None if self.shared => Slice::whole(self.values.weights, self.row)?,
            None => self.samples(self.values.weights, self.row)?,
        };
        let has_gain = self.map.is_some()
            || self.mix.is_some()
            || self.channel_gain.is_some()
            || self.filter_gain.is_some();
        let y = self.map(self.values.y, 1, product(&[g.c_out, self.positions()]))?;
        let or_unused = |slice: Option<Result<Slice>>| slice.unwrap_or(Ok(unused));
        let gains = self.values.gains.filter(|_| has_gain);
        let affine = self.values.affine.filter(|_| self.epilogue.affine);
        let residual = self.values.residual.filter(|_| self.epilogue.residual);
        Ok(vec![
            x,
            weights,
            or_unused(gains.map(|gains| self.samples(gains, self.gain_stride)))?,
            or_unused(affine.map(|affine| Slice::whole(affine, 2 * g.c_out)))?,
            residual.map_or(unused, |value| Slice { value, ..y }),
            if self.is_split() { self.partials()? } else { y },
        ])
    }

    /// Elements of the input or output of this dispatch's samples, or of its strip of one.
    fn map(&self, value: Value, side: usize, sample: usize) -> Result<Slice> {
        match self.places {
            Some(places) => {
                Ok(Slice { start: places[side] as u64, ..Slice::whole(value, sample)? })
            }
            None => self.samples(value, sample),
        }
    }

    /// Elements of this dispatch's samples.
    fn samples(&self, value: Value, sample: usize) -> Result<Slice> {
        Slice::samples(value, sample, self.first, self.batch)
    }

    fn partials(&self) -> Result<Slice> {
        let partials = self.values.partials.expect("a sum that is split has partial sums");
        let sample = product(&[self.geometry.c_out, self.positions()]);
        Slice::samples(partials, sample, 0, self.batch.saturating_mul(self.slice_count()))
    }
}

/// Elements that one load or store can take in a tensor made of runs of `run` neighbours. One that
/// begins at an element which is no multiple of them takes fewer, which shows when it is bound.
pub(crate) fn width(run: usize, elem: Elem, layout: Layout) -> u32 {
    let is_wide = elem == Elem::F32 && layout == Layout::ChannelsFirst;
    [4, 2].into_iter().find(|&width| is_wide && run.is_multiple_of(width as usize)).unwrap_or(1)
}
