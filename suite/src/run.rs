//! Runs a problem on a device, with canaries around everything that is written.

use dynconv::layers::{AnyLayer, WindowPool};
use dynconv::problem::{AttentionSource, Branch, MapAxis, Mixing, Parts, Problem};
use dynconv::problem::{Epilogue, Geometry, Layout, WeightOrder};
use dynconv::program::Plan;
use dynconv::{
    Activation, Algorithm, Bound, Caps, Context, Dcd2d, Elem, Error, FdyConv2d, Layer,
    ModulatedConv2d, PixelMix2d, Tensor, Warehouse, wgpu,
};

use crate::cases::needs_lanes;
use crate::data::{CONTEXT, Data, Numbers, cells, given_shapes};
use crate::spec::{Family, Limits, Spec};

/// Why a problem does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The library refuses the problem on this device: no fault of either.
    #[error("refused: {0}")]
    Refused(Error),
    /// The library or the driver failed.
    #[error("failed: {0}")]
    Failed(Error),
    /// The result is wrong.
    #[error("{0}")]
    Wrong(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Limit { .. } | Error::Unsupported { .. } | Error::MissingFeature { .. } => {
                Self::Refused(error)
            }
            _ => Self::Failed(error),
        }
    }
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// The output.
    pub y: Vec<f32>,
    /// Attention that the layer computed.
    pub attention: Option<Vec<f32>>,
}

/// Words before and after a tensor that nobody may touch.
const GUARD: f32 = 12_345.0;
/// Guards behind each tensor.
const BEHIND: usize = 70;

/// A tensor in the middle of a buffer of guards.
#[derive(Debug)]
struct Guarded {
    buffer: wgpu::Buffer,
    tensor: Tensor,
    before: usize,
    words: usize,
}

impl Guarded {
    /// `None` poisons the tensor with NaN.
    fn new(
        context: &Context,
        shape: &[usize],
        elem: Elem,
        before: usize,
        values: Option<&[f32]>,
    ) -> dynconv::Result<Self> {
        let bytes = shape.iter().product::<usize>() as u64 * elem.bytes();
        let words = usize::try_from(bytes.div_ceil(4)).unwrap_or(usize::MAX);
        let poison = [vec![GUARD; before], vec![f32::NAN; words], vec![GUARD; BEHIND]].concat();
        let whole = Tensor::upload(context, &[poison.len()], &poison)?;
        let tensor = Tensor::wrap_in(context, whole.buffer(), 4 * before as u64, shape, elem)?;
        if let Some(values) = values {
            tensor.write(context, values)?;
        }
        Ok(Self { buffer: whole.buffer().clone(), tensor, before, words })
    }

    fn check(&self, context: &Context) -> Result<(), Fault> {
        let len = self.before + self.words + BEHIND;
        let words = Tensor::wrap(context, &self.buffer, 0, &[len])?.read_blocking(context)?;
        let inside = self.before..self.before + self.words;
        let touched = words
            .iter()
            .enumerate()
            .find(|(i, word)| !inside.contains(i) && word.to_bits() != GUARD.to_bits());
        match touched {
            None => Ok(()),
            Some((i, word)) => Err(Fault::Wrong(format!(
                "word {i} is {word}, overwritten outside of the output's words {}..{}",
                inside.start, inside.end
            ))),
        }
    }
}

/// A layer bound to its operands, not yet run.
#[derive(Debug)]
pub struct Prepared {
    /// What is bound.
    pub bound: Bound,
    context: Context,
    y: Guarded,
    has_branch: bool,
}

impl Prepared {
    /// Makes everything ready, scratch memory poisoned.
    ///
    /// # Errors
    /// [`Fault::Refused`] or [`Fault::Failed`] with the library's error.
    pub fn new(context: &Context, spec: &Spec, data: &Data) -> Result<Self, Fault> {
        let context = &limited(context, spec)?;
        let bind = |operands: &Operands, layer: &dyn AnyLayer, given: &[&Tensor]| {
            layer.bind_any(&operands.x, given, operands.residual.as_ref(), operands.y())
        };
        let (bound, operands) = on_axes(context, spec, data, &bind)?;
        let has_branch = spec.family.has_branch();
        let prepared = Self { bound, context: context.clone(), y: operands.y, has_branch };
        prepared.poison();
        Ok(prepared)
    }

