//! A network: layers over tensors that do not exist yet.

use std::fmt;
use std::sync::Arc;

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::{AnyLayer, Io, concatenated};
use dynconv::program::{Operation, Program};
use dynconv::{Bound, Context, Elem, Error, Result, Tensor};

/// A network: layers in order, each of which reads what an earlier one made. It holds no sizes: a
/// batch and a size make a [`Program`] of it, which runs as one recording on one arena.
///
/// A network is a layer ([`AnyLayer`]), so that it stands in other networks. Its input is `[batch,
/// channels, height, width]`.
#[derive(Clone)]
pub struct Network {
    context: Context,
    steps: Vec<Step>,
    /// Names of what steps make.
    stages: Vec<(String, Stage)>,
    /// Whether axes of size 1 at the end are left out of the output's shape.
    is_flat: bool,
    /// Whether the attention of every layer can be read after a run.
    keeps_attention: bool,
}

/// What a network reads or makes: its input, or the output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    /// The network's input.
    pub const INPUT: Self = Self(0);
}

/// Where a stage is.
#[derive(Clone, Debug)]
enum Stage {
    /// What a step makes.
    Made(Slot),
    /// What a step would make that is no part of the network.
    Aside(Step),
}

impl Stage {
    /// Steps of the network that it needs.
    fn steps(&self) -> usize {
        match self {
            Self::Made(slot) => slot.0,
            Self::Aside(step) => {
                let read = step.inputs.iter().chain(&step.given).chain(&step.residual);
                read.map(|slot| slot.0).max().unwrap_or(0)
            }
        }
    }
}

/// What a step does.
#[derive(Clone, Debug)]
enum Op {
    Layer(Arc<dyn AnyLayer>),
    /// Puts its inputs one behind the other along an axis.
    Concat(usize),
}

#[derive(Clone, Debug)]
struct Step {
    op: Op,
    inputs: Vec<Slot>,
    given: Vec<Slot>,
    residual: Option<Slot>,
}

impl Step {
    /// Shape and element type of what it makes.
    fn output(&self, values: &[(Vec<usize>, Elem)]) -> Result<(Vec<usize>, Elem)> {
        let inputs = self.inputs.iter().map(|&slot| at(values, slot));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let (first, elem) = inputs[0];
        match &self.op {
            Op::Layer(layer) => Ok((layer.output_shape(first)?, layer.output_elem(*elem))),
            Op::Concat(axis) => {
                let shapes: Vec<&[usize]> = inputs.iter().map(|(shape, _)| &shape[..]).collect();
                Ok((concatenated(&shapes, *axis)?, *elem))
            }
        }
    }

