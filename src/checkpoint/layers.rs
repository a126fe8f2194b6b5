//! Readers of layers: one a family.

use super::{Checkpoint, narrowed, unsupported_norm};
use crate::error::{Error, Result};
use crate::layers::{
    BatchNorm, CondConvWeights, DcdWeights, DyCnnWeights, FdyWeights, KernelWarehouseWeights,
    Linear, OdWeights, PixelMixWeights, published_heads,
};
use crate::problem::{Cells, ConvDesc};

/// Names that the readers know, behind a layer's prefix.
const BANK: [&str; 2] = ["weight", "bias"];
const DY_CNN: [&str; 6] = [
    "weight",
    "bias",
    "attention.fc1.weight",
    "attention.fc1.bias",
    "attention.fc2.weight",
    "attention.fc2.bias",
];
const OD_CONV: [&str; 16] = [
    "weight",
    "bias",
    "attention.fc.weight",
    "attention.fc.bias",
    "attention.bn.weight",
    "attention.bn.bias",
    "attention.bn.running_mean",
    "attention.bn.running_var",
    "attention.channel_fc.weight",
    "attention.channel_fc.bias",
    "attention.filter_fc.weight",
    "attention.filter_fc.bias",
    "attention.spatial_fc.weight",
    "attention.spatial_fc.bias",
    "attention.kernel_fc.weight",
    "attention.kernel_fc.bias",
];
const PIXEL_MIX: [&str; 4] = ["weight", "bias", "attention.weight", "attention.bias"];
const FDY: [&str; 9] = [
    "weight",
    "bias",
    "attention.conv1d1.weight",
    "attention.bn.weight",
    "attention.bn.bias",
    "attention.bn.running_mean",
    "attention.bn.running_var",
    "attention.conv1d2.weight",
    "attention.conv1d2.bias",
];
const DCD: [&str; 15] = [
    "conv.weight",
    "q.weight",
    "p.weight",
    "bn1.weight",
    "bn1.bias",
    "bn1.running_mean",
    "bn1.running_var",
    "bn2.weight",
    "bn2.bias",
    "bn2.running_mean",
    "bn2.running_var",
    "fc.0.weight",
    "fc.1.fc.0.weight",
    "fc_phi.weight",
    "fc_scale.weight",
];
const KERNEL_WAREHOUSE: [&str; 11] = [
    "attention.fc1.weight",
    "attention.fc1.bias",
    "attention.norm1.weight",
    "attention.norm1.bias",
    "attention.norm1.running_mean",
    "attention.norm1.running_var",
    "attention.fc2.weight",
    "attention.fc2.bias",
    "attention.fc3.weight",
    "attention.basis_bias",
    "bias",
];

