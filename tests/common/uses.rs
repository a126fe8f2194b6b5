//! Every way to hand tensors to the library, each kind of layer at least once.

use dynconv::layers::{Routing, global_average_pool};
use dynconv::problem::Cells;
use dynconv::problem::MapAxis;
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
    pub(crate) name: &'static str,
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

/// All uses on layers of this context, for this batch.
pub(crate) fn uses(context: &Context, batch: usize) -> Vec<Use> {
    let desc = ConvDesc::new(C_IN, C_OUT, [3, 3]).padding([1, 1]);
    let bank = desc.kernels(K);
    let noise = &mut Noise::new(3);
    let [one, all] = [&desc, &bank].map(|desc| desc.geometry().expect("valid"));
    let mut uses: Vec<Use> = Vec::new();
    let x = ("input", vec![batch, C_IN, SIDE, SIDE]);
    let y = ("output", vec![batch, C_OUT, SIDE, SIDE]);
    let r = ("residual", y.1.clone());
    macro_rules! uses {
        ($((
            $name:literal, $layer:expr, [$($operand:expr),*], $result:ident,
            |$l:ident, $t:ident| $call:expr
        )),* $(,)?) => {$({
            let $l = $layer.clone();
            let call: Call = Box::new(move |$t| Ok($result(&$call?)));
            uses.push(Use { name: $name, operands: vec![$($operand.clone()),*], call });
        })*};
    }

    let fixed =
        StaticConv2d::new(context, &desc, &noise.floats(one.weights()), None).expect("valid");
    let dy = DynConv2d::new(context, &bank, &weights::dy_cnn(noise, &all, [true; 2]), 1.0)
        .expect("valid");
    let od = OdConv2d::new(context, &bank, &weights::od_conv(noise, &all), 1.0).expect("valid");
    let cond =
        CondConv2d::new(context, &bank, &weights::cond_conv(noise, &all, true)).expect("valid");
    let cells = Cells { count: 3, c_out: 2, c_in: 2, taps: 1 };
    let warehouse = Warehouse::new(context, cells, &noise.floats(cells.count * cells.elements()))
        .expect("valid");
    let kw = weights::kernel_warehouse(noise, &one, cells, true);
    let kw = KernelWarehouse2d::new(context, &desc, &kw, &warehouse).expect("valid");
    uses!(
        ("static bind", fixed, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("static bind_add", fixed, [x, r, y], bound, |l, t| l.bind_add(t[0], t[1], t[2])),
        ("static forward", fixed, [x], forward, |l, t| l.forward(t[0])),
        ("DY-CNN bind", dy, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("DY-CNN forward", dy, [x], forward, |l, t| l.forward(t[0])),
        ("ODConv bind_add", od, [x, r, y], bound, |l, t| l.bind_add(t[0], t[1], t[2])),
        ("ODConv forward", od, [x], forward, |l, t| l.forward(t[0])),
        ("CondConv bind", cond, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("CondConv forward", cond, [x], forward, |l, t| l.forward(t[0])),
        ("KernelWarehouse bind", kw, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("KernelWarehouse forward", kw, [x], forward, |l, t| l.forward(t[0])),
    );

    let a = ("attention", vec![batch, K]);
    let given =
        BankConv2d::new(context, &bank, &noise.floats(K * all.weights()), None).expect("valid");
    let kernels = ("per-sample kernels", vec![batch, one.weights()]);
    let per_sample = PerSampleConv2d::new(context, &desc).expect("valid");
    let map = ("attention", vec![batch, K, SIDE]);
    let mapped =
        MapConv2d::new(context, &bank, &noise.floats(K * all.weights()), None, MapAxis::One(2))
            .expect("valid");
    uses!(
        ("bank bind", given, [x, a, y], bound, |l, t| l.bind(t[0], t[1], t[2])),
        ("bank bind_add", given, [x, a, r, y], bound, |l, t| l.bind_add(t[0], t[1], t[2], t[3])),
        ("bank forward", given, [x, a], forward, |l, t| l.forward(t[0], t[1])),
        ("per-sample bind", per_sample, [x, kernels, y], bound, |l, t| l.bind(t[0], t[1], t[2])),
        ("per-sample bind_add", per_sample, [x, kernels, r, y], bound, |l, t| l
            .bind_add(t[0], t[1], t[2], t[3])),
        ("map bind_map", mapped, [x, map, y], bound, |l, t| l.bind_map(t[0], t[1], t[2])),
    );

    let pixel = PixelMix2d::new(context, &bank, &weights::pixel_mix(noise, &all, true), 1.0)
        .expect("valid");
    let fdy =
        FdyConv2d::new(context, &bank, &weights::fdy(noise, &all, true), 31.0).expect("valid");
    let style = ("style", vec![batch, C_IN]);
    let modulated =
        ModulatedConv2d::new(context, &desc, &noise.floats(one.weights()), true).expect("valid");
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
    let [dcd, dcd_2x2] =
        [1, 2].map(|pooled| Dcd2d::new(context, &desc, &dcd(pooled)).expect("valid"));
    uses!(
        ("pixel mixture bind", pixel, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("pixel mixture forward", pixel, [x], forward, |l, t| l.forward(t[0])),
        ("frequency-dynamic bind", fdy, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("frequency-dynamic forward", fdy, [x], forward, |l, t| l.forward(t[0])),
        ("modulated bind", modulated, [x, style, y], bound, |l, t| l.bind(t[0], t[1], t[2])),
        ("modulated forward", modulated, [x, style], forward, |l, t| l.forward(t[0], t[1])),
        ("DCD bind", dcd, [x, y], bound, |l, t| l.bind(t[0], t[1])),
        ("DCD forward", dcd, [x], forward, |l, t| l.forward(t[0])),
        ("DCD 2 x 2 bind", dcd_2x2, [x, y], bound, |l, t| l.bind(t[0], t[1])),
    );

    let routing =
        Routing::new(context, C_IN, &noise.floats(K * C_IN), &noise.floats(K)).expect("valid");
    let vector = ("routing", vec![batch, K]);
    let means = ("output", vec![batch, C_IN, 1, 1]);
    uses!(
        ("routing bind", routing, [x, vector], bound, |l, t| l.bind(t[0], t[1])),
        ("pooling", context, [x, means], bound, |c, t| global_average_pool(&c, t[0], t[1])),
    );
    uses
}