    /// [`Prepared::new`] on integers, for those who only look at what is bound.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn with_integers(context: &Context, spec: &Spec) -> Result<Self, Fault> {
        Self::new(context, spec, &Data::new(spec, Numbers::Integers)?)
    }

    /// Everything that is written, but for the output, begins as NaN.
    fn poison(&self) {
        for step in self.bound.steps() {
            let written = step.dispatch().variant.kernel.def().storage;
            for ((buffer, range), _) in
                step.bindings().iter().zip(written).filter(|(_, written)| **written)
            {
                if *buffer != self.y.buffer {
                    let bytes = usize::try_from(range.end - range.start).unwrap_or(0);
                    self.context.queue().write_buffer(buffer, range.start, &vec![0xff; bytes]);
                }
            }
        }
    }

    /// The output tensor.
    #[must_use]
    pub fn output(&self) -> &Tensor {
        &self.y.tensor
    }

    /// The context that it was planned for.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Runs it, and reads the results.
    ///
    /// # Errors
    /// [`Fault::Wrong`] if something was written outside of the output.
    pub fn run(&self) -> Result<Output, Fault> {
        let mut encoder = self
            .context
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.bound.record(&mut encoder);
        self.context.queue().submit([encoder.finish()]);
        let y = self.y.tensor.read_blocking(&self.context)?;
        self.y.check(&self.context)?;
        let attention = match self.bound.attention() {
            Some(attention) if self.has_branch => Some(attention.read_blocking(&self.context)?),
            _ => None,
        };
        Ok(Output { y, attention })
    }
}

/// Runs a problem on these numbers.
///
/// # Errors
/// [`Fault`].
pub fn run(context: &Context, spec: &Spec, data: &Data) -> Result<Output, Fault> {
    Prepared::new(context, spec, data)?.run()
}

/// What the layer of a problem says in f64 that its output should be.
///
/// # Errors
/// [`Fault`].
pub fn reference(context: &Context, spec: &Spec, data: &Data) -> Result<Vec<f64>, Fault> {
    let reference = |operands: &Operands, layer: &dyn AnyLayer, given: &[&Tensor]| {
        layer.reference(&operands.x, given, operands.residual.as_ref())
    };
    let (y, _) = on_axes(&limited(context, spec)?, spec, data, &reference)?;
    Ok(y)
}

/// [`with_layer`] of as many axes as the problem has.
fn on_axes<T>(
    context: &Context,
    spec: &Spec,
    data: &Data,
    how: How<'_, T>,
) -> dynconv::Result<(T, Operands)> {
    match spec.input.len() {
        1 => with_layer::<1, T>(context, spec, data, how),
        2 => with_layer::<2, T>(context, spec, data, how),
        _ => with_layer::<3, T>(context, spec, data, how),
    }
}

/// What is done with a layer, its operands, and what it is given.
type How<'a, T> = &'a dyn Fn(&Operands, &dyn AnyLayer, &[&Tensor]) -> dynconv::Result<T>;

