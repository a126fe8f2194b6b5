//! Batch norms behind layers.

use dynconv::reference::narrow;
use dynconv::{
    BatchNorm, Context, ConvDesc, FdyConv2d, ModulatedConv2d, OdConv2d, PixelMix2d, Result,
    StaticConv2d, Tensor,
};

use crate::common::{Noise, assert_same_bits, context, read, upload, weights};

const CHANNELS: usize = 5;

/// Variances so small that epsilon decides.
fn norm(epsilon: f64) -> BatchNorm {
    let mut noise = Noise::new(3);
    let [weight, bias, mean] = [0; 3].map(|_| noise.floats(CHANNELS));
    BatchNorm { weight, bias, mean, var: vec![1e-4; CHANNELS], epsilon }
}

fn input() -> Tensor {
    upload(context(), &[1, 3, 4, 4], &Noise::new(4).floats(48))
}

/// Holds `batch_norm` against the scale and shift that its formula gives in f64.
fn check<L>(
    what: &str,
    make: impl Fn(&Context) -> Result<L>,
    normed: impl Fn(L, &BatchNorm) -> Result<L>,
    scaled: impl Fn(L, &[f32], &[f32]) -> Result<L>,
    forward: impl Fn(&L) -> Result<Tensor>,
) {
    let layer = || make(context()).expect("valid");
    let y = |layer: Result<L>| read(context(), &forward(&layer.expect("fits")).expect("runs"));
    for epsilon in [BatchNorm::EPSILON_PYTORCH, BatchNorm::EPSILON_TENSORFLOW] {
        let norm = norm(epsilon);
        let at = |values: &[f32], i: usize| f64::from(values[i]);
        let scale = |i| at(&norm.weight, i) / (at(&norm.var, i) + epsilon).sqrt();
        let shift = |i| at(&norm.bias, i) - at(&norm.mean, i) * scale(i);
        let scales = narrow(&(0..CHANNELS).map(scale).collect::<Vec<_>>());
        let shifts = narrow(&(0..CHANNELS).map(shift).collect::<Vec<_>>());
        assert_same_bits(what, &y(normed(layer(), &norm)), &y(scaled(layer(), &scales, &shifts)));
    }
    let few = BatchNorm { mean: vec![0.0; 2], ..norm(1e-5) };
    let refused = normed(layer(), &few).err().expect("is refused").to_string();
    assert_eq!(refused, "batch norm mean: expected 5 elements, found 2 elements", "{what}");
}

#[test]
fn a_batch_norm_is_a_scale_and_a_shift() {
    let desc = ConvDesc::new(3, CHANNELS, [3, 3]).padding([1, 1]);
    let kernel = Noise::new(5).floats(CHANNELS * 27);
    check(
        "static",
        |context| StaticConv2d::new(context, &desc, &kernel, None),
        StaticConv2d::batch_norm,
        StaticConv2d::scale_shift,
        |layer| layer.forward(&input()),
    );
    let bank = desc.kernels(2);
    let g = bank.geometry().expect("valid");
    let od = weights::od_conv(&mut Noise::new(6), &g);
    check(
        "ODConv",
        |context| OdConv2d::new(context, &bank, &od, 1.0),
        OdConv2d::batch_norm,
        OdConv2d::scale_shift,
        |layer| layer.forward(&input()),
    );
    let mix = weights::pixel_mix(&mut Noise::new(7), &g, true);
    check(
        "pixel mixture",
        |context| PixelMix2d::new(context, &bank, &mix, 1.0),
        PixelMix2d::batch_norm,
        PixelMix2d::scale_shift,
        |layer| layer.forward(&input()),
    );
    let fdy = weights::fdy(&mut Noise::new(8), &g, true);
    check(
        "frequency-dynamic",
        |context| FdyConv2d::new(context, &bank, &fdy, 31.0),
        FdyConv2d::batch_norm,
        FdyConv2d::scale_shift,
        |layer| layer.forward(&input()),
    );
    check(
        "modulated",
        |context| ModulatedConv2d::new(context, &desc, &kernel, true),
        ModulatedConv2d::batch_norm,
        ModulatedConv2d::scale_shift,
        |layer| layer.forward(&input(), &upload(context(), &[1, 3], &[0.5, -1.0, 2.0])),
    );
}
