//! What architectures share: a walk through a checkpoint that builds a network, and knows what it
//! has read.

use std::sync::Arc;

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::{
    AnyLayer, Contextual, Gains, Gate, GlobalPool, Io, Layer, LayerNorm, Linear,
};
use dynconv::{
    Activation, BatchNorm, Checkpoint, Context, ConvDesc, DyCnnWeights, DynConv2d, Elem, Error,
    KernelWarehouse2d, OdConv2d, Result, StaticConv2d,
};

use crate::warehouses::{Warehouses, takes_cells};
use crate::{Network, Options, Slot};

/// A network in the making, and the checkpoint that it is made of.
pub(crate) struct Walk<'a> {
    pub(crate) context: &'a Context,
    pub(crate) checkpoint: &'a Checkpoint<'a>,
    pub(crate) options: &'a Options,
    pub(crate) network: Network,
    /// Prefixes of what was read.
    read: Vec<String>,
    pub(crate) warehouses: Warehouses,
    /// Published epsilon of the batch norms.
    epsilon: f64,
}

/// What a step makes, and its channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub(crate) slot: Slot,
    pub(crate) channels: usize,
}

impl Map {
    /// The network's input.
    pub(crate) fn input(channels: usize) -> Self {
        Self { slot: Slot::INPUT, channels }
    }

    /// Refuses a tensor of another number of channels.
    pub(crate) fn check(self, key: &str, found: usize) -> Result<()> {
        if found == self.channels {
            return Ok(());
        }
        Err(Error::Shape {
            what: format!("channels of {key}"),
            expected: format!("{}, of the layer before", self.channels),
            found: found.to_string(),
        })
    }
}

/// A convolution of any kind.
#[derive(Clone)]
enum Conv {
    Static(StaticConv2d),
    DyCnn(DynConv2d),
    Od(OdConv2d),
    Warehouse(KernelWarehouse2d),
    /// With the hidden layer that its attention reads.
    Contextual(Layer<2, Contextual>, Slot),
}

impl Conv {
    /// The layer, and what it is given.
    fn into_layer(self) -> (Arc<dyn AnyLayer>, Vec<Slot>) {
        match self {
            Self::Static(layer) => (Arc::new(layer), Vec::new()),
            Self::DyCnn(layer) => (Arc::new(layer), Vec::new()),
            Self::Od(layer) => (Arc::new(layer), Vec::new()),
            Self::Warehouse(layer) => (Arc::new(layer), Vec::new()),
            Self::Contextual(layer, hidden) => (Arc::new(layer), vec![hidden]),
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
            Conv::Contextual($layer, hidden) => Conv::Contextual($made, hidden),
        }
    };
}

/// Where a convolution has its cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct House {
    /// Kernel size, which cells do not tell.
    pub(crate) kernel: usize,
    /// Number of the warehouse.
    pub(crate) number: usize,
}

/// A convolution of a network: where its tensors are, and what they do not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    /// Prefix of the convolution.
    conv: &'a str,
    /// Prefix of the batch norm behind it, if there is one.
    norm: Option<&'a str>,
    stride: usize,
    /// Padding; half the kernel if nothing is said.
    padding: Option<usize>,
    /// Whether each channel is a group of its own.
    is_depthwise: bool,
    house: Option<House>,
    activation: Activation,
    /// Published name of what there is before the activation.
    before: Option<&'a str>,
}

impl<'a> At<'a> {
    /// A convolution of stride 1, whose padding is half its kernel.
    pub(crate) fn new(conv: &'a str) -> Self {
        Self {
            conv,
            norm: None,
            stride: 1,
            padding: None,
            is_depthwise: false,
            house: None,
            activation: Activation::None,
            before: None,
        }
    }

    /// Names what there is before the activation.
    pub(crate) fn before(self, stage: &'a str) -> Self {
        Self { before: Some(stage), ..self }
    }

    pub(crate) fn norm(self, norm: &'a str) -> Self {
        Self { norm: Some(norm), ..self }
    }

    pub(crate) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(crate) fn padding(self, padding: usize) -> Self {
        Self { padding: Some(padding), ..self }
    }

    pub(crate) fn depthwise(self, is_depthwise: bool) -> Self {
        Self { is_depthwise, ..self }
    }

    pub(crate) fn house(self, kernel: usize, number: usize) -> Self {
        Self { house: Some(House { kernel, number }), ..self }
    }

    pub(crate) fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
}

