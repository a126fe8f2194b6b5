//! Every way to hand tensors to the library, each kind of layer at least once.

use std::sync::Arc;

use dynconv::layers::{
    AnyLayer, Contextual, Gains, Gate, Layer, LayerNorm, Linear, Resample, Routing, WindowPool,
    global_average_pool,
};
use dynconv::problem::Cells;
use dynconv::problem::{MapAxis, Pooling, Sampling};
use dynconv::{
    BankConv2d, CondConv2d, Context, ConvDesc, Dcd2d, DcdWeights, DynConv2d, FdyConv2d,
    KernelWarehouse2d, MapConv2d, ModulatedConv2d, OdConv2d, PerSampleConv2d, PixelMix2d, Result,
    StaticConv2d, Tensor, Warehouse,
};

use super::{Noise, weights};

/// What comes of a use: elements of the output, attention rows, and dispatches where something was
/// bound.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) output: Vec<usize>,
    pub(crate) attention: Option<Vec<usize>>,
    pub(crate) steps: usize,
    pub(crate) bound: Option<dynconv::Bound>,
}

type Call = Box<dyn Fn(&[&Tensor]) -> Result<Outcome>>;

/// One use: its operands by name and shape, and the call that takes them in this order.
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) operands: Vec<(&'static str, Vec<usize>)>,
    pub(crate) call: Call,
}

fn bound(bound: &dynconv::Bound) -> Outcome {
    Outcome {
        output: bound.output().shape().to_vec(),
        attention: bound.attention().map(|rows| rows.shape().to_vec()),
        steps: bound.steps().len(),
        bound: Some(bound.clone()),
    }
}

fn forward(y: &Tensor) -> Outcome {
    Outcome { output: y.shape().to_vec(), attention: None, steps: 0, bound: None }
}

const C_IN: usize = 4;
const C_OUT: usize = 6;
const K: usize = 3;
const SIDE: usize = 5;

