//! Integer data: every partial sum is exact in f32, so that any order of summation gives the same bits as the reference.
//! This finds every index error, with no tolerance.

use dynconv::plan::ConvChoice;
use dynconv::reference::{self, LayerWeights, narrow, widen};
use dynconv::{Activation, Context, ConvDesc, Given, Layer, Static, wgpu};

use crate::common::{Case, Noise, assert_same_bits, cases_1d, cases_2d, cases_3d, context, limited_context};

/// Attention in quarters, which are exact too.
fn quarters(noise: &mut Noise, len: usize) -> Vec<f32> {
    noise.integers(len, 4).into_iter().map(|v| v / 4.0).collect()
}

/// All strategies give the reference's bits.
fn check<const D: usize>(context: &Context, case: &Case<D>) {
    let mut noise = Noise::new(10);
    let x = noise.integers(case.input_len(), 4);
    let bank = noise.integers(case.kernels() * case.weights(), 3);
    let bias = noise.integers(case.kernels() * case.c_out(), 9);
    let attention = quarters(&mut noise, case.batch * case.kernels());
    let scale: Vec<f32> = noise.integers(case.c_out(), 2).iter().map(|v| v + 3.0).collect();
    let shift = noise.integers(case.c_out(), 5);
    for choice in case.choices() {
        for epilogue in [false, true] {
            let mut layer =
                Layer::<D, Given>::new(context, &case.desc, &bank, epilogue.then_some(&bias)).expect("valid");
            let mut weights = LayerWeights { bank: widen(&bank), ..Default::default() };
            if epilogue {
                layer = layer.scale_shift(&scale, &shift).expect("valid").activation(Activation::Relu);
                weights.bias = Some(widen(&bias));
                weights.affine = Some([widen(&scale), widen(&shift)].concat());
            }
            let layer = layer.kernel(choice);
            let plan = layer.plan(case.batch, case.size).expect("plans");
            let truth = reference::layer(plan.problem(), &weights, &widen(&x), &widen(&attention)).y;
            let largest = truth.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            assert!(largest > 0.0 && largest < f64::from(1 << 22), "the data must be exact and not nothing: {largest}");
            let truth = narrow(&truth);
            let y = layer.run(case.batch, case.size, &x, &attention).expect("runs");
            assert_same_bits(&format!("{case:?} {choice:?} epilogue {epilogue}"), &y, &truth);
        }
    }
}

#[test]
fn two_dimensions() {
    cases_2d().iter().for_each(|case| check(context(), case));
}

#[test]
fn one_and_three_dimensions() {
    cases_1d().iter().for_each(|case| check(context(), case));
    cases_3d().iter().for_each(|case| check(context(), case));
}

#[test]
fn dispatches_folded_over_three_dimensions() {
    let context = limited_context(|limits| limits.max_compute_workgroups_per_dimension = 8);
    for case in [cases_2d()[0], cases_2d()[12], cases_2d()[13]] {
        let layer = Layer::<2, Given>::new(&context, &case.desc, &vec![0.0; case.kernels() * case.weights()], None);
        let plan = layer.expect("valid").kernel(ConvChoice::Direct).plan(case.batch, case.size).expect("plans");
        assert!(plan.dispatches().iter().any(|d| d.grid[1] > 1), "{plan}");
        check(&context, &case);
    }
    let wide = Case { desc: ConvDesc::new(2, 9, [3, 3]).kernels(2).padding([1, 1]), batch: 3, size: [17, 31] };
    check(&context, &wide);
}

#[test]
fn batches_split_to_fit_the_binding_limit() {
    // Offsets of the parts are multiples of nothing, so bindings begin before their part.
    let context = limited_context(|limits| limits.max_storage_buffer_binding_size = 4096);
    let case = Case { desc: ConvDesc::new(5, 7, [3, 3]).kernels(2).padding([1, 1]), batch: 11, size: [5, 7] };
    let layer = Layer::<2, Given>::new(&context, &case.desc, &vec![0.0; case.kernels() * case.weights()], None);
    let plan = layer.expect("valid").plan(case.batch, case.size).expect("plans");
    assert!(plan.samples_per_part() < 4 && plan.dispatches().len() > 6, "{plan}");
    check(&context, &case);
}

#[test]
fn more_than_65535_workgroups() {
    // One output per invocation, 64 per workgroup: 65,600 workgroups and a few outputs.
    let context = context();
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let size = [2050, 2050];
    let mut noise = Noise::new(3);
    let x = noise.integers(size[0] * size[1], 100);
    let layer =
        Layer::<2, Static>::new(context, &desc, &[3.0], Some(&[1.0])).expect("valid").kernel(ConvChoice::Direct);
    let plan = layer.plan(1, size).expect("plans");
    assert!(plan.dispatches()[0].workgroups > 65_535, "{plan}");
    let y = layer.run(1, size, &x).expect("runs");
    let truth: Vec<f32> = x.iter().map(|v| 3.0 * v + 1.0).collect();
    assert_same_bits("pixels", &y, &truth);
}

#[test]
fn pooling_past_65535_trips() {
    // Some drivers end loops after 65,535 trips: with one workgroup of 128 that is 8.4 million elements.
    let context = context();
    let size = [3000, 2900];
    let x = vec![1.0; size[0] * size[1]];
    let input = dynconv::Tensor::upload(context, &[1, 1, size[0], size[1]], &x).expect("fits");
    let mean = dynconv::Tensor::zeros(context, &[1, 1, 1, 1]).expect("fits");
    let bound = dynconv::global_average_pool(context, &input, &mean).expect("binds");
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    assert_same_bits("mean", &mean.read_blocking(context).expect("reads"), &[1.0]);
}
