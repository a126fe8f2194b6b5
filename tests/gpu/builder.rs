//! Several layers as one program.

use dynconv::device::Builder;
use dynconv::layers::{AnyLayer, GlobalPool, Io, WindowPool};
use dynconv::problem::Pooling;
use dynconv::program::Memory;
use dynconv::{Bound, Caps, Context, ConvDesc, StaticConv2d, Tensor};

use crate::common::uses::layers;
use crate::common::{Noise, assert_same_bits, context, read, run, submit, upload};

const INPUT: [usize; 4] = [2, 4, 5, 5];

fn random(shape: &[usize], seed: u64) -> Tensor {
    upload(context(), shape, &Noise::new(seed).floats(shape.iter().product()))
}

/// A plain convolution, to stand before and behind others.
fn plain(c_in: usize, c_out: usize) -> StaticConv2d {
    let desc = ConvDesc::new(c_in, c_out, [3, 3]).padding([1, 1]);
    let kernel = Noise::new(7).floats(9 * c_in * c_out);
    StaticConv2d::new(context(), &desc, &kernel, None).expect("valid")
}

/// Every kind of layer between two plain ones, all of them in one program that is recorded as one:
/// the bits of each layer submitted alone. Twice in one encoder, since memory is used again.
#[test]
fn every_kind_gives_the_same_bits_in_one_program() {
    let x = random(&INPUT, 1);
    let before = plain(4, 4);
    let mut builder = Builder::new(context());
    let image = builder.tensor("image", &x);
    let (mut outputs, mut expected) = (Vec::new(), Vec::new());
    for (name, layer) in layers(context()) {
        let given = layer.given(&INPUT).expect("fits");
        let given: Vec<Tensor> = given.iter().map(|(_, shape)| random(shape, 2)).collect();
        let shape = layer.output_shape(&INPUT).expect("fits");
        let after = plain(shape[1], 3);
        let forward = |layer: &dyn AnyLayer, x: &Tensor, given: &[&Tensor]| {
            layer.forward_any(x, given).expect("runs")
        };
        let all: Vec<&Tensor> = given.iter().collect();
        let between = forward(&*layer, &forward(&before, &x, &[]), &all);
        expected.push((name, read(context(), &forward(&after, &between, &[]))));

        let y = Tensor::zeros(context(), &[shape[0], 3, shape[2], shape[3]]).expect("fits");
        let value = builder.tensor("output", &y);
        let given: Vec<_> = given.iter().map(|given| builder.tensor("given", given)).collect();
        let first = builder.layer(&before, image, &[]).expect("fits");
        let between = builder.layer(&*layer, first, &given).expect("fits");
        builder.layer_into(&after, Io::new(between, value)).expect("fits");
        outputs.push((value, y));
    }
    let last = outputs.last().expect("there are kinds").0;
    let bound = builder.bind(last).expect("binds");
    submit(context(), |encoder| {
        bound.record(encoder);
        bound.record(encoder);
    });
    for ((name, expected), (_, y)) in expected.iter().zip(&outputs) {
        assert_same_bits(name, &read(context(), y), expected);
    }

    let program = bound.program();
    let scratch = program.values().iter().filter(|info| info.memory != Memory::External);
    let apart: u64 = scratch.map(dynconv::program::ValueInfo::bytes).sum();
    let together = program.arena(context().caps()).bytes();
    assert!(outputs.len() > 10 && 5 * together < apart, "{together} of {apart} bytes");
}

/// A residual block: what is added was written two layers before.
#[test]
fn a_value_lives_until_its_last_reader() {
    let x = random(&INPUT, 1);
    let [first, second, third] = [plain(4, 4), plain(4, 4), plain(4, 4)];
    let h = first.forward(&x).expect("runs");
    let z = second.forward(&h).expect("runs");
    let y = Tensor::zeros(context(), &INPUT).expect("fits");
    let expected = run(context(), &third.bind_add(&z, &h, &y).expect("binds"));

    let mut builder = Builder::new(context());
    let [x, y] = [("image", &x), ("output", &y)].map(|(name, t)| builder.tensor(name, t));
    let h = builder.layer(&first, x, &[]).expect("fits");
    let z = builder.layer(&second, h, &[]).expect("fits");
    builder.layer_into(&third, Io::new(z, y).adding(h)).expect("fits");
    let bound = builder.bind(y).expect("binds");
    assert_same_bits("a residual block", &run(context(), &bound), &expected);
}

/// A batch whose input passes the binding limit runs in chunks, also where nothing convolves.
#[test]
fn pools_run_in_chunks() {
    let windows = ConvDesc::new(3, 3, [3, 3]).groups(3).stride([2, 2]).padding([1, 1]);
    let x = random(&[7, 3, 9, 8], 5);
    let pooled = |context: &Context| -> [Bound; 2] {
        let layers: [Box<dyn AnyLayer>; 2] = [
            Box::new(WindowPool::new(context, &windows, Pooling::Max).expect("valid")),
            Box::new(GlobalPool::new(context)),
        ];
        layers.map(|layer| {
            let y = Tensor::zeros(context, &layer.output_shape(x.shape()).expect("fits"));
            layer.bind_any(&x, &[], None, &y.expect("fits")).expect("binds")
        })
    };
    // Two samples of 864 bytes.
    let max_storage_binding = 2000 + u64::from(context().caps().storage_alignment);
    let caps = Caps { max_storage_binding, ..context().caps().clone() };
    let small = context().clone().with_caps(caps);
    for (whole, chunked) in pooled(context()).iter().zip(&pooled(&small)) {
        assert_eq!((whole.steps().len(), chunked.steps().len()), (1, 4));
        assert_same_bits("in chunks", &run(context(), chunked), &run(context(), whole));
    }
}

/// Sizes that no tensor has are refused, and do not overflow.
#[test]
fn pools_of_any_size_are_refused_and_not_wrapped() {
    let windows = ConvDesc::new(4, 4, [3]).groups(4).padding([1]);
    let pool = WindowPool::<1>::new(context(), &windows, Pooling::Max).expect("valid");
    for size in [usize::MAX, usize::MAX - 1, 1 << 62, 1 << 40] {
        assert!(pool.program(&[1, 4, size], dynconv::Elem::F32).is_err(), "{size}");
    }
    let wide = ConvDesc::new(1, 1, [1 << 20]).padding([1 << 20]);
    let pool = WindowPool::<1>::new(context(), &wide, Pooling::Max).expect("valid");
    let message = pool.output_shape(&[1, 1, 8]).expect_err("covers nothing").to_string();
    assert!(message.contains("window 0 of axis 0 in the padding"), "{message}");
}