    /// Adds it to a program; `values` are what the steps before have made.
    fn lower(&self, builder: &mut Builder, values: &[Value], y: Value) -> Result<()> {
        let all = |slots: &[Slot]| -> Result<Vec<Value>> {
            slots.iter().map(|&slot| at(values, slot).copied()).collect()
        };
        let (inputs, given) = (all(&self.inputs)?, all(&self.given)?);
        match &self.op {
            Op::Layer(layer) => {
                let residual = self.residual.map(|slot| at(values, slot).copied()).transpose()?;
                let io = Io { residual, ..Io::new(inputs[0], y).given(&given) };
                builder.layer_into(layer.as_ref(), io)
            }
            Op::Concat(axis) => builder.concat_into(&inputs, *axis, y),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<&str> = self.stages().collect();
        f.debug_struct("Network")
            .field("steps", &self.steps.len())
            .field("stages", &stages)
            .finish()
    }
}

impl Network {
    /// A network of no layers.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            steps: Vec::new(),
            stages: Vec::new(),
            is_flat: false,
            keeps_attention: false,
        }
    }

    /// Adds a layer that reads `x`.
    pub fn layer(&mut self, layer: Arc<dyn AnyLayer>, x: Slot) -> Slot {
        self.layer_given(layer, x, &[], None)
    }

    /// Adds a layer that reads `x` and adds `residual` before its activation.
    pub fn layer_add(&mut self, layer: Arc<dyn AnyLayer>, x: Slot, residual: Slot) -> Slot {
        self.layer_given(layer, x, &[], Some(residual))
    }

    /// Adds a layer that is given attention, a style, kernels or gains beside `x`, and maybe a
    /// residual.
    pub fn layer_given(
        &mut self,
        layer: Arc<dyn AnyLayer>,
        x: Slot,
        given: &[Slot],
        residual: Option<Slot>,
    ) -> Slot {
        let (inputs, given) = (vec![x], given.to_vec());
        self.push(Step { op: Op::Layer(layer), inputs, given, residual })
    }

    /// Puts what earlier steps made one behind the other along an axis: 1 is that of the channels.
    pub fn concat(&mut self, parts: &[Slot], axis: usize) -> Slot {
        let parts = if parts.is_empty() { &[Slot::INPUT] } else { parts };
        let (inputs, given) = (parts.to_vec(), Vec::new());
        self.push(Step { op: Op::Concat(axis), inputs, given, residual: None })
    }

    fn push(&mut self, step: Step) -> Slot {
        self.steps.push(step);
        Slot(self.steps.len())
    }

    /// Names what a step makes.
    pub fn name(&mut self, stage: &str, slot: Slot) {
        self.stages.push((stage.into(), Stage::Made(slot)));
    }

    /// Names what a layer would make that is no part of the network, such as a sum before the
    /// activation that the network's own layer applies. It is computed for [`Network::until`]
    /// alone.
    pub fn aside(&mut self, stage: &str, layer: Arc<dyn AnyLayer>, x: Slot, given: &[Slot]) {
        let (op, inputs, given) = (Op::Layer(layer), vec![x], given.to_vec());
        let step = Step { op, inputs, given, residual: None };
        self.stages.push((stage.into(), Stage::Aside(step)));
    }

    /// Leaves axes of size 1 at the end out of the output's shape.
    #[must_use]
    pub fn flat(self) -> Self {
        Self { is_flat: true, ..self }
    }

    /// Keeps the attention of every layer in memory of its own, where [`Bound::kept`] finds it
    /// after a run.
    #[must_use]
    pub fn keep_attention(self) -> Self {
        Self { keeps_attention: true, ..self }
    }

    /// Names of what steps make, in order.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|(name, _)| name.as_str())
    }

    /// The network as far as a stage: for features, and to see where two implementations part.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such stage.
    pub fn until(&self, stage: &str) -> Result<Self> {
        let stage = self.stage(stage)?;
        let last = stage.steps();
        let mut steps: Vec<Step> = self.steps.iter().take(last).cloned().collect();
        if let Stage::Aside(step) = stage {
            steps.push(step.clone());
        }
        let stages = self.stages.iter().filter(|(_, stage)| stage.steps() <= last);
        let stages = stages.cloned().collect();
        Ok(Self { steps, stages, ..self.clone() })
    }

    fn stage(&self, stage: &str) -> Result<&Stage> {
        let found = self.stages.iter().find(|(name, _)| name == stage);
        found.map(|(_, stage)| stage).ok_or_else(|| Error::Value {
            what: "stage of the network".into(),
            needed: self.stages().collect::<Vec<_>>().join(", "),
            found: stage.into(),
        })
    }

    /// Shape and element type of the input and of what each step makes.
    fn outputs(&self, input: &[usize], elem: Elem) -> Result<Vec<(Vec<usize>, Elem)>> {
        let mut outputs = vec![(input.to_vec(), elem)];
        for step in &self.steps {
            let output = step.output(&outputs)?;
            outputs.push(output);
        }
        Ok(outputs)
    }

    /// Adds all steps to a program. What `kept` names, and the last, lie in values that there are.
    fn lower_all(
        &self,
        builder: &mut Builder,
        x: Value,
        kept: &[(Slot, Value)],
        y: Value,
    ) -> Result<()> {
        if self.steps.is_empty() {
            let because = "it has no layers".into();
            return Err(Error::Unsupported { what: "a network".into(), because });
        }
        let info = builder.info(x)?;
        let outputs = self.outputs(&info.shape.clone(), info.elem)?;
        let before = builder.program().operations().len();
        let mut values = vec![x];
        for (number, step) in (1..).zip(&self.steps) {
            let slot = Slot(number);
            let own = kept.iter().find(|(kept, _)| *kept == slot).map(|(_, value)| *value);
            let (shape, elem) = &outputs[number];
            let out = match own {
                _ if number == self.steps.len() => y,
                Some(value) => value,
                None => builder.scratch("activations", shape, *elem),
            };
            step.lower(builder, &values, out)?;
            values.push(out);
        }
        if self.keeps_attention {
            let operations = &builder.program().operations()[before..];
            let attention: Vec<Value> =
                operations.iter().filter_map(Operation::attention).collect();
            attention.into_iter().try_for_each(|value| builder.keep(value))?;
        }
        Ok(())
    }

    /// What runs for this batch and size: shapes, lifetimes and the memory that is needed. Nothing
    /// is compiled or allocated.
    ///
    /// # Errors
    /// [`Error::Shape`] if the size does not fit, the planner's errors.
    pub fn plan(&self, input: &[usize]) -> Result<Program> {
        self.program(input, Elem::F32)
    }

    /// Binds input and output: everything is checked, compiled and allocated here.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    pub fn bind(&self, x: &Tensor, y: &Tensor) -> Result<Bound> {
        self.bind_any(x, &[], None, y)
    }

    /// As [`Network::bind`], and binds what some stages make to tensors of the caller's, for
    /// networks of several outputs.
    ///
    /// # Errors
    /// As [`Network::bind`]; [`Error::Value`] if there is no such stage.
    pub fn bind_stages(&self, x: &Tensor, stages: &[(&str, &Tensor)], y: &Tensor) -> Result<Bound> {
        let mut builder = Builder::new(&self.context);
        let input = builder.tensor("input", x);
        let output = builder.tensor("output", y);
        let mut kept = Vec::new();
        for (stage, tensor) in stages {
            let Stage::Made(slot) = self.stage(stage)? else {
                return Err(Error::Unsupported {
                    what: format!("the stage {stage} beside the output"),
                    because: "no step of the network makes it".into(),
                });
            };
            kept.push((*slot, builder.tensor("stage", tensor)));
        }
        self.lower_all(&mut builder, input, &kept, output)?;
        builder.bind(output)
    }

    /// Computes the network into a new tensor, and submits the work.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_any(x, &[])
    }

    /// Computes the network on host data `[batch, channels, height, width]`, and waits for the
    /// result.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`], and [`Error::DeviceLost`].
    pub fn run(&self, input: &[usize], x: &[f32]) -> Result<Vec<f32>> {
        self.forward(&Tensor::upload(&self.context, input, x)?)?.read_blocking(&self.context)
    }
}

