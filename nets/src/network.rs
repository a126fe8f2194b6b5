//! A network: layers over tensors that do not exist yet.

use std::fmt;
use std::sync::Arc;

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::AnyLayer;
use dynconv::program::Program;
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
    stages: Vec<(String, Slot)>,
    /// Whether spatial axes of size 1 at the end are left out of the output's shape.
    is_flat: bool,
}

/// What a network reads or makes: its input, or the output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    /// The network's input.
    pub const INPUT: Self = Self(0);
}

#[derive(Clone, Debug)]
struct Step {
    layer: Arc<dyn AnyLayer>,
    x: Slot,
    given: Option<Slot>,
    residual: Option<Slot>,
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
        Self { context: context.clone(), steps: Vec::new(), stages: Vec::new(), is_flat: false }
    }

    /// Adds a layer that reads `x`.
    pub fn layer(&mut self, layer: Arc<dyn AnyLayer>, x: Slot) -> Slot {
        self.layer_given(layer, x, None, None)
    }

    /// Adds a layer that reads `x` and adds `residual` before its activation.
    pub fn layer_add(&mut self, layer: Arc<dyn AnyLayer>, x: Slot, residual: Slot) -> Slot {
        self.layer_given(layer, x, None, Some(residual))
    }

    /// Adds a layer that is given attention, a style or kernels beside `x`, and maybe a residual.
    pub fn layer_given(
        &mut self,
        layer: Arc<dyn AnyLayer>,
        x: Slot,
        given: Option<Slot>,
        residual: Option<Slot>,
    ) -> Slot {
        self.steps.push(Step { layer, x, given, residual });
        Slot(self.steps.len())
    }

    /// Names what a step makes.
    pub fn name(&mut self, stage: &str, slot: Slot) {
        self.stages.push((stage.into(), slot));
    }

    /// Gives the output as `[batch, channels]` where it has one position.
    #[must_use]
    pub fn flat(self) -> Self {
        Self { is_flat: true, ..self }
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
        let found = self.stages.iter().find(|(name, _)| name == stage);
        let Some((_, Slot(last))) = found else {
            return Err(Error::Value {
                what: "stage of the network".into(),
                needed: self.stages().collect::<Vec<_>>().join(", "),
                found: stage.into(),
            });
        };
        let steps = self.steps.iter().take(*last).cloned().collect();
        let stages = self.stages.iter().filter(|(_, slot)| slot.0 <= *last).cloned().collect();
        Ok(Self { context: self.context.clone(), steps, stages, is_flat: false })
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
        self.bind_any(x, None, None, y)
    }

    /// Computes the network into a new tensor, and submits the work.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_any(x, None)
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
        let mut shapes = vec![input.to_vec()];
        for step in &self.steps {
            let shape = step.layer.output_shape(at(&shapes, step.x)?)?;
            shapes.push(shape);
        }
        let mut shape = shapes.pop().unwrap_or_default();
        if self.is_flat && shape.iter().skip(2).all(|&size| size == 1) {
            shape.truncate(2);
        }
        Ok(shape)
    }

    fn output_elem(&self, input: Elem) -> Elem {
        let mut elems = vec![input];
        for step in &self.steps {
            let elem = elems.get(step.x.0).copied().unwrap_or(input);
            elems.push(step.layer.output_elem(elem));
        }
        elems.pop().unwrap_or(input)
    }

    fn lower(
        &self,
        builder: &mut Builder,
        x: Value,
        _given: Option<Value>,
        residual: Option<Value>,
        y: Value,
    ) -> Result<Option<Value>> {
        let unsupported = |what: &str, because: &str| {
            Err(Error::Unsupported { what: what.into(), because: because.into() })
        };
        if residual.is_some() {
            return unsupported("a residual", "a network adds none to its output");
        }
        let Some((last, steps)) = self.steps.split_last() else {
            return unsupported("a network", "it has no layers");
        };
        let mut values = vec![x];
        let value = |values: &[Value], slot: Option<Slot>| -> Result<Option<Value>> {
            slot.map(|slot| at(values, slot).copied()).transpose()
        };
        for Step { layer, x, given, residual } in steps {
            let x = *at(&values, *x)?;
            let input = builder.info(x)?;
            let (shape, elem) = (layer.output_shape(&input.shape)?, layer.output_elem(input.elem));
            let out = builder.scratch("activations", &shape, elem);
            let (given, residual) = (value(&values, *given)?, value(&values, *residual)?);
            builder.layer_into(layer.as_ref(), x, given, residual, out)?;
            values.push(out);
        }
        let x = *at(&values, last.x)?;
        let (given, residual) = (value(&values, last.given)?, value(&values, last.residual)?);
        if !self.is_flat {
            return builder.layer_into(last.layer.as_ref(), x, given, residual, y).map(|()| None);
        }
        // The output has another shape than the layer's own, of which it has all elements.
        let input = builder.info(x)?.shape.clone();
        let shape = last.layer.output_shape(&input)?;
        let wanted = last.layer.given(&input)?.map(|(_, shape)| shape);
        let found = given.map(|given| Ok(builder.info(given)?.shape.clone())).transpose()?;
        let added = residual.map(|added| Ok(builder.info(added)?.shape.clone())).transpose()?;
        if wanted != found || added.is_some_and(|added| added != shape) {
            return unsupported("the last layer of a flat network", "its operands do not fit");
        }
        last.layer.lower(builder, x, given, residual, y)
    }
}