/// Makes a problem's layer and its operands, and does something with them.
fn with_layer<const D: usize, T>(
    context: &Context,
    spec: &Spec,
    data: &Data,
    how: How<'_, T>,
) -> dynconv::Result<(T, Operands)> {
    let desc = spec.desc::<D>()?;
    let g = desc.geometry()?;
    let bias = data.bias.as_deref();
    let temperature = data.temperature;
    let operands = Operands::new(context, spec, data, &g)?;
    check_extras(spec)?;
    let done = match spec.family {
        Family::Static => how(
            &operands,
            &finish(
                Layer::<D, dynconv::layers::Static>::new(context, &desc, &data.bank, bias)?,
                spec,
                data,
            )?,
            &[],
        ),
        Family::DyCnn => {
            let layer = Layer::<D, dynconv::layers::DyCnn>::new(
                context,
                &desc,
                &data.dy_cnn(spec, &g),
                temperature,
            )?;
            how(&operands, &finish(layer, spec, data)?, &[])
        }
        Family::OdConv => {
            let layer = Layer::<D, dynconv::layers::Od>::new(
                context,
                &desc,
                &data.od_conv(spec, &g),
                temperature,
            )?;
            how(&operands, &finish(layer, spec, data)?, &[])
        }
        Family::CondConv => {
            let layer = Layer::<D, dynconv::layers::CondConv>::new(
                context,
                &desc,
                &data.cond_conv(spec, &g),
            )?;
            how(&operands, &finish(layer, spec, data)?, &[])
        }
        Family::Warehouse => {
            let warehouse = Warehouse::new(context, cells(spec, &g), &data.bank)?;
            let weights = data.warehouse(spec, &g);
            let layer = Layer::<D, dynconv::layers::KernelWarehouse>::new(
                context, &desc, &weights, &warehouse,
            )?;
            how(&operands, &finish(layer, spec, data)?, &[])
        }
        Family::Bank => {
            let layer = Layer::<D, dynconv::layers::Given>::new(context, &desc, &data.bank, bias)?;
            let given = operands.given(&[spec.batch, g.kernels])?;
            how(&operands, &finish(layer, spec, data)?, &[&given])
        }
        Family::PerSample => {
            let layer = Layer::<D, dynconv::layers::PerSample>::new(context, &desc)?;
            let given = operands.given(&[spec.batch, g.weights()])?;
            how(&operands, &finish(layer, spec, data)?, &[&given])
        }
        Family::Map(axis) => {
            let layer =
                Layer::<D, dynconv::layers::Map>::new(context, &desc, &data.bank, bias, axis)?;
            let size = g.output_size(spec.input3())?;
            let places = match axis {
                MapAxis::All => size[3 - D..].to_vec(),
                MapAxis::One(axis) => vec![size[axis]],
            };
            let given = operands.given(&[&[spec.batch, g.kernels], &places[..]].concat())?;
            how(&operands, &finish(layer, spec, data)?, &[&given])
        }
        Family::Pool(pooling) => {
            let [input, output] = spec.layouts;
            let layer = WindowPool::<D>::new(context, &desc, pooling)?;
            how(&operands, &layer.layouts(input, output), &[])
        }
        Family::Contextual => {
            let head = data.context_head(spec, &g);
            let layer = Layer::<D, dynconv::layers::Contextual>::new(
                context,
                &desc,
                &data.bank,
                bias,
                &head,
                temperature,
            )?;
            let given = operands.given(&[spec.batch, CONTEXT])?;
            how(&operands, &finish(layer, spec, data)?, &[&given])
        }
        Family::Op(op) => {
            let given = op_given(context, spec, data)?;
            let given: Vec<&Tensor> = given.iter().collect();
            how(&operands, op.layer::<D>(context, spec, data)?.as_ref(), &given)
        }
        Family::PixelMix | Family::Fdy | Family::Modulated | Family::Styled | Family::Dcd => {
            chain(context, spec, data, &g, &operands, how)
        }
    }?;
    Ok((done, operands))
}

/// What a layer that convolves nothing is given: the data has a row of all of it for each sample.
fn op_given(context: &Context, spec: &Spec, data: &Data) -> dynconv::Result<Vec<Tensor>> {
    let row = data.given.len().checked_div(spec.batch).unwrap_or(0);
    let mut from = 0;
    let mut tensors = Vec::new();
    for (_, shape) in given_shapes(spec)? {
        let len: usize = shape[1..].iter().product();
        let rows = data.given.chunks_exact(row.max(1));
        let values: Vec<f32> = rows.flat_map(|row| row[from..from + len].iter().copied()).collect();
        let before = if spec.offset == 0 { 0 } else { spec.offset + 2 + tensors.len() };
        tensors.push(Guarded::new(context, &shape, Elem::F32, before, Some(&values))?.tensor);
        from += len;
    }
    Ok(tensors)
}

