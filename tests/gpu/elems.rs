//! Element types, and reductions in parts.

use dynconv::Algorithm;
use dynconv::{BankConv2d, Caps, Context, ConvDesc, DynConv2d, Elem, Tensor};

use crate::common::{Case, Noise, assert_same_bits, cases_2d, context, submit, upload, weights};

/// Output of a layer with given attention, for input and output in `elem`.
fn run(
    context: &Context,
    case: &Case<2>,
    layer: &BankConv2d,
    x: &[f32],
    attention: &[f32],
    elem: Elem,
) -> Vec<f32> {
    let x = Tensor::upload_in(context, &case.input_shape(), x, elem).expect("uploads");
    let attention = upload(context, &[case.batch, case.kernels()], attention);
    layer.forward(&x, &attention).expect("runs").read_blocking(context).expect("reads")
}

#[test]
fn small_integers_are_exact_in_every_element_type() {
    // Products and sums stay below 2048, so that f16 holds every output; bf16 holds integers to
    // 256.
    for case in &cases_2d() {
        let mut noise = Noise::new(61);
        let x = noise.integers(case.input_len(), 1);
        let attention = noise.integers(case.batch * case.kernels(), 1);
        let bank = noise.integers(case.kernels() * case.weights(), 1);
        let layer = |elem, choice| {
            let desc = case.desc.bank_elem(elem);
            BankConv2d::new(context(), &desc, &bank, None).expect("valid").algorithm(choice)
        };
        let truth = run(
            context(),
            case,
            &layer(Elem::F32, Algorithm::ConvDirect),
            &x,
            &attention,
            Elem::F32,
        );
        assert!(truth.iter().all(|v| v.abs() < 2048.0));
        for elem in [Elem::F16Storage, Elem::F16] {
            for choice in case.common_choices() {
                let y =
                    run(context(), case, &layer(Elem::F16Storage, choice), &x, &attention, elem);
                assert_same_bits(&format!("{case:?} {choice:?} {elem:?}"), &y, &truth);
            }
        }
        let y = run(
            context(),
            case,
            &layer(Elem::Bf16Storage, Algorithm::Auto),
            &x,
            &attention,
            Elem::F32,
        );
        assert_same_bits(&format!("{case:?} bank in bf16"), &y, &truth);
    }
}

#[test]
fn every_f16_survives_a_round_trip() {
    // All 65,536 patterns but the not-a-numbers, through upload, an identity convolution and
    // readback.
    let values: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::f16::from_bits(bits).to_f32())
        .filter(|v| v.is_finite())
        .collect();
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let layer = dynconv::StaticConv2d::new(context(), &desc, &[1.0], None).expect("valid");
    for elem in [Elem::F16Storage, Elem::F16] {
        let x =
            Tensor::upload_in(context(), &[1, 1, 1, values.len()], &values, elem).expect("uploads");
        let y = layer.forward(&x).expect("runs").read_blocking(context()).expect("reads");
        for (y, x) in y.iter().zip(&values) {
            // Subnormal halves may be flushed to zero; the sign of zero may be lost.
            assert!(y == x || (x.abs() < 6.2e-5 && *y == 0.0), "{elem:?}: {x} came back as {y}");
        }
    }
}

#[test]
fn f16_stores_saturate() {
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let layer = dynconv::StaticConv2d::new(context(), &desc, &[40_000.0], None).expect("valid");
    for elem in [Elem::F16Storage, Elem::F16] {
        let x =
            Tensor::upload_in(context(), &[1, 1, 1, 3], &[3.0, -3.0, 1.0], elem).expect("uploads");
        let y = layer.forward(&x).expect("runs").read_blocking(context()).expect("reads");
        assert_same_bits(&format!("{elem:?}"), &y, &[65_504.0, -65_504.0, 40_000.0]);
    }
}

#[test]
fn input_and_output_may_differ_in_type_and_halves_leave_their_neighbours() {
    let case = cases_2d()[0];
    let mut noise = Noise::new(62);
    let x = noise.integers(case.input_len(), 1);
    let bank = noise.integers(case.kernels() * case.weights(), 1);
    let layer = BankConv2d::new(context(), &case.desc, &bank, None).expect("valid");
    let ones = vec![1.0; case.batch * case.kernels()];
    let truth = run(context(), &case, &layer, &x, &ones, Elem::F32);
    let attention = upload(context(), &[case.batch, case.kernels()], &ones);
    let shape = layer.output_shape(&case.input_shape()).expect("fits");
    for (from, to) in [
        (Elem::F32, Elem::F16Storage),
        (Elem::F16Storage, Elem::F32),
        (Elem::F16, Elem::F16Storage),
    ] {
        let x = Tensor::upload_in(context(), &case.input_shape(), &x, from).expect("uploads");
        // The output lies between two guards in a buffer of f16.
        let len: usize = shape.iter().product();
        let guarded =
            Tensor::upload_in(context(), &[len + 4], &vec![7.0; len + 4], to).expect("uploads");
        let y = Tensor::wrap_in(context(), guarded.buffer(), 2 * to.bytes() / 4 * 4, &shape, to)
            .expect("fits");
        let before = usize::try_from(y.range().start / to.bytes()).expect("small");
        let bound = layer.bind(&x, &attention, &y).expect("binds");
        submit(context(), |encoder| bound.record(encoder));
        let all = guarded.read_blocking(context()).expect("reads");
        assert_same_bits(&format!("{from:?} to {to:?}"), &all[before..before + len], &truth);
        assert!(
            all[..before].iter().chain(&all[before + len..]).all(|&v| v == 7.0),
            "{from:?} to {to:?}: a guard"
        );
    }
}

