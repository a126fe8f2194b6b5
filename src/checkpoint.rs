//! Layers from safetensors checkpoints, by their published key names.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::desc::ConvDesc;
use crate::error::{Error, Result, check_finite};
use crate::kernels::aggregate::Cells;
use crate::layers::{
    BatchNorm, CondConvWeights, DcdWeights, DyCnnWeights, FdyWeights, KernelWarehouseWeights, Linear, OdWeights,
    PixelMixWeights, published_heads,
};

/// A safetensors file in memory (read or mapped by the caller). Values are converted when asked for.
///
/// A leading `module.` of a key, which data-parallel training leaves behind, is ignored. Storage may be f32, f16, bf16 or
/// f64; a value that is not finite is an error.
///
/// ```no_run
/// # use dynconv::{Checkpoint, Context, OdConv2d};
/// # fn load(context: &Context, bytes: &[u8]) -> dynconv::Result<OdConv2d> {
/// let checkpoint = Checkpoint::new(bytes)?;
/// let (desc, weights) = checkpoint.od_conv::<2>("layer1.0.conv1.")?;
/// let layer = OdConv2d::new(context, &desc.padding([1, 1]), &weights, 1.0)?; // the temperature is in no checkpoint
/// # Ok(layer)
/// # }
/// ```
#[derive(Debug)]
pub struct Checkpoint<'a> {
    tensors: HashMap<String, TensorView<'a>>,
    metadata: HashMap<String, String>,
}

/// Epsilon of every batch norm in the published code.
const BATCH_NORM_EPSILON: f64 = 1e-5;

impl<'a> Checkpoint<'a> {
    /// Reads the header; the tensors stay in `bytes`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the bytes are not a safetensors file: truncated, offsets that overlap or lie outside, and so on.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let fault = |e: safetensors::SafeTensorError| Error::Checkpoint { message: e.to_string() };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(fault)?;
        let file = SafeTensors::deserialize(bytes).map_err(fault)?;
        let tensors = file.tensors().into_iter().map(|(key, view)| {
            let key = key.strip_prefix("module.").map_or(key.clone(), str::to_owned);
            (key, view)
        });
        Ok(Self { tensors: tensors.collect(), metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The file's own text under `key`, such as its configuration.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
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

    /// Values of a tensor in f32. A shape fits `expected` if they are equal but for trailing ones, so that a fully connected
    /// layer may be stored as a 1 x 1 convolution.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::Shape`], [`Error::Value`] for NaN or infinity, [`Error::Checkpoint`] for a storage type
    /// that is no float.
    pub fn tensor(&self, key: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let view = self.view(key, || format!("{expected:?}"))?;
        if trimmed(view.shape()) != trimmed(expected) {
            return Err(Error::shape(key, expected, view.shape()));
        }
        let values = floats(key, view)?;
        check_finite(key, &values)?;
        Ok(values)
    }

    fn view(&self, key: &str, expected: impl FnOnce() -> String) -> Result<&TensorView<'a>> {
        self.tensors.get(key).ok_or_else(|| Error::MissingKey { key: key.into(), expected: expected() })
    }

    /// Values of a tensor whose shape was looked at already.
    fn whole(&self, key: &str) -> Result<Vec<f32>> {
        self.tensor(key, self.shape(key).unwrap_or_default())
    }

    fn optional(&self, key: &str, expected: &[usize]) -> Result<Option<Vec<f32>>> {
        self.contains(key).then(|| self.tensor(key, expected)).transpose()
    }

    /// Sizes of a bank, in the order stored, and the hidden width and channels of the first fully connected layer.
    fn bank_sizes<const D: usize>(&self, bank: &str, fc: &str) -> Result<([usize; 3], [usize; D], [usize; 2])> {
        let bank_wanted = || format!("[K, channels, channels / groups, {D} kernel sizes]");
        let shape = self.view(bank, bank_wanted)?.shape();
        let (sizes, kernel) = shape.split_at(shape.len().min(3));
        let fits = <[usize; 3]>::try_from(sizes).ok().zip(<[usize; D]>::try_from(kernel).ok());
        let (sizes, kernel) = fits.ok_or_else(|| Error::Shape {
            what: bank.into(),
            expected: bank_wanted(),
            found: format!("{shape:?}"),
        })?;
        let fc_wanted = || "[hidden, channels in, ones..]".to_string();
        let fc_shape = self.view(fc, fc_wanted)?.shape();
        match fc_shape {
            [hidden, channels, rest @ ..] if rest.iter().all(|&size| size == 1) => {
                Ok((sizes, kernel, [*hidden, *channels]))
            }
            _ => Err(Error::Shape { what: fc.into(), expected: fc_wanted(), found: format!("{fc_shape:?}") }),
        }
    }

    /// Shape of a bank and of the first fully connected layer give K, both channel counts, kernel size and groups.
    fn bank_desc<const D: usize>(&self, bank: &str, fc: &str) -> Result<(ConvDesc<D>, usize)> {
        let ([kernels, c_out, of_group], kernel, [hidden, c_in]) = self.bank_sizes::<D>(bank, fc)?;
        if of_group == 0 || !c_in.is_multiple_of(of_group) {
            return Err(Error::Shape {
                what: format!("{bank}, axis 2"),
                expected: format!("a divisor of {c_in}, the channels of {fc}"),
                found: of_group.to_string(),
            });
        }
        let desc = ConvDesc::new(c_in, c_out, kernel).kernels(kernels).groups(c_in / of_group);
        desc.geometry()?;
        Ok((desc, hidden))
    }

    /// Weights of a DY-CNN layer under `prefix` (such as `conv2.`): `weight`, `bias`, `attention.fc1.weight`,
    /// `attention.fc2.weight`, `attention.fc2.bias`, the biases being optional. Stride, padding and dilation are not in a
    /// checkpoint: add them to the description.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn dy_cnn<const D: usize>(&self, prefix: &str) -> Result<(ConvDesc<D>, DyCnnWeights)> {
        let [bank, fc] = ["weight", "attention.fc1.weight"].map(|name| format!("{prefix}{name}"));
        let (desc, hidden) = self.bank_desc(&bank, &fc)?;
        Ok((desc, self.dy_cnn_weights(prefix, desc, hidden)?))
    }

