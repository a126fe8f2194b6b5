//! What a layer gives the program that computes it.

use crate::error::Result;

/// Everything that a layer has beside scratch memory: for each operand a value of a program, a
/// tensor, or whatever else `T` is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operands<T> {
    /// Layer input `[batch, channels in, spatial..]`.
    pub x: T,
    /// What the caller gives beside the input: attention rows `[batch, gains and mixing weights]`,
    /// maps of mixing weights `[batch, K, positions or size of an axis]`, or each sample's kernel
    /// and bias `[batch, row]`.
    pub given: Option<T>,
    /// Added to the output before the activation, of the output's shape.
    pub residual: Option<T>,
    /// What belongs to the layer.
    pub weights: Weights<T>,
    /// Layer output `[batch, channels out, spatial..]`.
    pub y: T,
}

/// Weights of a layer, each in the order that kernels want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights<T> {
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    pub bank: Option<T>,
    /// Bias bank `[K, channels out]`.
    pub bias: Option<T>,
    /// Kernel and bias in one row, where all samples share them; of a map, those of the whole bank.
    pub shared: Option<T>,
    /// Hidden layer of the attention branch, transposed, then its bias.
    pub hidden: Option<T>,
    /// Heads of the attention branch, transposed, then their bias.
    pub heads: Option<T>,
    /// What divides the logits of the attention `[1]`.
    pub temperature: Option<T>,
    /// Scale and shift `[2, channels out]`.
    pub affine: Option<T>,
}

/// Names of the weights in messages, in the order of their fields.
const NAMES: [&str; 7] = [
    "kernel bank",
    "bias bank",
    "kernel",
    "hidden weights of the attention",
    "head weights of the attention",
    "temperature",
    "scale and shift",
];

impl<T> Default for Weights<T> {
    fn default() -> Self {
        Self::of([const { None }; 7])
    }
}

impl<T> Weights<T> {
    fn of(fields: [Option<T>; 7]) -> Self {
        let [bank, bias, shared, hidden, heads, temperature, affine] = fields;
        Self { bank, bias, shared, hidden, heads, temperature, affine }
    }

    fn fields(self) -> [Option<T>; 7] {
        let Self { bank, bias, shared, hidden, heads, temperature, affine } = self;
        [bank, bias, shared, hidden, heads, temperature, affine]
    }

    pub(crate) fn as_ref(&self) -> Weights<&T> {
        let Self { bank, bias, shared, hidden, heads, temperature, affine } = self;
        Weights::of([bank, bias, shared, hidden, heads, temperature, affine].map(Option::as_ref))
    }

    /// Those that there are, with their names.
    pub(crate) fn named(self) -> impl Iterator<Item = (&'static str, T)> {
        NAMES.into_iter().zip(self.fields()).filter_map(|(name, one)| Some((name, one?)))
    }

    /// What `make` makes of each and its name.
    pub(crate) fn map<U>(
        self,
        mut make: impl FnMut(&'static str, T) -> Result<U>,
    ) -> Result<Weights<U>> {
        let mut made = [const { None }; 7];
        for ((made, one), name) in made.iter_mut().zip(self.fields()).zip(NAMES) {
            *made = one.map(|one| make(name, one)).transpose()?;
        }
        Ok(Weights::of(made))
    }

    /// Its own, and those of another where it has none.
    pub(crate) fn or(self, other: Self) -> Self {
        let mut fields = self.fields().into_iter().zip(other.fields());
        Self::of(std::array::from_fn(|_| fields.next().and_then(|(own, other)| own.or(other))))
    }

    /// Each of its own beside the same of another.
    pub(crate) fn beside<U>(
        self,
        other: Weights<U>,
    ) -> impl Iterator<Item = (&'static str, Option<T>, Option<U>)> {
        let both = self.fields().into_iter().zip(other.fields()).zip(NAMES);
        both.map(|((own, other), name)| (name, own, other))
    }
}