#[test]
fn reductions_in_parts_give_the_same_sums() {
    // As if the driver ended loops after few iterations: the channels are cut into several
    // dispatches.
    let caps = Caps { max_loop_iterations: 270, ..context().caps().clone() };
    let short = context().clone().with_caps(caps);
    let desc = ConvDesc::new(230, 17, [3, 3]).kernels(2).padding([1, 1]);
    let case = Case { desc, batch: 2, size: [6, 7] };
    let pointwise = Case { desc: ConvDesc::new(900, 9, [1, 1]).kernels(2), ..case };
    for case in [case, pointwise] {
        let mut noise = Noise::new(63);
        let x = noise.integers(case.input_len(), 3);
        let attention = noise.integers(case.batch * case.kernels(), 2);
        let bank = noise.integers(case.kernels() * case.weights(), 3);
        let bias = noise.integers(case.kernels() * case.c_out(), 9);
        for choice in case.common_choices() {
            let layer = |context| {
                let layer =
                    BankConv2d::new(context, &case.desc, &bank, Some(&bias)).expect("valid");
                layer.activation(dynconv::Activation::Relu).algorithm(choice)
            };
            let whole = layer(context()).run(case.batch, case.size, &x, &attention).expect("runs");
            let parts = layer(&short);
            let plan = parts.plan(case.batch, case.size).expect("plans");
            assert!(plan.dispatches().len() > 3, "{plan}");
            let parts = parts.run(case.batch, case.size, &x, &attention).expect("runs");
            assert_same_bits(&format!("{case:?} {choice:?}"), &parts, &whole);
        }
    }
}

#[test]
fn a_layer_with_attention_in_f16_is_close_to_f32() {
    let case = cases_2d()[1];
    let mut noise = Noise::new(64);
    let g = case.desc.geometry().expect("valid");
    let layer =
        DynConv2d::new(context(), &case.desc, &weights::dy_cnn(&mut noise, &g, [true, true]), 1.0)
            .expect("valid");
    let x = noise.floats(case.input_len());
    let run = |elem| {
        let x = Tensor::upload_in(context(), &case.input_shape(), &x, elem).expect("uploads");
        layer.forward(&x).expect("runs").read_blocking(context()).expect("reads")
    };
    let truth = run(Elem::F32);
    let largest = truth.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for elem in [Elem::F16Storage, Elem::F16] {
        for (y, t) in run(elem).iter().zip(&truth) {
            // Input and output are rounded to 11 bits: see the tolerance of `dynconv verify
            // --elem`.
            assert!((y - t).abs() <= 5e-3 * largest, "{elem:?}: {y} is not {t}");
        }
    }
}

#[test]
fn a_modulated_convolution_takes_styles_that_f16_weights_would_not() {
    // Weights times styles of 60,000 overflow f16; the published remedy divides both by their
    // largest. Here the product is never stored, and demodulation brings the sum back before it
    // is.
    let desc = ConvDesc::new(6, 5, [3, 3]).padding([1, 1]);
    let mut noise = Noise::new(65);
    let kernel: Vec<f32> = noise.floats(5 * 6 * 9).iter().map(|v| 8.0 * v).collect();
    let style: Vec<f32> = noise.floats(2 * 6).iter().map(|v| 60_000.0 * (v + 1.5)).collect();
    let values = noise.floats(2 * 6 * 7 * 7);
    let layer = dynconv::ModulatedConv2d::new(context(), &desc, &kernel, true).expect("valid");
    let style = upload(context(), &[2, 6], &style);
    let run = |elem| {
        let x = Tensor::upload_in(context(), &[2, 6, 7, 7], &values, elem).expect("uploads");
        layer.forward(&x, &style).expect("runs").read_blocking(context()).expect("reads")
    };
    let truth = run(Elem::F32);
    let largest = truth.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    assert!(largest > 0.1 && largest < 100.0, "{largest}");
    for elem in [Elem::F16Storage, Elem::F16] {
        for (y, t) in run(elem).iter().zip(&truth) {
            assert!((y - t).abs() <= 5e-3 * largest, "{elem:?}: {y} is not {t}");
        }
    }
}