/// Layers of several steps.
fn chain<T>(
    context: &Context,
    spec: &Spec,
    data: &Data,
    g: &Geometry,
    operands: &Operands,
    how: How<'_, T>,
) -> dynconv::Result<T> {
    let desc = spec.desc::<2>()?;
    let temperature = data.temperature;
    macro_rules! finish {
        ($layer:expr) => {{
            let [input, output] = spec.layouts;
            let layer = $layer.algorithm(spec.conv).activation(spec.activation);
            let layer = layer.layouts(input, output);
            match &data.affine {
                Some([scale, shift]) => layer.scale_shift(scale, shift)?,
                None => layer,
            }
        }};
    }
    match spec.family {
        Family::PixelMix => {
            let weights = data.pixel_mix(spec, g);
            let layer = PixelMix2d::new(context, &desc, &weights, temperature)?;
            how(operands, &finish!(layer), &[])
        }
        Family::Fdy => {
            let layer = FdyConv2d::new(context, &desc, &data.fdy(spec, g), temperature)?;
            how(operands, &finish!(layer), &[])
        }
        Family::Dcd => {
            let layer = Dcd2d::new(context, &desc, &data.dcd(spec, g))?;
            how(operands, &finish!(layer), &[])
        }
        _ => {
            let is_demodulated = spec.family == Family::Modulated;
            let layer = ModulatedConv2d::new(context, &desc, &data.bank, is_demodulated)?;
            let style = operands.given(&[spec.batch, g.c_in])?;
            how(operands, &finish!(layer), &[&style])
        }
    }
}

/// What a kind of layer cannot take is refused here, as its type has no place for it.
fn check_extras(spec: &Spec) -> dynconv::Result<()> {
    let refuse = |what: &str| {
        let because = format!("{:?} layers have none", spec.family);
        Err(Error::Unsupported { what: what.into(), because })
    };
    if spec.bias && !spec.family.takes_bias() {
        return refuse("a bias");
    }
    let family = spec.family;
    for (is_there, may_be, what) in [
        (spec.conv != Algorithm::Auto, family.takes_options(), "a choice of kernels"),
        (spec.affine, family.takes_affine(), "a scale and shift"),
        (spec.activation != Activation::None, family.takes_activation(), "an activation"),
        (spec.residual, family.takes_residual(), "a residual"),
        (spec.layouts != [Layout::ChannelsFirst; 2], family.takes_residual(), "other layouts"),
    ] {
        if is_there && !may_be {
            return refuse(what);
        }
    }
    if (spec.family.is_chain() || spec.family.has_no_kernel()) && spec.limits != Limits::Device {
        return refuse("a choice of limits");
    }
    Ok(())
}

fn finish<const D: usize, A>(
    layer: Layer<D, A>,
    spec: &Spec,
    data: &Data,
) -> dynconv::Result<Layer<D, A>> {
    let [input, output] = spec.layouts;
    let layer = layer.algorithm(spec.conv).activation(spec.activation).layouts(input, output);
    match &data.affine {
        Some([scale, shift]) => layer.scale_shift(scale, shift),
        None => Ok(layer),
    }
}

/// Tensors that are bound.
struct Operands {
    x: Tensor,
    given: Option<Tensor>,
    residual: Option<Tensor>,
    y: Guarded,
}

