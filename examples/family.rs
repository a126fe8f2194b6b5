//! Every kind of layer once, on small data: how it is made, bound and run.

use dynconv::layers::{Routing, TemperatureSchedule};
use dynconv::problem::Cells;
use dynconv::problem::MapAxis;
use dynconv::{
    BankConv2d, BatchNorm, CondConv2d, CondConvWeights, Context, ConvDesc, Dcd2d, DcdWeights,
    DyCnnWeights, DynConv2d, FdyConv2d, FdyWeights, KernelWarehouse2d, KernelWarehouseWeights,
    Linear, MapConv2d, ModulatedConv2d, OdConv2d, OdWeights, PerSampleConv2d, PixelMix2d,
    PixelMixWeights, Result, StaticConv2d, Tensor, Warehouse, wgpu,
};

/// Two samples of 6 channels, 8 x 8; 4 kernels, 8 output channels, 3 x 3.
const BATCH: usize = 2;
const C_IN: usize = 6;
const C_OUT: usize = 8;
const K: usize = 4;
const SIDE: usize = 8;
const HIDDEN: usize = 16;
const WEIGHTS: usize = C_OUT * C_IN * 9;

/// Some numbers that are not all alike.
fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7).sin() * 0.3).collect()
}

fn linear(outputs: usize, inputs: usize) -> Linear {
    Linear { weight: wave(outputs * inputs), bias: wave(outputs) }
}

fn norm(channels: usize) -> BatchNorm {
    let [weight, var] = [1.0, 1.0].map(|v| vec![v; channels]);
    BatchNorm { weight, bias: vec![0.1; channels], mean: vec![0.0; channels], var, epsilon: 1e-5 }
}

fn show(context: &Context, name: &str, y: &Tensor) -> Result<()> {
    let values = y.read_blocking(context)?;
    println!("{name:20} {:?}  {:?}", y.shape(), &values[..3]);
    Ok(())
}

