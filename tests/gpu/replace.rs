//! New weights and temperatures in layers that are bound already: the bits of a new layer, and no
//! new pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dynconv::layers::Routing;
use dynconv::problem::Cells;
use dynconv::problem::MapAxis;
use dynconv::{
    BankConv2d, BatchNorm, Bound, CondConv2d, Context, ConvDesc, Dcd2d, DcdWeights, DynConv2d,
    Elem, FdyConv2d, KernelWarehouse2d, Linear, MapConv2d, ModulatedConv2d, OdConv2d, OdWeights,
    PixelMix2d, Result, StaticConv2d, Tensor, Warehouse, wgpu,
};

use crate::common::{Noise, assert_same_bits, context, run, upload, weights};

const BATCH: usize = 2;
const SIZE: [usize; 2] = [7, 9];

fn desc() -> ConvDesc<2> {
    ConvDesc::new(6, 10, [3, 3]).padding([1, 1])
}

fn input(context: &Context) -> Tensor {
    upload(context, &[BATCH, 6, 7, 9], &Noise::new(1).floats(BATCH * 6 * SIZE[0] * SIZE[1]))
}

fn output(context: &Context) -> Tensor {
    Tensor::zeros(context, &[BATCH, 10, 7, 9]).expect("fits")
}

/// Binds a layer with the old values, then changes it to the new ones, and holds it against a
/// layer that is made of them.
fn check<L: Clone, V>(
    what: &str,
    [old, new]: [&V; 2],
    make: impl Fn(&Context, &V) -> Result<L>,
    bind: impl Fn(&Context, &L) -> Result<Bound>,
    set: impl Fn(&L, &V) -> Result<()>,
) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let counting = context().clone().with_shaders(move |variant| {
        count.fetch_add(1, Ordering::Relaxed);
        variant.source()
    });
    let layer = make(&counting, old).expect("valid");
    let bound = bind(&counting, &layer).expect("binds");
    let before = run(&counting, &bound);

    // Recorded with the old values, submitted after the new ones.
    let mut encoder =
        counting.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.record(&mut encoder);
    let pipelines = made.load(Ordering::Relaxed);
    set(&layer.clone(), new).expect("same shapes");
    counting.queue().submit([encoder.finish()]);
    let after = bound.output().read_blocking(&counting).expect("reads");
    let again = run(&counting, &bind(&counting, &layer).expect("binds"));
    assert_eq!(made.load(Ordering::Relaxed), pipelines, "{what}: pipelines");
    assert!(pipelines > 0 && before != after, "{what}: nothing has changed");

    let fresh = make(context(), new).expect("valid");
    let expected = run(context(), &bind(context(), &fresh).expect("binds"));
    assert_same_bits(what, &after, &expected);
    assert_same_bits(what, &again, &expected);
}

type Bank = (Vec<f32>, Option<Vec<f32>>);

fn banks(kernels: usize, bias: bool) -> [Bank; 2] {
    [2, 3].map(|seed| {
        let mut noise = Noise::new(seed);
        (noise.floats(kernels * 10 * 6 * 9), bias.then(|| noise.floats(kernels * 10)))
    })
}