impl Operands {
    fn new(context: &Context, spec: &Spec, data: &Data, g: &Geometry) -> dynconv::Result<Self> {
        let [input, output, _] = spec.elems;
        let axes = spec.input.len().min(3);
        let size = g.output_size(spec.input3())?;
        let x_shape = shape(spec.layouts[0], spec.batch, g.c_in, &spec.input);
        let y_shape = shape(spec.layouts[1], spec.batch, g.c_out, &size[3 - axes..]);
        let guarded = |shape: &[usize], elem, more: usize, values| {
            let before = if spec.offset == 0 { 0 } else { spec.offset + more };
            Guarded::new(context, shape, elem, before, values)
        };
        let tensor = |guarded: Guarded| guarded.tensor;
        let given = match data.given.len() {
            0 if spec.batch > 0 => None,
            _ if matches!(spec.family, Family::Op(_)) => None,
            len => Some(guarded(&[len], Elem::F32, 2, Some(&data.given)).map(tensor)?),
        };
        let residual =
            data.residual.as_deref().map(|r| guarded(&y_shape, output, 5, Some(r)).map(tensor));
        Ok(Self {
            x: guarded(&x_shape, input, 0, Some(&data.x)).map(tensor)?,
            given,
            residual: residual.transpose()?,
            y: guarded(&y_shape, output, 3, None)?,
        })
    }

    fn y(&self) -> &Tensor {
        &self.y.tensor
    }

    fn given(&self, shape: &[usize]) -> dynconv::Result<Tensor> {
        match &self.given {
            Some(given) => given.reshape(shape),
            None => Err(Error::Shape {
                what: "what the caller gives".into(),
                expected: format!("{shape:?}"),
                found: "nothing".into(),
            }),
        }
    }
}

fn shape(layout: Layout, batch: usize, channels: usize, spatial: &[usize]) -> Vec<usize> {
    match layout {
        Layout::ChannelsFirst => [&[batch, channels], spatial].concat(),
        Layout::ChannelsLast => [&[batch], spatial, &[channels]].concat(),
    }
}

/// What the planner is asked; `None` for layers of several plans, and of none.
///
/// # Errors
/// As [`Spec::geometry`].
pub fn problem(spec: &Spec) -> dynconv::Result<Option<Problem>> {
    let g = spec.geometry()?;
    let data = Data::none();
    let mix = Parts { mix: true, ..Parts::default() };
    let attention = match spec.family {
        Family::Static => AttentionSource::Static,
        Family::Bank => AttentionSource::Given(mix),
        Family::Map(axis) => AttentionSource::Map(axis),
        Family::PerSample => AttentionSource::SampleWeights,
        Family::DyCnn => AttentionSource::Branch(data.dy_cnn(spec, &g).branch(&g)),
        Family::OdConv => AttentionSource::Branch(data.od_conv(spec, &g).branch()),
        Family::CondConv => AttentionSource::Branch(data.cond_conv(spec, &g).branch()),
        Family::Contextual => AttentionSource::Branch(Branch {
            context: Some(CONTEXT),
            hidden: None,
            parts: mix,
            mixing: Mixing::Softmax,
        }),
        Family::Warehouse => {
            let hidden = Some(data.warehouse(spec, &g).norm.weight.len());
            let mixing = Mixing::Cells(cells(spec, &g));
            AttentionSource::Branch(Branch { context: None, hidden, parts: mix, mixing })
        }
        Family::PixelMix
        | Family::Fdy
        | Family::Modulated
        | Family::Styled
        | Family::Dcd
        | Family::Pool(_)
        | Family::Op(_) => return Ok(None),
    };
    let epilogue =
        Epilogue { affine: spec.affine, residual: spec.residual, activation: spec.activation };
    Ok(Some(Problem {
        attention,
        has_bias: spec.bias,
        epilogue,
        layouts: spec.layouts,
        elems: [spec.elems[0], spec.elems[1]],
        algorithm: spec.conv,
        ..Problem::new(g, spec.batch, spec.input3())
    }))
}

/// The same with the weights in the order that a device keeps them in. Rows given by the caller,
/// and rows of cells, are in plain order.
///
/// # Errors
/// As [`problem`].
pub fn problem_on(spec: &Spec, caps: &Caps) -> dynconv::Result<Option<Problem>> {
    let order = |problem: &Problem| match spec.family {
        Family::PerSample | Family::Warehouse => WeightOrder::Plain,
        _ => WeightOrder::of_bank(&problem.geometry, caps),
    };
    Ok(problem(spec)?.map(|problem| Problem { order: order(&problem), ..problem }))
}