/// A layer whose output is f32, for steps that take nothing else.
#[derive(Clone, Debug)]
struct InF32(Arc<dyn AnyLayer>);

impl AnyLayer for InF32 {
    fn context(&self) -> &Context {
        self.0.context()
    }

    fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
        self.0.given(input)
    }

    fn output_elem(&self, _input: Elem) -> Elem {
        Elem::F32
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.0.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        self.0.lower(builder, io)
    }
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        context: &'a Context,
        checkpoint: &'a Checkpoint<'a>,
        options: &'a Options,
    ) -> Self {
        let warehouses = Warehouses::of(checkpoint);
        let network = Network::new(context);
        let epsilon = BatchNorm::EPSILON_PYTORCH;
        Self { context, checkpoint, options, network, read: Vec::new(), warehouses, epsilon }
    }

    /// For networks whose batch norms have another epsilon.
    pub(crate) fn set_epsilon(&mut self, epsilon: f64) {
        self.epsilon = epsilon;
    }

    /// Channels out of a convolution that has a norm.
    pub(crate) fn channels_out(&self, at: At<'_>) -> Result<usize> {
        self.sizes::<1>(&format!("{}weight", at.norm.unwrap_or(at.conv))).map(|sizes| sizes[0])
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.checkpoint.contains(key)
    }

    /// Names what a step makes.
    pub(crate) fn name(&mut self, stage: &str, map: Map) {
        self.network.name(stage, map.slot);
    }

    /// A convolution of whatever kind its tensors are, with its norm and activation.
    pub(crate) fn conv(&mut self, at: At<'_>, x: Map) -> Result<Map> {
        self.conv_add(at, x, None)
    }

    /// The same, with a residual where there is one.
    pub(crate) fn conv_add(&mut self, at: At<'_>, x: Map, residual: Option<Map>) -> Result<Map> {
        let (conv, channels) = self.bare(at, x)?;
        let conv = match at.norm {
            Some(norm) => {
                let norm = self.norm(norm, channels)?;
                each!(conv, layer => layer.batch_norm(&norm)?)
            }
            None => conv,
        };
        if let Some(stage) = at.before {
            let (layer, given) = conv.clone().into_layer();
            self.network.aside(stage, layer, x.slot, &given);
        }
        let conv = each!(conv, layer => layer.activation(at.activation));
        Ok(self.push(conv, x, residual, channels))
    }

    /// A convolution without a norm, whose output is scaled before a residual is added.
    pub(crate) fn conv_scaled(
        &mut self,
        at: At<'_>,
        x: Map,
        gamma: &str,
        residual: Map,
    ) -> Result<Map> {
        let (conv, channels) = self.bare(at, x)?;
        let scale = self.tensor(gamma.into(), &[1, channels, 1, 1])?;
        let conv = each!(conv, layer => layer.scale_shift(&scale, &vec![0.0; channels])?);
        Ok(self.push(conv, x, Some(residual), channels))
    }

    fn push(&mut self, conv: Conv, x: Map, residual: Option<Map>, channels: usize) -> Map {
        let (layer, given) = conv.into_layer();
        let residual = residual.map(|map| map.slot);
        Map { slot: self.network.layer_given(layer, x.slot, &given, residual), channels }
    }

    fn bare(&mut self, at: At<'_>, x: Map) -> Result<(Conv, usize)> {
        let Options { temperature, attention_epsilon, .. } = *self.options;
        let (prefix, context) = (at.conv, self.context);
        let has = |name: &str| self.checkpoint.contains(&format!("{prefix}{name}"));
        let placed = |desc: ConvDesc<2>| -> Result<(ConvDesc<2>, usize)> {
            let g = desc.geometry()?;
            x.check(&format!("{prefix}weight"), g.c_in)?;
            let half = [(g.kernel[1] - 1) / 2, (g.kernel[2] - 1) / 2];
            let padding = at.padding.map_or(half, |padding| [padding; 2]);
            Ok((desc.stride([at.stride; 2]).padding(padding), g.c_out))
        };
        if let Some(house) = at.house.filter(|_| takes_cells(self.checkpoint, prefix)) {
            return self.assembled(at, house, x);
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
            let (desc, weights) = self.scored(prefix, at.is_depthwise, x)?;
            let (desc, channels) = placed(desc)?;
            let temperature = temperature.unwrap_or(1.0);
            let layer = DynConv2d::new(context, &desc, &weights, temperature)?;
            return Ok((Conv::DyCnn(layer), channels));
        }
        let key = format!("{prefix}weight");
        let &[c_out, of_group, height, width] = self.sizes(&key)?;
        let groups = if at.is_depthwise { x.channels } else { 1 };
        let desc = ConvDesc::new(of_group.saturating_mul(groups), c_out, [height, width]);
        let (desc, channels) = placed(desc.groups(groups))?;
        let kernel = self.tensor(key, &[c_out, of_group, height, width])?;
        let bias = self.optional(format!("{prefix}bias"), &[c_out])?;
        Ok((Conv::Static(StaticConv2d::new(context, &desc, &kernel, bias.as_deref())?), channels))
    }

    /// A KernelWarehouse layer, whose kernel is made of cells; channels out are those of its norm
    /// or its bias.
    fn assembled(&mut self, at: At<'_>, house: House, x: Map) -> Result<(Conv, usize)> {
        let bias = format!("{}bias", at.conv);
        let of = at.norm.map_or_else(|| bias.clone(), |norm| format!("{norm}weight"));
        let &[c_out] = self.sizes(&of)?;
        let House { kernel, number } = house;
        let padding = at.padding.unwrap_or((kernel - 1) / 2);
        let groups = if at.is_depthwise { x.channels } else { 1 };
        let desc = ConvDesc::new(x.channels, c_out, [kernel; 2]).groups(groups);
        let desc = desc.stride([at.stride; 2]).padding([padding; 2]);
        let (warehouse, key) = self.warehouses.get(self.context, self.checkpoint, number)?;
        self.read.push(key);
        if !self.contains(&format!("{}attention.norm1.running_mean", at.conv)) {
            let hidden = self.normed_hidden(at.conv, x)?;
            let cells = warehouse.cells();
            let logits = cells.per_kernel(&desc.geometry()?).saturating_mul(cells.count + 1);
            let head =
                self.linear(&format!("{}attention.fc2.", at.conv), [logits, hidden.channels])?;
            let bias = self.optional(bias, &[c_out])?;
            let layer = Layer::<2, Contextual>::of_warehouse(
                self.context,
                &desc,
                &warehouse,
                bias.as_deref(),
                &head,
            )?;
            return Ok((Conv::Contextual(layer, hidden.slot), c_out));
        }
        let start = self.warehouses.start(number, warehouse.cells().per_kernel(&desc.geometry()?));
        let weights = self.checkpoint.kernel_warehouse_with_basis(
            at.conv,
            &desc,
            warehouse.cells(),
            start,
            self.options.attention_epsilon,
        )?;
        self.read.push(at.conv.into());
        let layer = KernelWarehouse2d::new(self.context, &desc, &weights, &warehouse)?;
        Ok((Conv::Warehouse(layer), c_out))
    }

    /// The hidden layer of an attention branch with a layer norm: `relu(norm(fc1 * mean(x)))`.
    fn normed_hidden(&mut self, conv: &str, x: Map) -> Result<Map> {
        let mean = self.mean(x);
        let hidden = self.dense(&format!("{conv}attention.fc1."), mean, Activation::None)?;
        let epsilon = self.options.attention_epsilon;
        let norm = format!("{conv}attention.norm1.");
        self.layer_norm(&norm, hidden, epsilon, Activation::Relu)
    }

    /// A layer norm over the channels.
    pub(crate) fn layer_norm(
        &mut self,
        prefix: &str,
        x: Map,
        epsilon: f64,
        activation: Activation,
    ) -> Result<Map> {
        let [weight, bias] = ["weight", "bias"].map(|name| format!("{prefix}{name}"));
        let weight = self.tensor(weight, &[x.channels])?;
        let bias = self.tensor(bias, &[x.channels])?;
        let epsilon = dynconv::reference::narrow(&[epsilon])[0];
        let norm = LayerNorm::<2>::new(self.context, &weight, &bias, epsilon)?;
        Ok(self.step(Arc::new(norm.activation(activation)), x, &[]))
    }

    /// The same, whose output is f32 whatever its input is.
    pub(crate) fn step_in_f32(&mut self, layer: Arc<dyn AnyLayer>, x: Map) -> Map {
        self.step(Arc::new(InF32(layer)), x, &[])
    }

    /// A layer that keeps the number of channels.
    pub(crate) fn step(&mut self, layer: Arc<dyn AnyLayer>, x: Map, given: &[Slot]) -> Map {
        Map { slot: self.network.layer_given(layer, x.slot, given, None), ..x }
    }

    /// Weight and bias of a fully connected layer.
    pub(crate) fn linear(&mut self, prefix: &str, [out, width]: [usize; 2]) -> Result<Linear> {
        let weight = self.tensor(format!("{prefix}weight"), &[out, width])?;
        Ok(Linear { weight, bias: self.tensor(format!("{prefix}bias"), &[out])? })
    }

    /// The shape of a tensor of so many axes.
    pub(crate) fn sizes<const N: usize>(&self, key: &str) -> Result<&'a [usize; N]> {
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
    fn scored(
        &mut self,
        prefix: &str,
        is_depthwise: bool,
        x: Map,
    ) -> Result<(ConvDesc<2>, DyCnnWeights)> {
        let key = |name: &str| format!("{prefix}{name}");
        let &[kernels, c_out, of_group, height, width] = self.sizes(&key("kernels_weights"))?;
        let groups = if is_depthwise { x.channels } else { 1 };
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

    /// Notes that something under a prefix was read elsewhere.
    pub(crate) fn has_read(&mut self, prefix: &str) {
        self.read.push(prefix.into());
    }

    /// A tensor, which belongs to what was read then.
    pub(crate) fn tensor(&mut self, key: String, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.checkpoint.tensor(&key, shape);
        self.read.push(key);
        values
    }

    fn optional(&mut self, key: String, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        self.contains(&key).then(|| self.tensor(key, shape)).transpose()
    }

    /// The mean over all positions.
    pub(crate) fn mean(&mut self, x: Map) -> Map {
        self.step(Arc::new(GlobalPool::new(self.context)), x, &[])
    }

    /// A fully connected layer over the channels of whatever width, as a convolution of one
    /// position, with its bias if it has one.
    pub(crate) fn dense(&mut self, prefix: &str, x: Map, activation: Activation) -> Result<Map> {
        let weight = format!("{prefix}weight");
        let wanted = format!("[channels out, {}]", x.channels);
        let shape = self.checkpoint.needed_shape(&weight, &wanted)?;
        let c_out = shape.first().copied().unwrap_or(0);
        let weights = self.tensor(weight, &[c_out, x.channels])?;
        let bias = self.optional(format!("{prefix}bias"), &[c_out])?;
        let desc = ConvDesc::new(x.channels, c_out, [1, 1]);
        let layer = StaticConv2d::new(self.context, &desc, &weights, bias.as_deref())?;
        // Vectors and gains are f32, whatever maps are.
        let made = self.step_in_f32(Arc::new(layer.activation(activation)), x);
        Ok(Map { channels: c_out, ..made })
    }

    /// Gains of the channels by squeeze and excitation: the mean, two fully connected layers and
    /// what follows each.
    pub(crate) fn excitation(
        &mut self,
        [squeeze, excite]: [(String, Activation); 2],
        x: Map,
    ) -> Result<Map> {
        let mean = self.mean(x);
        let hidden = self.dense(&squeeze.0, mean, squeeze.1)?;
        let gains = self.dense(&excite.0, hidden, excite.1)?;
        x.check(&format!("{}weight", excite.0), gains.channels)?;
        Ok(gains)
    }

    /// A pass that multiplies each channel by its gain, and applies an activation.
    pub(crate) fn scaled(&mut self, x: Map, gains: Map, activation: Activation) -> Result<Map> {
        let gate = Gate::<2>::new(self.context, x.channels, Gains::Channels)?;
        Ok(self.step(Arc::new(gate.activation(activation)), x, &[gains.slot]))
    }

    /// The network, its output without axes of size 1 at the end.
    ///
    /// # Errors
    /// [`Error::UnreadKeys`] for tensors that nothing has read.
    pub(crate) fn finish(&mut self) -> Result<Network> {
        let is_read = |key: &str| {
            key.ends_with("num_batches_tracked")
                || self
                    .read
                    .iter()
                    .any(|prefix| key == prefix || prefix.ends_with('.') && key.starts_with(prefix))
        };
        let unread = self.checkpoint.keys().filter(|key| !is_read(key));
        let keys: Vec<String> = unread.map(str::to_owned).collect();
        if !keys.is_empty() {
            return Err(Error::UnreadKeys { keys });
        }
        let network = std::mem::replace(&mut self.network, Network::new(self.context));
        Ok(network.flat())
    }
}