#[test]
fn banks_are_replaced() {
    let [old, new] = &banks(1, true);
    for desc in [desc(), desc().bank_elem(Elem::F16Storage)] {
        check(
            "static",
            [old, new],
            |context, (kernel, bias)| StaticConv2d::new(context, &desc, kernel, bias.as_deref()),
            |context, layer| layer.bind(&input(context), &output(context)),
            |layer, (kernel, bias)| layer.set_weights(kernel, bias.as_deref()),
        );
    }
    for bias in [false, true] {
        let [old, new] = &banks(3, bias);
        check(
            "given attention",
            [old, new],
            |context, (bank, bias)| {
                BankConv2d::new(context, &desc().kernels(3), bank, bias.as_deref())
            },
            |context, layer| {
                let attention = upload(context, &[BATCH, 3], &Noise::new(4).floats(BATCH * 3));
                layer.bind(&input(context), &attention, &output(context))
            },
            |layer, (bank, bias)| layer.set_weights(bank, bias.as_deref()),
        );
        check(
            "map",
            [old, new],
            |context, (bank, bias)| {
                MapConv2d::new(context, &desc().kernels(3), bank, bias.as_deref(), MapAxis::One(2))
            },
            |context, layer| {
                let map = upload(context, &[BATCH, 3, 9], &Noise::new(4).floats(BATCH * 27));
                layer.bind(&input(context), &map, &output(context))
            },
            |layer, (bank, bias)| layer.set_weights(bank, bias.as_deref()),
        );
    }
    check(
        "modulated",
        [&old.0, &new.0],
        |context, weight| ModulatedConv2d::new(context, &desc(), weight, true),
        |context, layer| {
            let style = upload(context, &[BATCH, 6], &Noise::new(4).floats(BATCH * 6));
            layer.bind(&input(context), &style, &output(context))
        },
        |layer, weight| layer.set_weights(weight),
    );
}

#[test]
fn weights_and_temperatures_of_layers_with_attention_are_replaced() {
    let desc = &desc().kernels(3);
    let g = desc.geometry().expect("valid");
    let noises = || [5, 6].map(Noise::new);
    let [old, new] = noises().map(|mut noise| weights::dy_cnn(&mut noise, &g, [true, true]));
    check(
        "DY-CNN",
        [&(old, 4.0), &(new, 0.5)],
        |context, (weights, t)| DynConv2d::new(context, desc, weights, *t),
        |context, layer| layer.bind(&input(context), &output(context)),
        |layer, (weights, t)| layer.set_weights(weights).and_then(|()| layer.set_temperature(*t)),
    );
    // With and without a kernel of each sample's own; the second has gains alone.
    for desc in [*desc, ConvDesc::new(6, 10, [1, 1])] {
        let g = desc.geometry().expect("valid");
        let [old, new] = noises().map(|mut noise| {
            let weights = weights::od_conv(&mut noise, &g);
            OdWeights { bias: Some(noise.floats(g.kernels * 10)), ..weights }
        });
        check(
            "ODConv",
            [&(old, 30.0), &(new, 1.0)],
            |context, (weights, t)| OdConv2d::new(context, &desc, weights, *t),
            |context, layer| layer.bind(&input(context), &output(context)),
            |layer, (weights, t)| {
                layer.set_weights(weights).and_then(|()| layer.set_temperature(*t))
            },
        );
    }
    let [old, new] = noises().map(|mut noise| weights::cond_conv(&mut noise, &g, true));
    check(
        "CondConv",
        [&old, &new],
        |context, weights| CondConv2d::new(context, desc, weights),
        |context, layer| layer.bind(&input(context), &output(context)),
        CondConv2d::set_weights,
    );
    check(
        "routing",
        [&old, &new],
        |context, weights| Routing::new(context, 6, &weights.head, &weights.head_bias),
        |context, layer| layer.bind(&input(context), &Tensor::zeros(context, &[BATCH, 3])?),
        |layer, weights| layer.set_weights(&weights.head, &weights.head_bias),
    );
    let [old, new] = noises().map(|mut noise| weights::pixel_mix(&mut noise, &g, true));
    check(
        "pixel mixture",
        [&(old, 2.0), &(new, 0.5)],
        |context, (weights, t)| PixelMix2d::new(context, desc, weights, *t),
        |context, layer| layer.bind(&input(context), &output(context)),
        |layer, (weights, t)| layer.set_weights(weights).and_then(|()| layer.set_temperature(*t)),
    );
    let [old, new] = noises().map(|mut noise| weights::fdy(&mut noise, &g, true));
    check(
        "frequency-dynamic",
        [&(old, 31.0), &(new, 1.0)],
        |context, (weights, t)| FdyConv2d::new(context, desc, weights, *t),
        |context, layer| layer.bind(&input(context), &output(context)),
        |layer, (weights, t)| layer.set_weights(weights).and_then(|()| layer.set_temperature(*t)),
    );
}

