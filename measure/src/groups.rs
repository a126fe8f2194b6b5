//! The batch as groups: how dynamic convolution runs today where a framework has grouped
//! convolution only.
//!
//! The input is seen as one sample of batch x channels, and each sample's kernel as that of
//! `groups` of its groups. The kernels are built by the same steps as those of the layer itself
//! (attention where it has a branch, aggregation), so that what differs is the convolution.

use dynconv::device::Step;
use dynconv::kernels::Kernel;
use dynconv::layers::PerSample;
use dynconv::{Bound, Context, Elem, Layer, Tensor, wgpu};
use dynconv_suite::data::Data;
use dynconv_suite::run::{Output, Prepared};
use dynconv_suite::spec::{Family, Spec};

use crate::error::Result;

/// A layer as one grouped convolution.
#[derive(Debug)]
pub(crate) struct Groups {
    before: Vec<Step>,
    bound: Bound,
    /// What the steps before compute, where the layer has a branch.
    attention: Option<Tensor>,
}

impl Groups {
    /// Binds the grouped convolution to the kernels that `layer` builds; they must lie as they are
    /// published, with all gains in them.
    ///
    /// # Errors
    /// [`dynconv::Error::Unsupported`] if the layer builds no kernels a sample, or not those of all
    /// samples at once, and what the library refuses.
    pub(crate) fn bind(
        context: &Context,
        spec: &Spec,
        data: &Data,
        layer: &Prepared,
    ) -> Result<Self> {
        match spec.input.len() {
            1 => bind::<1>(context, spec, data, layer),
            2 => bind::<2>(context, spec, data, layer),
            _ => bind::<3>(context, spec, data, layer),
        }
    }

    /// Records attention, aggregation and convolution.
    pub(crate) fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.before.iter().for_each(|step| step.record_in(pass));
        self.bound.record_in(pass);
    }

    /// Runs it once, and reads the results.
    pub(crate) fn run(&self, context: &Context) -> Result<Output> {
        let mut encoder =
            context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.record_in(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        context.queue().submit([encoder.finish()]);
        let y = self.bound.output().read_blocking(context)?;
        let attention =
            self.attention.as_ref().map(|rows| rows.read_blocking(context)).transpose()?;
        Ok(Output { y, attention })
    }
}

fn bind<const D: usize>(
    context: &Context,
    spec: &Spec,
    data: &Data,
    layer: &Prepared,
) -> Result<Groups> {
    let steps = layer.bound.steps();
    let kernel = |step: &Step| step.dispatch().variant.kernel;
    let refused = |because: &str| dynconv::Error::Unsupported {
        what: "the batch as groups".into(),
        because: because.into(),
    };
    let mut builders = steps.iter().filter(|step| kernel(step) == Kernel::Aggregate);
    let aggregate = builders.next().ok_or_else(|| refused("all samples share one kernel"))?;
    if builders.next().is_some() {
        return Err(refused("the kernels of all samples do not fit one binding").into());
    }
    let before = steps.iter().filter(|step| {
        matches!(kernel(step), Kernel::AveragePool | Kernel::AttentionMlp | Kernel::Aggregate)
    });

    let written =
        aggregate.dispatch().variant.kernel.def().storage.iter().position(|is_written| *is_written);
    let rows = written.and_then(|place| aggregate.bindings().get(place));
    let (buffer, range) = rows.ok_or_else(|| refused("aggregation writes nothing"))?;
    let batch = spec.batch;
    let grouped = Spec {
        family: Family::PerSample,
        batch: 1,
        channels: spec.channels.map(|channels| batch * channels),
        groups: batch * spec.groups,
        kernels: 1,
        elems: [spec.elems[0], spec.elems[1], Elem::F32],
        ..spec.clone()
    };
    let desc = grouped.desc::<D>()?;
    let rows = Tensor::wrap(context, buffer, range.start, &[1, desc.geometry()?.weights()])?;
    let conv = Layer::<D, PerSample>::new(context, &desc)?.algorithm(spec.conv);
    let shape = [&[1, grouped.channels[0]], &spec.input[..]].concat();
    let x = Tensor::upload_in(context, &shape, &data.x, spec.elems[0])?;
    let y = Tensor::zeros_in(context, &conv.output_shape(&shape)?, spec.elems[1])?;
    let attention = layer.bound.attention().filter(|_| spec.family.has_branch()).cloned();
    Ok(Groups { before: before.cloned().collect(), bound: conv.bind(&x, &rows, &y)?, attention })
}