/// What a slot stands for.
fn at<T>(all: &[T], slot: Slot) -> Result<&T> {
    all.get(slot.0).ok_or_else(|| Error::Value {
        what: "slot of a network".into(),
        needed: format!("one of the {} before the step", all.len()),
        found: format!("number {}, of another network", slot.0),
    })
}

impl AnyLayer for Network {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let mut outputs = self.outputs(input, Elem::F32)?;
        let (mut shape, _) = outputs.pop().unwrap_or_default();
        if self.is_flat {
            let ones = shape.iter().skip(2).rev().take_while(|&&size| size == 1).count();
            shape.truncate(shape.len() - ones);
        }
        Ok(shape)
    }

    fn output_elem(&self, input: Elem) -> Elem {
        let mut elems = vec![input];
        for step in &self.steps {
            let elem = elems.get(step.inputs[0].0).copied().unwrap_or(input);
            elems.push(match &step.op {
                Op::Layer(layer) => layer.output_elem(elem),
                Op::Concat(_) => elem,
            });
        }
        elems.pop().unwrap_or(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        if io.residual.is_some() {
            let because = "a network adds none to its output".into();
            return Err(Error::Unsupported { what: "a residual".into(), because });
        }
        self.lower_all(builder, io.x, &[], io.y).map(|()| None)
    }
}