/// A layer of every kind, with its name.
pub(crate) fn layers(context: &Context) -> Vec<(&'static str, Arc<dyn AnyLayer>)> {
    let desc = ConvDesc::new(C_IN, C_OUT, [3, 3]).padding([1, 1]);
    let bank = desc.kernels(K);
    let noise = &mut Noise::new(3);
    let [one, all] = [&desc, &bank].map(|desc| desc.geometry().expect("valid"));
    let mut layers: Vec<(&'static str, Arc<dyn AnyLayer>)> = Vec::new();
    macro_rules! add {
        ($name:literal, $layer:expr) => {
            layers.push(($name, Arc::new($layer.expect("valid"))))
        };
    }
    add!("static", StaticConv2d::new(context, &desc, &noise.floats(one.weights()), None));
    let weights = weights::dy_cnn(noise, &all, [true; 2]);
    add!("DY-CNN", DynConv2d::new(context, &bank, &weights, 1.0));
    let weights = weights::od_conv(noise, &all);
    add!("ODConv", OdConv2d::new(context, &bank, &weights, 1.0));
    let weights = weights::cond_conv(noise, &all, true);
    add!("CondConv", CondConv2d::new(context, &bank, &weights));
    let cells = Cells { count: 3, c_out: 2, c_in: 2, taps: 1 };
    let values = noise.floats(cells.count * cells.elements());
    let warehouse = Warehouse::new(context, cells, &values).expect("valid");
    let weights = weights::kernel_warehouse(noise, &one, cells, true);
    add!("KernelWarehouse", KernelWarehouse2d::new(context, &desc, &weights, &warehouse));
    add!("bank", BankConv2d::new(context, &bank, &noise.floats(K * all.weights()), None));
    add!("per-sample", PerSampleConv2d::new(context, &desc));
    let values = noise.floats(K * all.weights());
    add!("map", MapConv2d::new(context, &bank, &values, None, MapAxis::One(2)));
    let weights = weights::pixel_mix(noise, &all, true);
    add!("pixel mixture", PixelMix2d::new(context, &bank, &weights, 1.0));
    let weights = weights::fdy(noise, &all, true);
    add!("frequency-dynamic", FdyConv2d::new(context, &bank, &weights, 31.0));
    let values = noise.floats(one.weights());
    add!("modulated", ModulatedConv2d::new(context, &desc, &values, true));
    let norm = weights::batch_norm(noise, 2);
    let mut dcd = |pooled: usize| DcdWeights {
        conv: noise.floats(one.weights()),
        q: noise.floats(2 * C_IN),
        p: noise.floats(C_OUT * 2),
        norm1: norm.clone(),
        norm2: norm.clone(),
        squeeze: noise.floats(3 * C_IN * pooled * pooled),
        gate: noise.floats(9),
        phi: noise.floats(4 * 3),
        scale: noise.floats(C_OUT * 3),
    };
    add!("DCD", Dcd2d::new(context, &desc, &dcd(1)));
    add!("DCD 2 x 2", Dcd2d::new(context, &desc, &dcd(2)));
    let windows = ConvDesc::new(C_IN, C_IN, [3, 3]).groups(C_IN).padding([1, 1]);
    add!("pool", WindowPool::new(context, &windows, Pooling::Max));
    add!("gate", Gate::<2>::new(context, C_IN, Gains::Axes([2, 1])).map(Gate::dynamic_relu));
    let (scale, shift) = (noise.floats(C_IN), noise.floats(C_IN));
    add!("layer norm", LayerNorm::<2>::new(context, &scale, &shift, 1e-5));
    add!("larger map", Resample::enlarge(context, C_IN, [2, 3], Sampling::Linear));
    add!("border", Resample::border(context, C_IN, [[1, 2], [0, 3]], Sampling::Reflection));
    let head = Linear { weight: noise.floats(K * 5), bias: noise.floats(K) };
    let values = noise.floats(all.kernels * all.weights());
    let contextual = Layer::<2, Contextual>::new(context, &bank, &values, None, &head, 0.5);
    add!("contextual", contextual);
    layers
}

/// All uses on layers of this context, for this batch.
pub(crate) fn uses(context: &Context, batch: usize) -> Vec<Use> {
    let mut uses: Vec<Use> = Vec::new();
    let x = ("input", vec![batch, C_IN, SIDE, SIDE]);
    for (name, layer) in layers(context) {
        let shape = layer.output_shape(&x.1).expect("fits");
        let [y, r] = ["output", "residual"].map(|name| (name, shape.clone()));
        let given = layer.given(&x.1).expect("fits");
        let inputs: Vec<_> = std::iter::once(x.clone()).chain(given.clone()).collect();
        let count = inputs.len();
        let mut add = |way: &str, more: &[(&'static str, Vec<usize>)], call: Call| {
            let operands = [&inputs, more].concat();
            uses.push(Use { name: format!("{name} {way}"), operands, call });
        };
        let ours = given.len() + 1;
        let one = Arc::clone(&layer);
        add(
            "bind",
            std::slice::from_ref(&y),
            Box::new(move |t| Ok(bound(&one.bind_any(t[0], &t[1..ours], None, t[count])?))),
        );
        let one = Arc::clone(&layer);
        add(
            "bind_add",
            &[r, y.clone()],
            Box::new(move |t| {
                let residual = Some(t[count]);
                Ok(bound(&one.bind_any(t[0], &t[1..ours], residual, t[count + 1])?))
            }),
        );
        add("forward", &[], Box::new(move |t| Ok(forward(&layer.forward_any(t[0], &t[1..ours])?))));
    }
    let noise = &mut Noise::new(4);
    let routing =
        Routing::new(context, C_IN, &noise.floats(K * C_IN), &noise.floats(K)).expect("valid");
    let context = context.clone();
    uses.push(Use {
        name: "routing bind".into(),
        operands: vec![x.clone(), ("routing", vec![batch, K])],
        call: Box::new(move |t| Ok(bound(&routing.bind(t[0], t[1])?))),
    });
    uses.push(Use {
        name: "pooling".into(),
        operands: vec![x, ("output", vec![batch, C_IN, 1, 1])],
        call: Box::new(move |t| Ok(bound(&global_average_pool(&context, t[0], t[1])?))),
    });
    uses
}