fn main() -> Result<()> {
    let context = &Context::request_blocking()?;
    let desc = ConvDesc::new(C_IN, C_OUT, [3, 3]).padding([1, 1]);
    let bank = desc.kernels(K);
    let x =
        &Tensor::upload(context, &[BATCH, C_IN, SIDE, SIDE], &wave(BATCH * C_IN * SIDE * SIDE))?;

    show(context, "static", &StaticConv2d::new(context, &desc, &wave(WEIGHTS), None)?.forward(x)?)?;

    let attention = Tensor::upload(context, &[BATCH, K], &[0.25; BATCH * K])?;
    let given = BankConv2d::new(context, &bank, &wave(K * WEIGHTS), Some(&wave(K * C_OUT)))?;
    show(context, "given attention", &given.forward(x, &attention)?)?;

    let dy = DyCnnWeights {
        bank: wave(K * WEIGHTS),
        bias: Some(wave(K * C_OUT)),
        hidden: wave(2 * C_IN),
        head: wave(K * 2),
        ..Default::default()
    };
    let temperature = TemperatureSchedule::new(34)?.after(90);
    show(context, "DY-CNN", &DynConv2d::new(context, &bank, &dy, temperature)?.forward(x)?)?;

    let od = OdWeights {
        bias: None,
        bank: wave(K * WEIGHTS),
        hidden: wave(HIDDEN * C_IN),
        norm: norm(HIDDEN),
        channel_head: Some(linear(C_IN, HIDDEN)),
        filter_head: Some(linear(C_OUT, HIDDEN)),
        tap_head: Some(linear(9, HIDDEN)),
        kernel_head: Some(linear(K, HIDDEN)),
    };
    show(context, "ODConv", &OdConv2d::new(context, &bank, &od, 1.0)?.forward(x)?)?;

    let cond = CondConvWeights {
        bank: wave(K * WEIGHTS),
        bias: None,
        head: wave(K * C_IN),
        head_bias: wave(K),
    };
    show(context, "CondConv", &CondConv2d::new(context, &bank.padding_same(), &cond)?.forward(x)?)?;
    shared_routing(context, x, &cond, &given)?;

    let cells = Cells { count: 5, c_out: 4, c_in: 2, taps: 1 };
    let warehouse = Warehouse::new(context, cells, &wave(5 * cells.elements()))?;
    let logits = cells.per_kernel(&desc.geometry()?) * (cells.count + 1);
    let kw = KernelWarehouseWeights {
        hidden: wave(HIDDEN * C_IN),
        norm: norm(HIDDEN),
        head: linear(logits, HIDDEN),
        bias: Some(wave(C_OUT)),
    };
    show(
        context,
        "KernelWarehouse",
        &KernelWarehouse2d::new(context, &desc, &kw, &warehouse)?.forward(x)?,
    )?;

    let mix = PixelMixWeights { bank: wave(K * WEIGHTS), bias: None, head: linear(K, C_IN) };
    show(context, "pixel mixture", &PixelMix2d::new(context, &bank, &mix, 1.0)?.forward(x)?)?;

    let fdy = FdyWeights {
        bank: wave(K * WEIGHTS),
        bias: None,
        hidden: wave(4 * C_IN * 3),
        norm: norm(4),
        head: linear(K, 4),
    };
    show(context, "frequency-dynamic", &FdyConv2d::new(context, &bank, &fdy, 31.0)?.forward(x)?)?;

    let style = Tensor::upload(context, &[BATCH, C_IN], &wave(BATCH * C_IN))?;
    let modulated = ModulatedConv2d::new(context, &desc, &wave(WEIGHTS), true)?;
    show(context, "modulated", &modulated.forward(x, &style)?)?;

    let dcd = DcdWeights {
        conv: wave(WEIGHTS),
        q: wave(3 * C_IN),
        p: wave(C_OUT * 3),
        norm1: norm(3),
        norm2: norm(3),
        squeeze: wave(4 * C_IN),
        gate: wave(4 * 4),
        phi: wave(3 * 3 * 4),
        scale: wave(C_OUT * 4),
    };
    show(context, "DCD", &Dcd2d::new(context, &desc, &dcd)?.forward(x)?)?;

    // What the caller computes: a kernel a sample, or a map of mixing weights.
    let y = Tensor::zeros(context, &[BATCH, C_OUT, SIDE, SIDE])?;
    let kernels = Tensor::upload(context, &[BATCH, WEIGHTS], &wave(BATCH * WEIGHTS))?;
    let map = Tensor::upload(context, &[BATCH, K, SIDE], &wave(BATCH * K * SIDE))?;
    let per_sample = PerSampleConv2d::new(context, &desc)?.bind(x, &kernels, &y)?;
    let mapped = MapConv2d::new(context, &bank, &wave(K * WEIGHTS), None, MapAxis::One(2))?
        .bind(x, &map, &y)?;
    for (name, bound) in [("per-sample kernels", per_sample), ("given map", mapped)] {
        let mut encoder =
            context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        bound.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        show(context, name, &y)?;
    }
    Ok(())
}

/// One routing vector for several convolutions of a block.
fn shared_routing(
    context: &Context,
    x: &Tensor,
    cond: &CondConvWeights,
    conv: &BankConv2d,
) -> Result<()> {
    let vector = Tensor::zeros(context, &[BATCH, K])?;
    let routing = Routing::new(context, C_IN, &cond.head, &cond.head_bias)?.bind(x, &vector)?;
    let [first, second] = [0, 1].map(|_| Tensor::zeros(context, &[BATCH, C_OUT, SIDE, SIDE]));
    let (first, second) = (first?, second?);
    let mut encoder =
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for bound in [routing, conv.bind(x, &vector, &first)?, conv.bind(x, &vector, &second)?] {
        bound.record(&mut encoder);
    }
    context.queue().submit([encoder.finish()]);
    show(context, "shared routing", &second)
}