/// Devices from small to large: bindings double, and for each of them grids from 3 workgroups a
/// dimension on, so that all three are used. They have no more workgroup memory than WebGPU
/// promises.
fn tight(caps: &Caps) -> impl Iterator<Item = Caps> {
    let grids = [3, 4, 6, 9, 14, 30, 100, 1000];
    let bindings = (9..28).map(|power| (1_u64 << power) + u64::from(caps.storage_alignment));
    bindings.flat_map(move |max_storage_binding| {
        let max_workgroup_memory = caps.max_workgroup_memory.min(16 << 10);
        grids.map(|max_workgroups| Caps {
            max_storage_binding,
            max_workgroups,
            max_workgroup_memory,
            ..caps.clone()
        })
    })
}

/// A small device is planned for as a GPU, so that software adapters run what GPUs do; but for
/// kernels that only they can run.
fn as_gpu(caps: &Caps, spec: &Spec) -> Caps {
    let device_type =
        if needs_lanes(spec.conv) { caps.device_type } else { wgpu::DeviceType::Other };
    Caps { device_type, ..caps.clone() }
}

/// The context that a problem is planned for.
fn limited(context: &Context, spec: &Spec) -> Result<Context, Fault> {
    let caps = context.caps();
    let candidates: Vec<Caps> = match spec.limits {
        Limits::Device => return Ok(context.clone()),
        Limits::Boundless => {
            return Ok(context
                .clone()
                .with_caps(Caps { max_loop_iterations: u32::MAX, ..caps.clone() }));
        }
        Limits::Tight => tight(&as_gpu(caps, spec)).collect(),
        Limits::Short => {
            (7..24).map(|power| Caps { max_loop_iterations: 1 << power, ..caps.clone() }).collect()
        }
    };
    let Some(problem) = problem_on(spec, candidates.first().unwrap_or(caps))? else {
        return Ok(context.clone());
    };
    let last = Plan::new(&problem, caps);
    let smallest = candidates.into_iter().find(|caps| Plan::new(&problem, caps).is_ok());
    match smallest {
        Some(caps) => Ok(context.clone().with_caps(caps)),
        // No smaller device would do, so the device itself says why.
        None => last.map(|_| context.clone()).map_err(Fault::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::problems;
    use crate::variants::noop;

    #[test]
    fn small_devices_take_large_samples_in_strips() {
        let is_meant = |spec: &&Spec| {
            spec.limits == Limits::Tight && spec.layouts == [Layout::ChannelsLast; 2]
        };
        let specs = problems(false).expect("parse");
        let specs: Vec<&Spec> = specs.iter().filter(is_meant).collect();
        assert!(specs.len() >= 5, "{}", specs.len());
        for spec in specs {
            let context = limited(&noop(), spec).expect("is possible");
            let problem = problem_on(spec, context.caps()).expect("is possible");
            let plan = Plan::new(&problem.expect("has a plan"), context.caps()).expect("fits");
            let is_sum = |kernel| kernel == plan.conv_kernel();
            let sums = plan.dispatches().iter().filter(|step| is_sum(step.variant.kernel)).count();
            assert!(sums > spec.batch, "{spec}: {sums}");
        }
    }

    #[test]
    fn a_touched_guard_is_found() {
        let context = noop();
        let spec: Spec =
            "static batch=1 channels=1x1 input=3x5 kernel=1x1 offset=2".parse().expect("parses");
        let prepared = Prepared::with_integers(&context, &spec).expect("binds");
        let Guarded { buffer, before, words, .. } = &prepared.y;
        assert_eq!(*words, 15);
        prepared.y.check(&context).expect("nobody has touched a guard");
        let last = before + words;
        for (word, is_guard) in [
            (*before, false),
            (last - 1, false),
            (before - 1, true),
            (last, true),
            (last + 69, true),
        ] {
            let place = 4 * word as u64;
            context.queue().write_buffer(buffer, place, &7.0_f32.to_le_bytes());
            assert_eq!(prepared.y.check(&context).is_err(), is_guard, "word {word}");
            context.queue().write_buffer(buffer, place, &GUARD.to_le_bytes());
        }
    }
}