#[test]
fn cells_and_matrix_decompositions_are_replaced() {
    let cells = Cells { count: 4, c_out: 5, c_in: 3, taps: 1 };
    let g = desc().geometry().expect("valid");
    let [old, new] = [7, 8].map(|seed| {
        let mut noise = Noise::new(seed);
        (noise.floats(4 * cells.elements()), weights::kernel_warehouse(&mut noise, &g, cells, true))
    });
    check(
        "KernelWarehouse",
        [&old, &new],
        |context, (values, weights)| {
            let warehouse = Warehouse::new(context, cells, values)?;
            Ok((KernelWarehouse2d::new(context, &desc(), weights, &warehouse)?, warehouse))
        },
        |context, (layer, _)| layer.bind(&input(context), &output(context)),
        |(layer, warehouse), (values, weights)| {
            warehouse.set(values)?;
            assert_eq!(weights.reference(warehouse).bank[0], f64::from(values[0]));
            layer.set_weights(weights)
        },
    );

    let [old, new] = [9, 10].map(|seed| {
        let mut noise = Noise::new(seed);
        let mut norm = || BatchNorm {
            var: vec![1.5; 3],
            epsilon: 1e-5,
            ..BatchNorm::only_bias(noise.floats(3))
        };
        DcdWeights {
            norm1: norm(),
            norm2: norm(),
            conv: noise.floats(10 * 6 * 9),
            q: noise.floats(3 * 6),
            p: noise.floats(10 * 3),
            squeeze: noise.floats(4 * 6),
            gate: noise.floats(16),
            phi: noise.floats(9 * 4),
            scale: noise.floats(10 * 4),
        }
    });
    check(
        "DCD",
        [&old, &new],
        |context, weights| Dcd2d::new(context, &desc(), weights),
        |context, layer| layer.bind(&input(context), &output(context)),
        Dcd2d::set_weights,
    );
}

#[test]
fn other_shapes_are_refused_and_change_nothing() {
    let message = |result: Result<()>| result.expect_err("is refused").to_string();
    let g = desc().kernels(3).geometry().expect("valid");
    let mut noise = Noise::new(11);
    let weights = weights::od_conv(&mut noise, &g);
    let layer = OdConv2d::new(context(), &desc().kernels(3), &weights, 1.0).expect("valid");
    let bound = layer.bind(&input(context()), &output(context())).expect("binds");
    let before = run(context(), &bound);

    let fewer = OdWeights { channel_head: None, ..weights.clone() };
    assert_eq!(
        message(layer.set_weights(&fewer)),
        "attention of the new weights: expected 16 hidden units, heads for channels, filters, \
         taps, kernels, found 16 hidden units, heads for filters, taps, kernels"
    );
    let with_bias = OdWeights { bias: Some(vec![0.0; 30]), ..weights.clone() };
    assert_eq!(
        message(layer.set_weights(&with_bias)),
        "bias bank of the new weights: expected none, found one"
    );
    // The attention would fit: nothing of it is written either.
    let short = OdWeights {
        bank: vec![0.0; 7],
        hidden: vec![0.5; weights.hidden.len()],
        ..weights.clone()
    };
    assert_eq!(
        message(layer.set_weights(&short)),
        "kernel bank: expected 1620 elements, found 7 elements"
    );
    let wild = OdWeights {
        kernel_head: Some(Linear { weight: vec![f32::NAN; 48], bias: vec![0.0; 3] }),
        ..weights
    };
    assert_eq!(
        message(layer.set_weights(&wild)),
        "kernel_fc weight, element 0: needs a finite number, found NaN"
    );
    assert_eq!(
        message(layer.set_temperature(0.0)),
        "temperature: needs a finite number above 0, found 0"
    );
    assert_same_bits("unchanged", &run(context(), &bound), &before);

    let cells = Cells { count: 1, c_out: 1, c_in: 1, taps: 1 };
    let warehouse = Warehouse::new(context(), cells, &[1.0]).expect("valid");
    assert_eq!(message(warehouse.set(&[1.0, 2.0])), "cells: expected 1 element, found 2 elements");
}