impl Checkpoint<'_> {
    /// Sizes of a bank, in the order stored, and the hidden width and channels of the first fully
    /// connected layer.
    fn bank_sizes<const D: usize>(
        &self,
        bank: &str,
        fc: &str,
    ) -> Result<([usize; 3], [usize; D], [usize; 2])> {
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
            _ => Err(Error::Shape {
                what: fc.into(),
                expected: fc_wanted(),
                found: format!("{fc_shape:?}"),
            }),
        }
    }

    /// Shape of a bank and of the first fully connected layer give K, both channel counts, kernel
    /// size and groups.
    fn bank_desc<const D: usize>(&self, bank: &str, fc: &str) -> Result<(ConvDesc<D>, usize)> {
        let ([kernels, c_out, of_group], kernel, [hidden, c_in]) =
            self.bank_sizes::<D>(bank, fc)?;
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

    /// Weights of a DY-CNN layer under `prefix` (such as `conv2.`): `weight`, `bias`,
    /// `attention.fc1.weight`, `attention.fc2.weight`, `attention.fc2.bias`, the biases being
    /// optional. Stride, padding and dilation are not in a checkpoint: add them to the
    /// description.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn dy_cnn<const D: usize>(&self, prefix: &str) -> Result<(ConvDesc<D>, DyCnnWeights)> {
        let [bank, fc] = ["weight", "attention.fc1.weight"].map(|name| format!("{prefix}{name}"));
        let (desc, hidden) = self.bank_desc(&bank, &fc)?;
        Ok((desc, self.dy_cnn_weights(prefix, desc, hidden)?))
    }

    /// As [`Checkpoint::dy_cnn`] for a transposed layer, whose bank is `[K, channels in, channels
    /// out / groups, kernel..]` and does not tell the groups.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn dy_cnn_transposed<const D: usize>(
        &self,
        prefix: &str,
        groups: usize,
    ) -> Result<(ConvDesc<D>, DyCnnWeights)> {
        let [bank, fc] = ["weight", "attention.fc1.weight"].map(|name| format!("{prefix}{name}"));
        let ([kernels, c_in, of_group], kernel, [hidden, channels]) =
            self.bank_sizes::<D>(&bank, &fc)?;
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

    fn dy_cnn_weights<const D: usize>(
        &self,
        prefix: &str,
        desc: ConvDesc<D>,
        hidden: usize,
    ) -> Result<DyCnnWeights> {
        let key = |name: &str| format!("{prefix}{name}");
        let g = desc.geometry()?;
        let weights = DyCnnWeights {
            bank: self.whole(&key("weight"))?,
            bias: self.optional(&key("bias"), &[g.kernels, g.c_out])?,
            hidden: self.tensor(&key("attention.fc1.weight"), &[hidden, g.c_in])?,
            hidden_bias: self.optional(&key("attention.fc1.bias"), &[hidden])?,
            head: self.tensor(&key("attention.fc2.weight"), &[g.kernels, hidden])?,
            head_bias: self.optional(&key("attention.fc2.bias"), &[g.kernels])?,
        };
        self.refuse_unread(prefix, &DY_CNN)?;
        Ok(weights)
    }

    /// Weights of an ODConv layer under `prefix`: `weight`, `attention.fc.weight`,
    /// `attention.bn.*` and the heads `attention.{channel,filter,spatial,kernel}_fc.*`. A head
    /// that the published code skips for this shape may be absent; one that it has must be there.
    /// Epsilon is that of `attention.bn` (1e-5 in the published code): see [`Checkpoint`].
    ///
    /// What forks add is read where it is there: a `bias [K, channels out]` beside the bank, mixed
    /// by the kernel attention alone ([`OdWeights::bias`]), and `attention.fc.bias`. Without any
    /// `attention.bn.*` there is no norm.
    ///
    /// # Errors
    /// As [`Checkpoint::batch_norm`].
    pub fn od_conv<const D: usize>(
        &self,
        prefix: &str,
        epsilon: f64,
    ) -> Result<(ConvDesc<D>, OdWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let (desc, hidden) = self.bank_desc(&key("weight"), &key("attention.fc.weight"))?;
        let g = desc.geometry()?;
        let heads = [
            ("channel_fc", g.c_in),
            ("filter_fc", g.c_out),
            ("spatial_fc", g.taps()),
            ("kernel_fc", g.kernels),
        ];
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
            bias: self.optional(&key("bias"), &[g.kernels, g.c_out])?,
            hidden: self.tensor(&key("attention.fc.weight"), &[hidden, g.c_in])?,
            norm: self.hidden_norm(
                prefix,
                ["attention.fc.bias", "attention.bn."],
                hidden,
                epsilon,
            )?,
            channel_head: channel_fc,
            filter_head: filter_fc,
            tap_head: spatial_fc,
            kernel_head: kernel_fc,
        };
        self.refuse_unread(prefix, &OD_CONV)?;
        Ok((desc, weights))
    }

    /// What follows the hidden layer of an attention branch: its bias, if it has one, and its
    /// batch norm, if it has one.
    fn hidden_norm(
        &self,
        prefix: &str,
        [bias, norm]: [&str; 2],
        hidden: usize,
        epsilon: f64,
    ) -> Result<BatchNorm> {
        let attention = format!("{prefix}attention.");
        let is_group_norm = |name: &str| ["gn", "group_norm", "groupnorm"].contains(&name);
        if let Some(key) = self
            .keys_under(&attention)
            .find(|key| key[attention.len()..].split('.').any(is_group_norm))
        {
            return Err(unsupported_norm(key));
        }
        let bias = self.optional(&format!("{prefix}{bias}"), &[hidden])?;
        let norm = format!("{prefix}{norm}");
        if self.keys_under(&norm).next().is_none() {
            return Ok(BatchNorm::only_bias(bias.unwrap_or_else(|| vec![0.0; hidden])));
        }
        let mut norm = self.batch_norm(&norm, hidden, epsilon)?;
        for (mean, bias) in norm.mean.iter_mut().zip(bias.iter().flatten()) {
            *mean -= bias;
        }
        Ok(norm)
    }

    /// Weights of a CondConv layer: `weight [E, channels out * channels in / groups * taps]` and
    /// `bias [E, channels out]` under `prefix`, `weight [E, channels in]` and `bias [E]` of the
    /// routing under `routing` (such as `routing_fn.`). Flat storage does not tell the
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
            bank: self.tensor(&key, &[g.kernels, weights])?,
            bias: self.optional(&format!("{prefix}bias"), &[g.kernels, g.c_out])?,
            head: self.tensor(&format!("{routing}weight"), &[g.kernels, g.c_in])?,
            head_bias: self.tensor(&format!("{routing}bias"), &[g.kernels])?,
        };
        // The routing's prefix may begin with the layer's.
        let routing = ["weight", "bias"].map(|name| format!("{routing}{name}"));
        let mut read: Vec<&str> =
            routing.iter().filter_map(|key| key.strip_prefix(prefix)).collect();
        read.extend(BANK);
        self.refuse_unread(prefix, &read)?;
        Ok((desc, weights))
    }

    /// Weights of a pixel mixture under `prefix`: `weight`, `bias`, `attention.weight [K, channels
    /// in]`, `attention.bias [K]`.
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
            head: Linear {
                weight: self.tensor(&key("attention.weight"), &[g.kernels, g.c_in])?,
                bias: self.tensor(&key("attention.bias"), &[g.kernels])?,
            },
        };
        self.refuse_unread(prefix, &PIXEL_MIX)?;
        Ok((desc, weights))
    }

    /// Weights of a frequency-dynamic layer under `prefix`: `weight`, `bias`,
    /// `attention.conv1d1.weight [A, channels in, taps]`, `attention.bn.*`, `attention.conv1d2.*`.
    /// Epsilon is that of `attention.bn`, 1e-5 in the published code, whose batch norms behind
    /// layers have 1e-3: see [`Checkpoint`].
    ///
    /// # Errors
    /// As [`Checkpoint::batch_norm`].
    pub fn fdy(&self, prefix: &str, epsilon: f64) -> Result<(ConvDesc<2>, FdyWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let shape = self
            .view(&key("weight"), || "[K, channels out, channels in, 2 kernel sizes]".into())?
            .shape();
        let &[kernels, c_out, c_in, height, width] = shape else {
            return Err(Error::Shape {
                what: key("weight"),
                expected: "[K, channels out, channels in, 2 kernel sizes]".into(),
                found: format!("{shape:?}"),
            });
        };
        let conv1d1 = key("attention.conv1d1.weight");
        let hidden = self
            .view(&conv1d1, || format!("[A, {c_in}, {width}]"))?
            .shape()
            .first()
            .copied()
            .unwrap_or(0);
        let weights = FdyWeights {
            bank: self.whole(&key("weight"))?,
            bias: self.optional(&key("bias"), &[kernels, c_out])?,
            hidden: self.tensor(&conv1d1, &[hidden, c_in, width])?,
            norm: self.batch_norm(&key("attention.bn."), hidden, epsilon)?,
            head: Linear {
                weight: self.tensor(&key("attention.conv1d2.weight"), &[kernels, hidden])?,
                bias: self.tensor(&key("attention.conv1d2.bias"), &[kernels])?,
            },
        };
        self.refuse_unread(prefix, &FDY)?;
        Ok((ConvDesc::new(c_in, c_out, [height, width]).kernels(kernels), weights))
    }

    /// Weights of a DCD layer under `prefix`: `conv.weight`, `q.weight`, `p.weight`, `bn1.*`,
    /// `bn2.*`, `fc.0.weight`, `fc.1.fc.0.weight`, `fc_phi.weight`, `fc_scale.weight`. Epsilon is
    /// that of `bn1` and `bn2`, 1e-5 in the published code: see [`Checkpoint`].
    ///
    /// # Errors
    /// As [`Checkpoint::batch_norm`].
    pub fn dcd(&self, prefix: &str, epsilon: f64) -> Result<(ConvDesc<2>, DcdWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let wanted = || "[channels out, channels in, 2 kernel sizes]".to_string();
        let shape = self.view(&key("conv.weight"), wanted)?.shape();
        let &[c_out, c_in, height, width] = shape else {
            return Err(Error::Shape {
                what: key("conv.weight"),
                expected: wanted(),
                found: format!("{shape:?}"),
            });
        };
        let rows = |name: &str| -> Result<usize> {
            Ok(self.view(&key(name), || "a matrix".into())?.shape().first().copied().unwrap_or(0))
        };
        let (latent, squeezed) = (rows("q.weight")?, rows("fc.0.weight")?);
        let weights = DcdWeights {
            conv: self.whole(&key("conv.weight"))?,
            q: self.tensor(&key("q.weight"), &[latent, c_in])?,
            p: self.tensor(&key("p.weight"), &[c_out, latent])?,
            norm1: self.batch_norm(&key("bn1."), latent, epsilon)?,
            norm2: self.batch_norm(&key("bn2."), latent, epsilon)?,
            squeeze: self.whole(&key("fc.0.weight"))?,
            gate: self.tensor(&key("fc.1.fc.0.weight"), &[squeezed, squeezed])?,
            phi: self.tensor(&key("fc_phi.weight"), &[latent.saturating_mul(latent), squeezed])?,
            scale: self.tensor(&key("fc_scale.weight"), &[c_out, squeezed])?,
        };
        self.refuse_unread(prefix, &DCD)?;
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
            return Err(Error::Shape {
                what: key.into(),
                expected: wanted(),
                found: format!("{shape:?}"),
            });
        };
        Ok((
            Cells {
                count,
                c_out,
                c_in,
                taps: taps.iter().fold(1, |n, &size| n.saturating_mul(size)),
            },
            self.whole(key)?,
        ))
    }

    /// Weights of a KernelWarehouse layer under `prefix`: `attention.fc1.weight`,
    /// `attention.norm1.*`, `attention.fc2.*`, `bias`. Epsilon is that of `attention.norm1`, 1e-5
    /// in the published code: see [`Checkpoint`]. An `attention.fc1.bias` is read where there is
    /// one; without any `attention.norm1.*` there is no norm.
    ///
    /// # Errors
    /// As [`Checkpoint::batch_norm`].
    pub fn kernel_warehouse<const D: usize>(
        &self,
        prefix: &str,
        desc: &ConvDesc<D>,
        cells: Cells,
        epsilon: f64,
    ) -> Result<KernelWarehouseWeights> {
        self.kernel_warehouse_with_basis(prefix, desc, cells, 0, epsilon)
    }

    /// As [`Checkpoint::kernel_warehouse`], for layers that may have a non-local basis
    /// (`attention.fc3.weight`, `attention.basis_bias`), whose head becomes one without. `start` is
    /// how many cells of the warehouse stand before those that the layer calls its own, which no
    /// checkpoint tells.
    ///
    /// # Errors
    /// As [`Checkpoint::batch_norm`].
    pub fn kernel_warehouse_with_basis<const D: usize>(
        &self,
        prefix: &str,
        desc: &ConvDesc<D>,
        cells: Cells,
        start: usize,
        epsilon: f64,
    ) -> Result<KernelWarehouseWeights> {
        let key = |name: &str| format!("{prefix}{name}");
        let g = desc.geometry()?;
        let fc1 = key("attention.fc1.weight");
        let hidden =
            self.view(&fc1, || format!("[A, {}]", g.c_in))?.shape().first().copied().unwrap_or(0);
        let logits = cells.per_kernel(&g).saturating_mul(cells.count.saturating_add(1));
        let weights = KernelWarehouseWeights {
            hidden: self.tensor(&fc1, &[hidden, g.c_in])?,
            norm: self.hidden_norm(
                prefix,
                ["attention.fc1.bias", "attention.norm1."],
                hidden,
                epsilon,
            )?,
            head: match self.contains(&key("attention.fc3.weight")) {
                true => {
                    self.basis_head(prefix, [cells.per_kernel(&g), cells.count, hidden], start)?
                }
                false => Linear {
                    weight: self.tensor(&key("attention.fc2.weight"), &[logits, hidden])?,
                    bias: self.tensor(&key("attention.fc2.bias"), &[logits])?,
                },
            },
            bias: self.optional(&key("bias"), &[g.c_out])?,
        };
        self.refuse_unread(prefix, &KERNEL_WAREHOUSE)?;
        Ok(weights)
    }

    /// A head of m runs of n + 1 logits, of which those of far cells are `fc3` times so many of
    /// `fc2`: the product of both, in f64. A run is far cells before `start`, the layer's own, far
    /// cells behind, and the cell of zeros.
    fn basis_head(
        &self,
        prefix: &str,
        [runs, cells, hidden]: [usize; 3],
        start: usize,
    ) -> Result<Linear> {
        let key = |name: &str| format!("{prefix}attention.{name}");
        let wanted = || format!("[at most {cells}, width of the basis]");
        let shape = self.view(&key("fc3.weight"), wanted)?.shape();
        let &[far, basis] = shape else {
            let (expected, found) = (wanted(), format!("{shape:?}"));
            return Err(Error::Shape { what: key("fc3.weight"), expected, found });
        };
        let own = cells.checked_sub(far).filter(|_| start <= far).ok_or_else(|| Error::Shape {
            what: key("fc3.weight"),
            expected: format!("[{start} to {cells}, width of the basis]"),
            found: format!("{shape:?}"),
        })?;
        let width = own.saturating_add(basis).saturating_add(1);
        let rows = runs.saturating_mul(width);
        let fc2 = self.tensor(&key("fc2.weight"), &[rows, hidden])?;
        let fc3 = self.tensor(&key("fc3.weight"), &[far, basis])?;
        let bias =
            self.tensor(&key("basis_bias"), &[runs.saturating_mul(cells.saturating_add(1))])?;
        let mut weight = Vec::with_capacity(bias.len().saturating_mul(hidden));
        for run in fc2.chunks_exact(width.saturating_mul(hidden.max(1))) {
            let row = |i: usize| &run[i * hidden..][..hidden];
            let far_row = |cell: usize| {
                let shares = &fc3[cell * basis..][..basis];
                (0..hidden).map(move |unit| {
                    let products = shares
                        .iter()
                        .enumerate()
                        .map(|(i, share)| f64::from(*share) * f64::from(row(own + i)[unit]));
                    narrowed(products.sum())
                })
            };
            weight.extend((0..start).flat_map(far_row));
            weight.extend((0..own).flat_map(row));
            weight.extend((start..far).flat_map(far_row));
            weight.extend(row(own + basis));
        }
        Ok(Linear { weight, bias })
    }
}
