//! What architectures share: a walk through a checkpoint that knows what it has read.

use std::collections::HashMap;
use std::sync::Arc;

use dynconv::layers::{AnyLayer, GlobalPool};
use dynconv::{
    Activation, BatchNorm, Checkpoint, Context, ConvDesc, DyCnnWeights, DynConv2d, Error,
    KernelWarehouse2d, ModulatedConv2d, OdConv2d, Result, StaticConv2d, Warehouse,
};

use crate::{Network, Options, Slot};

/// Reads layers from a checkpoint, and remembers which tensors these were.
pub(crate) struct Walk<'a> {
    pub(crate) context: &'a Context,
    checkpoint: &'a Checkpoint<'a>,
    options: &'a Options,
    /// Prefixes of what was read.
    read: Vec<String>,
    warehouses: HashMap<usize, Warehouse>,
    /// Published epsilon of the batch norms.
    epsilon: f64,
}

/// A convolution of any kind.
enum Conv {
    Static(StaticConv2d),
    DyCnn(DynConv2d),
    Od(OdConv2d),
    Warehouse(KernelWarehouse2d),
}

impl Conv {
    fn into_layer(self) -> Arc<dyn AnyLayer> {
        match self {
            Self::Static(layer) => Arc::new(layer),
            Self::DyCnn(layer) => Arc::new(layer),
            Self::Od(layer) => Arc::new(layer),
            Self::Warehouse(layer) => Arc::new(layer),
        }
    }
}

macro_rules! each {
    ($conv:expr, $layer:ident => $made:expr) => {
        match $conv {
            Conv::Static($layer) => Conv::Static($made),
            Conv::DyCnn($layer) => Conv::DyCnn($made),
            Conv::Od($layer) => Conv::Od($made),
            Conv::Warehouse($layer) => Conv::Warehouse($made),
        }
    };
}

