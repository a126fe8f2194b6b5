//! Layers from safetensors checkpoints, by their published key names.

mod file;
mod layers;

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{ANY_SHAPE, Error, Result, check_finite};
use crate::layers::BatchNorm;

/// A safetensors file in memory (read or mapped by the caller). Values are converted when asked
/// for.
///
/// Leading `module.` and `_orig_mod.` of a key, which data-parallel training and `torch.compile`
/// leave behind, are ignored. Storage may be f32, f16, bf16 or f64; a weight that is not finite is
/// an error.
///
/// # What no checkpoint holds
///
/// Stride, padding and dilation; the temperature of the attention; the epsilon of batch norms.
/// They come from the code that the network was trained with. A wrong epsilon loads without a word
/// and computes something else, the more the smaller the variances are, so every reader of a batch
/// norm asks for one:
///
/// | code | temperature | epsilon in the attention | epsilon behind layers |
/// |---|---|---|---|
/// | ODConv (OSVAI/ODConv) | 1 after training | 1e-5 | 1e-5 |
/// | KernelWarehouse (OSVAI/KernelWarehouse) | none | 1e-5 | 1e-5 |
/// | DY-CNN (kaijieshi7) | [`TemperatureSchedule`] | no norm | 1e-5 |
/// | FDY-SED (frednam93) | 31 | 1e-5 | 1e-3 |
/// | CondConv (timm) | none | no norm | 1e-3 in `tf_` networks, else 1e-5 |
/// | DyMN (`EfficientAT`) | 30 or 1 | no norm | 1e-3 |
/// | DCD (liyunsheng13/dcd) | none | 1e-5 (`bn1`, `bn2`) | 1e-5 |
/// | detectors that set `eps=1e-3` for all norms (YOLO) | as trained | 1e-3 | 1e-3 |
///
/// [`TemperatureSchedule`]: crate::layers::TemperatureSchedule
///
/// The two values are [`BatchNorm::EPSILON_PYTORCH`] and [`BatchNorm::EPSILON_TENSORFLOW`].
///
/// ```no_run
/// # use dynconv::{BatchNorm, Checkpoint, Context, OdConv2d};
/// # fn load(context: &Context, bytes: &[u8]) -> dynconv::Result<OdConv2d> {
/// let checkpoint = Checkpoint::new(bytes)?;
/// let (desc, weights) = checkpoint.od_conv::<2>("layer1.0.conv1.", BatchNorm::EPSILON_PYTORCH)?;
/// let norm = checkpoint.batch_norm("layer1.0.norm1.", 64, BatchNorm::EPSILON_PYTORCH)?;
/// let temperature = 1.0;
/// OdConv2d::new(context, &desc.padding([1, 1]), &weights, temperature)?.batch_norm(&norm)
/// # }
/// ```
///
/// # Tensors that nothing reads
///
/// A tensor under a layer's prefix that its reader does not know may change what the layer
/// computes, so it is an error that lists it ([`Error::UnreadKeys`]); `num_batches_tracked` is no
/// such tensor. Where it does not matter, leave it out with [`Checkpoint::without`].
#[derive(Clone, Debug)]
pub struct Checkpoint<'a> {
    tensors: BTreeMap<String, TensorView<'a>>,
    metadata: HashMap<String, String>,
}

/// What training puts in front of all keys of a network.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

impl<'a> Checkpoint<'a> {
    /// Reads the header; the tensors stay in `bytes`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the bytes are not a safetensors file: another format (which is
    /// named), truncated, offsets that overlap or lie outside, and so on; or if two tensors have
    /// the same name without `module.` and `_orig_mod.`.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let fault = |e: safetensors::SafeTensorError| Error::Checkpoint {
            message: file::other_format(bytes).map_or_else(|| e.to_string(), str::to_owned),
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(fault)?;
        let file = SafeTensors::deserialize(bytes).map_err(fault)?;
        let mut tensors = BTreeMap::new();
        for (stored, view) in file.tensors() {
            let key = unwrapped(&stored);
            if tensors.insert(key.to_owned(), view).is_some() {
                return Err(Error::Checkpoint {
                    message: format!(
                        "two tensors are called {key} without their leading module. and _orig_mod."
                    ),
                });
            }
        }
        Ok(Self { tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The file's own text under `key`, such as its configuration.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Names of all tensors, sorted, without leading `module.` and `_orig_mod.`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The checkpoint without the tensors that `leave_out` picks by their names: for tensors that
    /// do not matter, which readers would refuse ([`Error::UnreadKeys`]).
    #[must_use]
    pub fn without(mut self, leave_out: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|key, _| !leave_out(key));
        self
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Shape of a tensor, if there is one of this name.
    #[must_use]
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(TensorView::shape)
    }

    /// Shape of a tensor that must be there; `expected` is what the error says it should be.
    ///
    /// # Errors
    /// [`Error::MissingKey`], which lists keys that are near.
    pub fn needed_shape(&self, key: &str, expected: &str) -> Result<&[usize]> {
        Ok(self.view(key, || expected.into())?.shape())
    }

    /// Values of a tensor in f32. A shape fits `expected` if they are equal but for trailing ones,
    /// so that a fully connected layer may be stored as a 1 x 1 convolution.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::Shape`], [`Error::Value`] for NaN or infinity,
    /// [`Error::Checkpoint`] for a storage type that is no float.
    pub fn tensor(&self, key: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let view = self.view(key, || format!("{expected:?}"))?;
        if trimmed(view.shape()) != trimmed(expected) {
            return Err(Error::shape(key, expected, view.shape()));
        }
        let values = floats(key, view, narrowed)?;
        check_finite(key, &values)?;
        Ok(values)
    }

    /// Values of a tensor as they are stored, NaN and infinities too: for inputs and outputs, not
    /// weights.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::Checkpoint`] for a storage type that is no float.
    pub fn values(&self, key: &str) -> Result<Vec<f64>> {
        floats(key, self.view(key, || ANY_SHAPE.into())?, |value| value)
    }

    /// A batch norm under `prefix`: `weight`, `bias`, `running_mean`, `running_var`. Epsilon is in
    /// no checkpoint: see [`Checkpoint`] for what published networks have.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`]; [`Error::Unsupported`] for a norm without running statistics
    /// (group, layer or instance norm), [`Error::UnreadKeys`].
    pub fn batch_norm(&self, prefix: &str, channels: usize, epsilon: f64) -> Result<BatchNorm> {
        let part = |name: &str| self.tensor(&format!("{prefix}{name}"), &[channels]);
        let [weight, mean] = ["weight", "running_mean"].map(|name| format!("{prefix}{name}"));
        if self.contains(&weight) && !self.contains(&mean) {
            return Err(unsupported_norm(&weight));
        }
        let norm = BatchNorm {
            weight: part("weight")?,
            bias: part("bias")?,
            mean: part("running_mean")?,
            var: part("running_var")?,
            epsilon,
        };
        self.refuse_unread(prefix, &["weight", "bias", "running_mean", "running_var"])?;
        Ok(norm)
    }

    fn view(&self, key: &str, expected: impl FnOnce() -> String) -> Result<&TensorView<'a>> {
        self.tensors.get(key).ok_or_else(|| Error::MissingKey {
            key: key.into(),
            expected: expected(),
            near: self.near(key).into_iter().map(str::to_owned).collect(),
        })
    }