    /// As [`Checkpoint::dy_cnn`] for a transposed layer, whose bank is `[K, channels in, channels out / groups, kernel..]` and does not
    /// tell the groups.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn dy_cnn_transposed<const D: usize>(
        &self,
        prefix: &str,
        groups: usize,
    ) -> Result<(ConvDesc<D>, DyCnnWeights)> {
        let [bank, fc] = ["weight", "attention.fc1.weight"].map(|name| format!("{prefix}{name}"));
        let ([kernels, c_in, of_group], kernel, [hidden, channels]) = self.bank_sizes::<D>(&bank, &fc)?;
        if c_in != channels {
            return Err(Error::Shape {
                what: format!("{bank}, axis 1"),
                expected: format!("{channels}, the channels of {fc}"),
                found: c_in.to_string(),
            });
        }
        let desc = ConvDesc::new(c_in, of_group.saturating_mul(groups), kernel)
            .kernels(kernels)
            .groups(groups)
            .transposed([0; D]);
        Ok((desc, self.dy_cnn_weights(prefix, desc, hidden)?))
    }

    fn dy_cnn_weights<const D: usize>(&self, prefix: &str, desc: ConvDesc<D>, hidden: usize) -> Result<DyCnnWeights> {
        let key = |name: &str| format!("{prefix}{name}");
        let g = desc.geometry()?;
        Ok(DyCnnWeights {
            bank: self.whole(&key("weight"))?,
            bias: self.optional(&key("bias"), &[g.kernels, g.c_out])?,
            fc1: self.tensor(&key("attention.fc1.weight"), &[hidden, g.c_in])?,
            fc1_bias: self.optional(&key("attention.fc1.bias"), &[hidden])?,
            fc2: self.tensor(&key("attention.fc2.weight"), &[g.kernels, hidden])?,
            fc2_bias: self.optional(&key("attention.fc2.bias"), &[g.kernels])?,
        })
    }

    /// Weights of an ODConv layer under `prefix`: `weight`, `attention.fc.weight`, `attention.bn.*` and the heads
    /// `attention.{channel,filter,spatial,kernel}_fc.*`. A head that the published code skips for this shape may be absent;
    /// one that it has must be there.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn od_conv<const D: usize>(&self, prefix: &str) -> Result<(ConvDesc<D>, OdWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let (desc, hidden) = self.bank_desc(&key("weight"), &key("attention.fc.weight"))?;
        let g = desc.geometry()?;
        let heads =
            [("channel_fc", g.c_in), ("filter_fc", g.c_out), ("spatial_fc", g.taps()), ("kernel_fc", g.kernels)];
        let mut linears = [const { None }; 4];
        for (i, (name, outputs)) in heads.into_iter().enumerate() {
            let weight = key(&format!("attention.{name}.weight"));
            if published_heads(&g)[i] || self.contains(&weight) {
                linears[i] = Some(Linear {
                    weight: self.tensor(&weight, &[outputs, hidden])?,
                    bias: self.tensor(&key(&format!("attention.{name}.bias")), &[outputs])?,
                });
            }
        }
        let [channel_fc, filter_fc, spatial_fc, kernel_fc] = linears;
        let weights = OdWeights {
            bank: self.whole(&key("weight"))?,
            fc: self.tensor(&key("attention.fc.weight"), &[hidden, g.c_in])?,
            bn: self.batch_norm(&key("attention.bn."), hidden)?,
            channel_fc,
            filter_fc,
            spatial_fc,
            kernel_fc,
        };
        Ok((desc, weights))
    }

    /// Weights of a CondConv layer: `weight [E, channels out * channels in / groups * taps]` and `bias [E, channels out]` under `prefix`,
    /// `weight [E, channels in]` and `bias [E]` of the routing under `routing` (such as `routing_fn.`). Flat storage does not tell the
    /// convolution, so the description comes from the caller; E is added to it.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn cond_conv<const D: usize>(
        &self,
        prefix: &str,
        routing: &str,
        desc: &ConvDesc<D>,
    ) -> Result<(ConvDesc<D>, CondConvWeights)> {
        let key = format!("{prefix}weight");
        let weights = desc.geometry()?.weights();
        let shape = self.view(&key, || format!("[E, {weights}]"))?.shape();
        let desc = desc.kernels(shape.first().copied().unwrap_or(0));
        let g = desc.geometry()?;
        let weights = CondConvWeights {
            experts: self.tensor(&key, &[g.kernels, weights])?,
            bias: self.optional(&format!("{prefix}bias"), &[g.kernels, g.c_out])?,
            routing: self.tensor(&format!("{routing}weight"), &[g.kernels, g.c_in])?,
            routing_bias: self.tensor(&format!("{routing}bias"), &[g.kernels])?,
        };
        Ok((desc, weights))
    }

    /// Weights of a pixel mixture under `prefix`: `weight`, `bias`, `attention.weight [K, channels in]`, `attention.bias [K]`.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn pixel_mix(&self, prefix: &str) -> Result<(ConvDesc<2>, PixelMixWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let (desc, _) = self.bank_desc::<2>(&key("weight"), &key("attention.weight"))?;
        let g = desc.geometry()?;
        let weights = PixelMixWeights {
            bank: self.whole(&key("weight"))?,
            bias: self.optional(&key("bias"), &[g.kernels, g.c_out])?,
            attention: Linear {
                weight: self.tensor(&key("attention.weight"), &[g.kernels, g.c_in])?,
                bias: self.tensor(&key("attention.bias"), &[g.kernels])?,
            },
        };
        Ok((desc, weights))
    }

    /// Weights of a frequency-dynamic layer under `prefix`: `weight`, `bias`, `attention.conv1d1.weight [A, channels in, taps]`,
    /// `attention.bn.*`, `attention.conv1d2.*`.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn fdy(&self, prefix: &str) -> Result<(ConvDesc<2>, FdyWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let shape = self.view(&key("weight"), || "[K, channels out, channels in, 2 kernel sizes]".into())?.shape();
        let &[kernels, c_out, c_in, height, width] = shape else {
            return Err(Error::Shape {
                what: key("weight"),
                expected: "[K, channels out, channels in, 2 kernel sizes]".into(),
                found: format!("{shape:?}"),
            });
        };
        let conv1d1 = key("attention.conv1d1.weight");
        let hidden = self.view(&conv1d1, || format!("[A, {c_in}, {width}]"))?.shape().first().copied().unwrap_or(0);
        let weights = FdyWeights {
            bank: self.whole(&key("weight"))?,
            bias: self.optional(&key("bias"), &[kernels, c_out])?,
            conv1d1: self.tensor(&conv1d1, &[hidden, c_in, width])?,
            bn: self.batch_norm(&key("attention.bn."), hidden)?,
            conv1d2: Linear {
                weight: self.tensor(&key("attention.conv1d2.weight"), &[kernels, hidden])?,
                bias: self.tensor(&key("attention.conv1d2.bias"), &[kernels])?,
            },
        };
        Ok((ConvDesc::new(c_in, c_out, [height, width]).kernels(kernels), weights))
    }

    /// Weights of a DCD layer under `prefix`: `conv.weight`, `q.weight`, `p.weight`, `bn1.*`, `bn2.*`, `fc.0.weight`,
    /// `fc.1.fc.0.weight`, `fc_phi.weight`, `fc_scale.weight`.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn dcd(&self, prefix: &str) -> Result<(ConvDesc<2>, DcdWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let wanted = || "[channels out, channels in, 2 kernel sizes]".to_string();
        let shape = self.view(&key("conv.weight"), wanted)?.shape();
        let &[c_out, c_in, height, width] = shape else {
            return Err(Error::Shape { what: key("conv.weight"), expected: wanted(), found: format!("{shape:?}") });
        };
        let rows = |name: &str| -> Result<usize> {
            Ok(self.view(&key(name), || "a matrix".into())?.shape().first().copied().unwrap_or(0))
        };
        let (latent, squeezed) = (rows("q.weight")?, rows("fc.0.weight")?);
        let weights = DcdWeights {
            conv: self.whole(&key("conv.weight"))?,
            q: self.tensor(&key("q.weight"), &[latent, c_in])?,
            p: self.tensor(&key("p.weight"), &[c_out, latent])?,
            bn1: self.batch_norm(&key("bn1."), latent)?,
            bn2: self.batch_norm(&key("bn2."), latent)?,
            squeeze: self.whole(&key("fc.0.weight"))?,
            gate: self.tensor(&key("fc.1.fc.0.weight"), &[squeezed, squeezed])?,
            phi: self.tensor(&key("fc_phi.weight"), &[latent.saturating_mul(latent), squeezed])?,
            scale: self.tensor(&key("fc_scale.weight"), &[c_out, squeezed])?,
        };
        Ok((ConvDesc::new(c_in, c_out, [height, width]), weights))
    }

    /// Cells of a warehouse `[count, channels out, channels in, taps..]` and their values.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn warehouse(&self, key: &str) -> Result<(Cells, Vec<f32>)> {
        let wanted = || "[count, channels out, channels in, taps..]".to_string();
        let shape = self.view(key, wanted)?.shape();
        let &[count, c_out, c_in, ref taps @ ..] = shape else {
            return Err(Error::Shape { what: key.into(), expected: wanted(), found: format!("{shape:?}") });
        };
        Ok((
            Cells { count, c_out, c_in, taps: taps.iter().fold(1, |n, &size| n.saturating_mul(size)) },
            self.whole(key)?,
        ))
    }

    /// Weights of a KernelWarehouse layer under `prefix`: `attention.fc1.weight`, `attention.norm1.*`, `attention.fc2.*`, `bias`.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn kernel_warehouse<const D: usize>(
        &self,
        prefix: &str,
        desc: &ConvDesc<D>,
        cells: Cells,
    ) -> Result<KernelWarehouseWeights> {
        let key = |name: &str| format!("{prefix}{name}");
        let g = desc.geometry()?;
        let fc1 = key("attention.fc1.weight");
        let hidden = self.view(&fc1, || format!("[A, {}]", g.c_in))?.shape().first().copied().unwrap_or(0);
        let logits = cells.per_kernel(&g).saturating_mul(cells.count.saturating_add(1));
        Ok(KernelWarehouseWeights {
            fc1: self.tensor(&fc1, &[hidden, g.c_in])?,
            norm: self.batch_norm(&key("attention.norm1."), hidden)?,
            fc2: Linear {
                weight: self.tensor(&key("attention.fc2.weight"), &[logits, hidden])?,
                bias: self.tensor(&key("attention.fc2.bias"), &[logits])?,
            },
            bias: self.optional(&key("bias"), &[g.c_out])?,
        })
    }

    /// A batch norm under `prefix`: `weight`, `bias`, `running_mean`, `running_var`; epsilon 1e-5.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn batch_norm(&self, prefix: &str, channels: usize) -> Result<BatchNorm> {
        let part = |name: &str| self.tensor(&format!("{prefix}{name}"), &[channels]);
        Ok(BatchNorm {
            weight: part("weight")?,
            bias: part("bias")?,
            mean: part("running_mean")?,
            var: part("running_var")?,
            epsilon: BATCH_NORM_EPSILON,
        })
    }
}

/// A shape without its trailing ones.
fn trimmed(shape: &[usize]) -> &[usize] {
    let len = shape.iter().rposition(|&size| size != 1).map_or(0, |last| last + 1);
    &shape[..len]
}

#[expect(clippy::cast_possible_truncation, reason = "f64 storage is rounded to the f32 that layers use")]
fn floats(key: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => each(data, f32::from_le_bytes),
        Dtype::F64 => each(data, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F16 => each(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        other => {
            return Err(Error::Checkpoint { message: format!("{key} is stored as {other:?}, not as floats") });
        }
    })
}

fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
}