/// A convolution of a network: where its tensors are, and what they do not tell.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// Prefix of the convolution.
    pub(crate) conv: &'a str,
    /// Prefix of the batch norm behind it.
    pub(crate) norm: &'a str,
    /// Channels in.
    pub(crate) channels: usize,
    pub(crate) stride: usize,
    /// Whether each channel is a group of its own.
    pub(crate) is_depthwise: bool,
    /// Kernel size, and which warehouse has its cells, for those that have no kernel of their own.
    pub(crate) cells: Option<(usize, usize)>,
    pub(crate) activation: Activation,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        context: &'a Context,
        checkpoint: &'a Checkpoint<'a>,
        options: &'a Options,
    ) -> Self {
        let (read, warehouses) = (Vec::new(), HashMap::new());
        let epsilon = BatchNorm::EPSILON_PYTORCH;
        Self { context, checkpoint, options, read, warehouses, epsilon }
    }

    /// For networks whose batch norms have another epsilon.
    pub(crate) fn with_epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.checkpoint.contains(key)
    }

    /// A convolution of whatever kind its tensors are, padded by half its kernel, with its norm and
    /// activation; and its channels out.
    pub(crate) fn conv(&mut self, at: At<'_>) -> Result<(Arc<dyn AnyLayer>, usize)> {
        let (conv, channels) = self.bare(at)?;
        let norm = self.norm(at.norm, channels)?;
        let conv = each!(conv, layer => layer.batch_norm(&norm)?.activation(at.activation));
        Ok((conv.into_layer(), channels))
    }

    /// The same without a norm.
    pub(crate) fn conv_alone(
        &mut self,
        prefix: &str,
        channels: usize,
        activation: Activation,
    ) -> Result<(Arc<dyn AnyLayer>, usize)> {
        let at = At {
            conv: prefix,
            norm: "",
            channels,
            stride: 1,
            is_depthwise: false,
            cells: None,
            activation,
        };
        let (conv, channels) = self.bare(at)?;
        Ok((each!(conv, layer => layer.activation(activation)).into_layer(), channels))
    }

    fn bare(&mut self, at: At<'_>) -> Result<(Conv, usize)> {
        let Options { temperature, attention_epsilon, .. } = *self.options;
        let (prefix, context) = (at.conv, self.context);
        let has = |name: &str| self.checkpoint.contains(&format!("{prefix}{name}"));
        let placed = |desc: ConvDesc<2>| -> Result<(ConvDesc<2>, usize)> {
            let g = desc.geometry()?;
            if g.c_in != at.channels {
                return Err(Error::Shape {
                    what: format!("channels of {prefix}weight"),
                    expected: format!("{}, of the layer before", at.channels),
                    found: g.c_in.to_string(),
                });
            }
            let padding = [(g.kernel[1] - 1) / 2, (g.kernel[2] - 1) / 2];
            Ok((desc.stride([at.stride; 2]).padding(padding), g.c_out))
        };
        if let Some(cells) = at.cells.filter(|_| has("attention.norm1.weight")) {
            return self.assembled(at, cells);
        }
        if has("attention.fc.weight") {
            // The reader refuses what it does not know under the prefix.
            let (desc, weights) = self.checkpoint.od_conv::<2>(prefix, attention_epsilon)?;
            self.read.push(prefix.into());
            let (desc, channels) = placed(desc)?;
            let temperature = temperature.unwrap_or(1.0);
            return Ok((Conv::Od(OdConv2d::new(context, &desc, &weights, temperature)?), channels));
        }
        if has("attention.fc1.weight") {
            let (desc, weights) = self.checkpoint.dy_cnn::<2>(prefix)?;
            self.read.push(prefix.into());
            let (desc, channels) = placed(desc)?;
            let layer = DynConv2d::new(context, &desc, &weights, self.needed_temperature()?)?;
            return Ok((Conv::DyCnn(layer), channels));
        }
        if has("kernels_weights") {
            let (desc, weights) = self.scored(prefix, at)?;
            let (desc, channels) = placed(desc)?;
            let temperature = temperature.unwrap_or(1.0);
            let layer = DynConv2d::new(context, &desc, &weights, temperature)?;
            return Ok((Conv::DyCnn(layer), channels));
        }
        let key = format!("{prefix}weight");
        let &[c_out, of_group, height, width] = self.sizes(&key)?;
        let groups = if at.is_depthwise { at.channels } else { 1 };
        let desc = ConvDesc::new(of_group.saturating_mul(groups), c_out, [height, width]);
        let (desc, channels) = placed(desc.groups(groups))?;
        let kernel = self.tensor(key, &[c_out, of_group, height, width])?;
        let bias = format!("{prefix}bias");
        let bias = self.contains(&bias).then(|| self.tensor(bias, &[c_out])).transpose()?;
        Ok((Conv::Static(StaticConv2d::new(context, &desc, &kernel, bias.as_deref())?), channels))
    }

    /// A KernelWarehouse layer, whose kernel is made of cells; channels out are those of its norm.
    fn assembled(&mut self, at: At<'_>, (kernel, number): (usize, usize)) -> Result<(Conv, usize)> {
        let &[c_out] = self.sizes(&format!("{}weight", at.norm))?;
        let desc = ConvDesc::new(at.channels, c_out, [kernel; 2]);
        let desc = desc.stride([at.stride; 2]).padding([(kernel - 1) / 2; 2]);
        let warehouse = self.warehouse(number)?;
        let epsilon = self.options.attention_epsilon;
        let weights =
            self.checkpoint.kernel_warehouse(at.conv, &desc, warehouse.cells(), epsilon)?;
        self.read.push(at.conv.into());
        let layer = KernelWarehouse2d::new(self.context, &desc, &weights, &warehouse)?;
        Ok((Conv::Warehouse(layer), c_out))
    }

    /// A warehouse, uploaded once.
    fn warehouse(&mut self, number: usize) -> Result<Warehouse> {
        if let Some(warehouse) = self.warehouses.get(&number) {
            return Ok(warehouse.clone());
        }
        let key = format!("warehouse_manager.weights.{number}");
        let (cells, values) = self.checkpoint.warehouse(&key)?;
        let warehouse = Warehouse::new(self.context, cells, &values)?;
        self.read.push(key);
        self.warehouses.insert(number, warehouse.clone());
        Ok(warehouse)
    }

    /// The shape of a tensor of so many axes.
    pub(crate) fn sizes<const N: usize>(&self, key: &str) -> Result<&[usize; N]> {
        let shape = self.checkpoint.needed_shape(key, &format!("{N} axes"))?;
        <&[usize; N]>::try_from(shape).map_err(|_| Error::Shape {
            what: key.into(),
            expected: format!("{N} axes"),
            found: format!("{shape:?}"),
        })
    }

    fn needed_temperature(&self) -> Result<f32> {
        self.options.temperature.ok_or_else(|| Error::Value {
            what: "temperature of the attention".into(),
            needed: "that at the end of training, which no checkpoint holds".into(),
            found: "none".into(),
        })
    }

    /// A DY-CNN layer under the names of TArdelean's code.
    fn scored(&mut self, prefix: &str, at: At<'_>) -> Result<(ConvDesc<2>, DyCnnWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let &[kernels, c_out, of_group, height, width] = self.sizes(&key("kernels_weights"))?;
        let groups = if at.is_depthwise { at.channels } else { 1 };
        let desc = ConvDesc::new(of_group.saturating_mul(groups), c_out, [height, width])
            .groups(groups)
            .kernels(kernels);
        let &[hidden, c_in] = self.sizes(&key("attention.to_scores.0.weight"))?;
        let bias = self.contains(&key("kernels_bias"));
        let mut read = |name: &str, shape: &[usize]| self.tensor(key(name), shape);
        let weights = DyCnnWeights {
            bank: read("kernels_weights", &[kernels, c_out, of_group, height, width])?,
            bias: bias.then(|| read("kernels_bias", &[kernels, c_out])).transpose()?,
            hidden: read("attention.to_scores.0.weight", &[hidden, c_in])?,
            hidden_bias: Some(read("attention.to_scores.0.bias", &[hidden])?),
            head: read("attention.to_scores.2.weight", &[kernels, hidden])?,
            head_bias: Some(read("attention.to_scores.2.bias", &[kernels])?),
        };
        Ok((desc, weights))
    }

    pub(crate) fn norm(&mut self, prefix: &str, channels: usize) -> Result<BatchNorm> {
        self.read.push(prefix.into());
        let epsilon = self.options.epsilon.unwrap_or(self.epsilon);
        self.checkpoint.batch_norm(prefix, channels, epsilon)
    }

    /// A tensor, which belongs to what was read then.
    pub(crate) fn tensor(&mut self, key: String, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.checkpoint.tensor(&key, shape);
        self.read.push(key);
        values
    }

    /// A fully connected layer of whatever width, as a convolution of one position, with its bias
    /// if it has one; and its channels out.
    pub(crate) fn dense(
        &mut self,
        prefix: &str,
        channels: usize,
        activation: Activation,
    ) -> Result<(Arc<dyn AnyLayer>, usize)> {
        let [weight, bias] = ["weight", "bias"].map(|name| format!("{prefix}{name}"));
        let wanted = format!("[channels out, {channels}]");
        let shape = self.checkpoint.needed_shape(&weight, &wanted)?;
        let c_out = shape.first().copied().unwrap_or(0);
        let weights = self.tensor(weight, &[c_out, channels])?;
        let bias = self.contains(&bias).then(|| self.tensor(bias, &[c_out])).transpose()?;
        let desc = ConvDesc::new(channels, c_out, [1, 1]);
        let layer = StaticConv2d::new(self.context, &desc, &weights, bias.as_deref())?;
        Ok((Arc::new(layer.activation(activation)), c_out))
    }

    /// Gains of the channels by squeeze and excitation: the mean, two fully connected layers and
    /// what follows each. A layer whose output is `[batch, channels]`.
    pub(crate) fn excitation(
        &mut self,
        [squeeze, excite]: [(String, Activation); 2],
        channels: usize,
    ) -> Result<Arc<dyn AnyLayer>> {
        let mut gains = Network::new(self.context);
        let mean = gains.layer(Arc::new(GlobalPool::new(self.context)), Slot::INPUT);
        let (layer, width) = self.dense(&squeeze.0, channels, squeeze.1)?;
        let hidden = gains.layer(layer, mean);
        let (layer, found) = self.dense(&excite.0, width, excite.1)?;
        if found != channels {
            return Err(Error::Shape {
                what: format!("channels out of {}weight", excite.0),
                expected: channels.to_string(),
                found: found.to_string(),
            });
        }
        gains.layer(layer, hidden);
        Ok(Arc::new(gains.flat()))
    }

    /// A pass that multiplies each channel by its gain, and applies an activation.
    pub(crate) fn scaled(
        &self,
        channels: usize,
        activation: Activation,
    ) -> Result<Arc<dyn AnyLayer>> {
        let each = ConvDesc::new(channels, channels, [1, 1]).groups(channels);
        let layer = ModulatedConv2d::new(self.context, &each, &vec![1.0; channels], false)?;
        Ok(Arc::new(layer.activation(activation)))
    }

    /// Refuses a checkpoint with tensors that nothing has read.
    pub(crate) fn finish(self) -> Result<()> {
        let is_read = |key: &str| {
            key.ends_with("num_batches_tracked")
                || self
                    .read
                    .iter()
                    .any(|prefix| key == prefix || prefix.ends_with('.') && key.starts_with(prefix))
        };
        let unread = self.checkpoint.keys().filter(|key| !is_read(key));
        let keys: Vec<String> = unread.map(str::to_owned).collect();
        if keys.is_empty() { Ok(()) } else { Err(Error::UnreadKeys { keys }) }
    }
}