    /// Values of a tensor whose shape was looked at already.
    fn whole(&self, key: &str) -> Result<Vec<f32>> {
        self.tensor(key, self.shape(key).unwrap_or_default())
    }

    fn optional(&self, key: &str, expected: &[usize]) -> Result<Option<Vec<f32>>> {
        self.contains(key).then(|| self.tensor(key, expected)).transpose()
    }

    fn keys_under<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s str> {
        self.keys().filter(move |key| key.starts_with(prefix))
    }

    /// Refuses tensors under `prefix` beside those that were `read`.
    fn refuse_unread(&self, prefix: &str, read: &[&str]) -> Result<()> {
        let is_unread = |key: &&str| {
            let name = &key[prefix.len()..];
            !read.contains(&name) && name.split('.').next_back() != Some("num_batches_tracked")
        };
        let keys: Vec<String> =
            self.keys_under(prefix).filter(is_unread).map(str::to_owned).collect();
        if keys.is_empty() { Ok(()) } else { Err(Error::UnreadKeys { keys }) }
    }

    /// Keys that may have been meant: with the same last parts (in another network, or under
    /// another prefix), or a slip of the pen away. The nearest first, three at most.
    fn near(&self, wanted: &str) -> Vec<&str> {
        let rank = |key: &str| {
            let shared =
                key.rsplit('.').zip(wanted.rsplit('.')).take_while(|(a, b)| a == b).count();
            (shared, strsim::normalized_damerau_levenshtein(key, wanted))
        };
        let ranked = self.keys().map(|key| (rank(key), key));
        let mut near: Vec<_> =
            ranked.filter(|&((shared, alike), _)| shared >= 2 || alike > 0.8).collect();
        near.sort_by(|(a, _), (b, _)| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        near.into_iter().take(3).map(|(_, key)| key).collect()
    }
}

/// A norm that cannot become a part of the weights.
fn unsupported_norm(key: &str) -> Error {
    Error::Unsupported {
        what: format!("{key}: a norm without running statistics (group, layer or instance norm)"),
        because: "its mean and variance come from each sample's own values, \
                  so that it cannot be folded into weights"
            .into(),
    }
}

/// A key without what training puts in front.
fn unwrapped(key: &str) -> &str {
    let inner = WRAPPERS.iter().find_map(|wrapper| key.strip_prefix(wrapper));
    inner.map_or(key, unwrapped)
}

/// A shape without its trailing ones.
fn trimmed(shape: &[usize]) -> &[usize] {
    let len = shape.iter().rposition(|&size| size != 1).map_or(0, |last| last + 1);
    &shape[..len]
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "f64 storage is rounded to the f32 that layers use"
)]
fn narrowed(value: f64) -> f32 {
    value as f32
}

fn floats<T>(key: &str, view: &TensorView<'_>, convert: impl Fn(f64) -> T) -> Result<Vec<T>> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => each(data, |bytes| convert(f32::from_le_bytes(bytes).into())),
        Dtype::F64 => each(data, |bytes| convert(f64::from_le_bytes(bytes))),
        Dtype::F16 => each(data, |bytes| convert(half::f16::from_le_bytes(bytes).into())),
        Dtype::BF16 => each(data, |bytes| convert(half::bf16::from_le_bytes(bytes).into())),
        other => {
            return Err(Error::Checkpoint {
                message: format!("{key} is stored as {other:?}, not as floats"),
            });
        }
    })
}

fn each<const N: usize, T>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
}
