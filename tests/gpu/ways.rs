//! The ways to use a layer, alike for every kind.

use dynconv::layers::AnyLayer;
use dynconv::{ConvDesc, Error, PixelMix2d, Tensor};
use dynconv_suite::weights;

use crate::common::uses::layers;
use crate::common::{Noise, assert_same_bits, context, read, run, upload};

const INPUT: [usize; 4] = [2, 4, 5, 5];

fn random(shape: &[usize], seed: u64) -> Tensor {
    upload(context(), shape, &Noise::new(seed).floats(shape.iter().product()))
}

/// What a layer is given beside its input.
fn given(layer: &dyn AnyLayer) -> Vec<Tensor> {
    let given = layer.given(&INPUT).expect("fits");
    given.iter().zip(2..).map(|((_, shape), seed)| random(shape, seed)).collect()
}

fn all(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

#[test]
fn a_tensor_that_there_is_gets_the_same_as_a_new_one() {
    for (name, layer) in layers(context()) {
        let (x, given) = (random(&INPUT, 1), given(&*layer));
        let expected = read(context(), &layer.forward_any(&x, &all(&given)).expect("runs"));
        let y = Tensor::zeros(context(), &layer.output_shape(&INPUT).expect("fits")).expect("fits");
        layer.forward_any_into(&x, &all(&given), &y).expect("runs");
        assert_same_bits(name, &read(context(), &y), &expected);
    }
}

#[test]
fn a_residual_is_added_to_the_output() {
    for (name, layer) in layers(context()) {
        let (x, given) = (random(&INPUT, 1), given(&*layer));
        let shape = layer.output_shape(&INPUT).expect("fits");
        let residual = random(&shape, 3);
        let plain = read(context(), &layer.forward_any(&x, &all(&given)).expect("runs"));
        let y = Tensor::zeros(context(), &shape).expect("fits");
        let bound = layer.bind_any(&x, &all(&given), Some(&residual), &y).expect("binds");
        let added = read(context(), &residual);
        let found = run(context(), &bound);
        // Where a layer adds twice, it adds the residual first.
        for ((found, plain), added) in found.iter().zip(&plain).zip(&added) {
            let (sum, size) = (plain + added, plain.abs() + added.abs());
            assert!((found - sum).abs() <= 1e-5 * size, "{name}: {found}, expected {sum}");
        }
        assert!(added.iter().any(|v| v.abs() > 0.1), "a residual of zeros shows nothing");
    }
}

#[test]
fn what_a_layer_is_given_is_checked_by_name() {
    for (name, layer) in layers(context()) {
        let x = random(&INPUT, 1);
        let mut given = given(&*layer);
        for (number, (what, shape)) in layer.given(&INPUT).expect("fits").iter().enumerate() {
            let longer = random(&[&shape[..], &[2]].concat(), 2);
            let right = std::mem::replace(&mut given[number], longer);
            let wrong = layer.forward_any(&x, &all(&given)).expect_err(name);
            assert!(wrong.to_string().starts_with(&format!("{what}: expected")), "{wrong}");
            given[number] = right;
            let error = layer.forward_any(&x, &all(&given[..number])).expect_err(name).to_string();
            assert!(error.contains("needs "), "{name}: {error}");
        }
        given.push(x.clone());
        let error = layer.forward_any(&x, &all(&given)).expect_err(name).to_string();
        assert!(error.contains("needs "), "{name}: {error}");
        let thin = random(&[2, 3, 5, 5], 1);
        let error = layer.forward_any(&thin, &[]).expect_err("has other channels");
        assert!(matches!(error, Error::Shape { .. }), "{name}: {error}");
    }
}

#[test]
fn host_data_gives_what_tensors_give() {
    let desc = ConvDesc::new(4, 6, [3, 3]).padding([1, 1]).kernels(3);
    let weights = weights::pixel_mix(&mut Noise::new(5), &desc.geometry().expect("valid"), true);
    let layer = PixelMix2d::new(context(), &desc, &weights, 1.0).expect("valid");
    let values = Noise::new(1).floats(INPUT.iter().product());
    let x = upload(context(), &INPUT, &values);
    let expected = read(context(), &layer.forward(&x).expect("runs"));
    assert_same_bits("run", &layer.run(2, [5, 5], &values).expect("runs"), &expected);
}
