//! A program in the making, with the tensors of its external values.

use crate::caps::Caps;
use crate::device::{Bound, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Dispatch, Value};
use crate::program::{Memory, Operands, Plan, Program, ValueInfo, What};
#[cfg(not(target_arch = "wasm32"))]
use crate::reference::widen;

/// Makes one program of several layers, which then share scratch memory and are recorded as one.
///
/// ```
/// # use dynconv::{Context, OdConv2d, Result, Tensor};
/// use dynconv::device::Builder;
/// use dynconv::layers::Io;
///
/// # fn f(context: &Context, layers: [&OdConv2d; 2], x: &Tensor, y: &Tensor) -> Result<()> {
/// let mut builder = Builder::new(context);
/// let (x, y) = (builder.tensor("image", x), builder.tensor("features", y));
/// let between = builder.layer(layers[0], x, &[])?;
/// builder.layer_into(layers[1], Io::new(between, y))?;
/// println!("{}", builder.program());
/// let bound = builder.bind(y)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    context: Context,
    program: Program,
    tensors: Vec<Option<Tensor>>,
}

impl Builder {
    /// Of an empty program.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone(), program: Program::default(), tensors: Vec::new() }
    }

    /// A tensor of the caller's, called `name` in messages. One that is there under this name is
    /// the same value.
    pub fn tensor(&mut self, name: &'static str, tensor: &Tensor) -> Value {
        let is_it = |(info, held): &(&ValueInfo, &Option<Tensor>)| {
            let same = held.as_ref().is_some_and(|held| held.is_same(tensor));
            same && info.value.name() == name && info.shape == tensor.shape()
        };
        if let Some((info, _)) = self.program.values().iter().zip(&self.tensors).find(is_it) {
            return info.value;
        }
        let value = self.external(name, tensor.shape(), tensor.elem());
        self.tensors.resize(value.index(), None);
        self.tensors.push(Some(tensor.clone()));
        value
    }

    /// Room for a tensor that there is not yet: for a program that is looked at, not bound.
    pub fn external(&mut self, name: &'static str, shape: &[usize], elem: Elem) -> Value {
        self.program.add(Value::new(name), shape, elem, Memory::External)
    }

    /// Scratch memory.
    pub fn scratch(&mut self, name: &'static str, shape: &[usize], elem: Elem) -> Value {
        self.program.add(Value::new(name), shape, elem, Memory::Scratch)
    }

    /// What is known of a value.
    ///
    /// # Errors
    /// [`Error::Value`] for a value of another builder, where that shows.
    pub fn info(&self, value: Value) -> Result<&ValueInfo> {
        self.program.info(value)
    }

    /// What was built so far.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The context that it was made with.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn caps(&self) -> &Caps {
        self.context.caps()
    }

    /// Adds steps that compute something.
    pub(crate) fn push(&mut self, what: What, steps: impl IntoIterator<Item = Dispatch>) {
        let first = self.program.steps().len();
        steps.into_iter().for_each(|step| self.program.push(step));
        self.program.mark(first, what);
    }

    /// Keeps scratch memory after a run, so that [`Bound::kept`] gives it to be read.
    ///
    /// # Errors
    /// [`Error::Value`] for a value of another program.
    pub fn keep(&mut self, value: Value) -> Result<()> {
        self.info(value)?;
        self.program.keep(value);
        Ok(())
    }

    /// The steps of a plan, on values of this program; the attention comes back.
    pub(crate) fn push_plan(
        &mut self,
        plan: Plan,
        operands: &Operands<Value>,
    ) -> Result<Option<Value>> {
        let theirs = *plan.operands();
        let mut pairs = vec![(theirs.x, operands.x), (theirs.y, operands.y)];
        pairs.extend(theirs.given.zip(operands.given));
        pairs.extend(theirs.residual.zip(operands.residual));
        let weights = theirs.weights.beside(operands.weights);
        pairs.extend(weights.filter_map(|(_, theirs, own)| theirs.zip(own)));
        let (attention, problem) = (plan.attention(), Box::new(*plan.problem()));
        let first = self.program.steps().len();
        let own = self.program.inline(plan.into_program(), &pairs)?;
        let attention = attention.map(|value| own[value.index()]);
        self.program.mark(first, What::Conv { problem, operands: *operands, attention });
        Ok(attention)
    }

    /// Compiles, makes scratch memory and binds all: `output` is what the binding gives.
    ///
    /// # Errors
    /// [`Error::OtherDevice`], [`Error::AliasedBuffers`] where a tensor that is written shares its
    /// buffer with another, [`Error::Value`] for an output that is not a tensor,
    /// [`Error::OutOfMemory`].
    pub fn bind(self, output: Value) -> Result<Bound> {
        self.bind_with(output, None)
    }

    /// The same, keeping the attention to be read.
    pub(crate) fn bind_with(mut self, output: Value, attention: Option<Value>) -> Result<Bound> {
        let name = self.info(output)?.value.name();
        let Some(tensor) = self.tensors.get(output.index()).cloned().flatten() else {
            return Err(Error::Value {
                what: "output of a program".into(),
                needed: "a tensor of the caller's".into(),
                found: format!("the {name}, which has none"),
            });
        };
        if let Some(attention) = attention {
            self.program.keep(attention);
        }
        Bound::new(&self.context, self.program, self.tensors, (output, tensor), attention)
    }

    /// The output in f64, computed on the host from the tensors that are bound, which are read back
    /// from the device: see [`Program::reference`].
    ///
    /// # Errors
    /// Those of [`Program::reference`] and [`Tensor::read`]; [`Error::Value`] for a value that has
    /// no tensor.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn reference(&self, output: Value) -> Result<Vec<f64>> {
        self.program.reference(output, |value| self.read(value))
    }

    /// As [`Builder::reference`], every value rounded: see [`Program::rounded_reference`].
    ///
    /// # Errors
    /// As [`Builder::reference`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn rounded_reference(&self, output: Value) -> Result<Vec<f64>> {
        self.program.rounded_reference(output, |value| self.read(value))
    }

    /// Elements of a tensor that is bound.
    #[cfg(not(target_arch = "wasm32"))]
    fn read(&self, value: Value) -> Result<Vec<f64>> {
        let tensor = self.tensors.get(value.index()).and_then(Option::as_ref);
        let tensor = tensor.map_or_else(|| Err(self.info(value)?.is_missing()), Ok)?;
        Ok(widen(&tensor.read_blocking(&self.context)?))
    }
}
