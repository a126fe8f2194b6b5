//! Laws that hold to the bit, whatever the rounding.

use std::sync::OnceLock;

use dynconv::Algorithm;
use dynconv::layers::OwnAttention;
use dynconv::program::Plan;
use dynconv::{
    BankConv2d, CondConv2d, Context, ConvDesc, DyCnnWeights, DynConv2d, Layer, OdConv2d,
    StaticConv2d,
};

use crate::common::{Case, Noise, assert_same_bits, cases_2d, context, limited_context, weights};

/// One sample: its input, and the attention that a layer without its own is given.
#[derive(Clone)]
struct Sample {
    x: Vec<f32>,
    attention: Vec<f32>,
}

/// A layer as a function from samples to their outputs, one after another.
type Run = Box<dyn Fn(&[Sample]) -> Vec<f32>>;

/// Layers of one shape, and samples for all of them.
struct Subjects {
    samples: Vec<Sample>,
    layers: Vec<(String, Run)>,
}

fn joined<'a>(samples: &'a [Sample], part: impl Fn(&'a Sample) -> &'a [f32]) -> Vec<f32> {
    samples.iter().flat_map(|sample| part(sample).iter().copied()).collect()
}

fn own<A: OwnAttention + 'static>(layer: Layer<2, A>, size: [usize; 2]) -> Run {
    Box::new(move |samples| {
        layer.run(samples.len(), size, &joined(samples, |s| &s.x)).expect("runs")
    })
}

/// Layers with given attention, DY-CNN, ODConv and CondConv; without a bias, so that they share
/// their convolution's pipeline.
fn subjects(context: &Context, case: &Case<2>, choice: Algorithm) -> Subjects {
    let (g, size) = (case.geometry(), case.size);
    let mut noise = Noise::new(21);
    let mut sample =
        || Sample { x: noise.floats(case.sample_len()), attention: noise.floats(g.kernels) };
    let samples = (0..case.batch).map(|_| sample()).collect();
    let bank = noise.floats(g.kernels * g.weights());
    let given = BankConv2d::new(context, &case.desc, &bank, None).expect("valid").algorithm(choice);
    let given: Run = Box::new(move |samples| {
        let attention = joined(samples, |s| &s.attention);
        given.run(samples.len(), size, &joined(samples, |s| &s.x), &attention).expect("runs")
    });
    let dy =
        DynConv2d::new(context, &case.desc, &weights::dy_cnn(&mut noise, &g, [false, true]), 4.0)
            .expect("valid");
    let od =
        OdConv2d::new(context, &case.desc, &weights::od_conv(&mut noise, &g), 1.0).expect("valid");
    let cond = CondConv2d::new(context, &case.desc, &weights::cond_conv(&mut noise, &g, false))
        .expect("valid");
    let runs = [
        ("given", given),
        ("DY-CNN", own(dy.algorithm(choice), size)),
        ("ODConv", own(od.algorithm(choice), size)),
        ("CondConv", own(cond.algorithm(choice), size)),
    ];
    let name = |name| format!("{name} {case:?} {choice:?}");
    Subjects { samples, layers: runs.map(|(layer, run)| (name(layer), run)).into() }
}

/// Dense, depthwise, pointwise; and with a single tap and K = 1, where ODConv's samples share one
/// kernel.
fn batches_of_33() -> Vec<Case<2>> {
    let descs = [
        ConvDesc::new(5, 11, [3, 3]).kernels(4).padding([1, 1]),
        ConvDesc::new(6, 6, [3, 3]).kernels(4).groups(6),
        ConvDesc::new(7, 10, [1, 1]).kernels(4),
        ConvDesc::new(7, 10, [1, 1]),
        ConvDesc::new(6, 9, [1, 1]).groups(3).stride([2, 1]),
    ];
    descs.map(|desc| Case { desc, batch: 33, size: [6, 7] }).into()
}

/// A device on which a batch of 33 runs in parts, and nearly every dispatch is folded.
fn tight() -> &'static Context {
    static TIGHT: OnceLock<Context> = OnceLock::new();
    TIGHT.get_or_init(|| {
        limited_context(|limits| {
            limits.max_storage_buffer_binding_size = 10_240;
            limits.max_compute_workgroups_per_dimension = 8;
        })
    })
}

/// Runs a law over all layers of these cases, by their share of the kernels.
fn for_all(context: &Context, cases: &[Case<2>], law: impl Fn(&str, &[Sample], &Run)) {
    for case in cases {
        for choice in case.common_choices() {
            let Subjects { samples, layers } = subjects(context, case, choice);
            layers.iter().for_each(|(name, run)| law(name, &samples, run));
        }
    }
}

fn only_the_changed_sample_changes(name: &str, samples: &[Sample], run: &Run) {
    let before = run(samples);
    let changed = samples.len() / 2;
    let mut others = samples.to_vec();
    others[changed].x.fill(9.0);
    others[changed].attention.fill(-2.0);
    let after = run(&others);
    let sample = before.len() / samples.len();
    for (b, (after, before)) in
        after.chunks_exact(sample).zip(before.chunks_exact(sample)).enumerate()
    {
        if b == changed {
            assert_ne!(before, after, "{name}: the change must show");
        } else {
            assert_same_bits(&format!("{name} sample {b}"), after, before);
        }
    }
}

fn a_batch_is_its_samples(name: &str, samples: &[Sample], run: &Run) {
    let alone: Vec<f32> =
        samples.iter().flat_map(|sample| run(std::slice::from_ref(sample))).collect();
    assert_same_bits(name, &run(samples), &alone);
}

fn runs_repeat(name: &str, samples: &[Sample], run: &Run) {
    assert_same_bits(name, &run(samples), &run(samples));
}

#[test]
fn changing_one_sample_leaves_the_others_bits() {
    let cases: Vec<_> = cases_2d().into_iter().filter(|case| case.batch > 1).collect();
    for_all(context(), &cases, only_the_changed_sample_changes);
}

#[test]
fn a_batch_of_33_is_33_batches_of_1() {
    for_all(context(), &batches_of_33(), a_batch_is_its_samples);
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    for_all(context(), &cases_2d()[..6], runs_repeat);
    for_all(context(), &batches_of_33(), runs_repeat);
}

#[test]
fn the_laws_hold_in_parts_and_folded() {
    for_all(tight(), &batches_of_33(), |name, samples, run| {
        only_the_changed_sample_changes(name, samples, run);
        a_batch_is_its_samples(name, samples, run);
        runs_repeat(name, samples, run);
    });
}

#[test]
fn parts_and_folds_change_no_bit() {
    // Both devices come from one adapter, so that only the limits differ.
    let whole = limited_context(|_| ());
    let is_split = |plan: &Plan| plan.samples_per_chunk() < 33;
    let is_folded = |plan: &Plan| plan.dispatches().iter().any(|dispatch| dispatch.grid[1] > 1);
    for case in &batches_of_33() {
        let weights = weights::dy_cnn(&mut Noise::new(23), &case.geometry(), [false; 2]);
        let plan = |context: &Context| {
            let layer = DynConv2d::new(context, &case.desc, &weights, 1.0).expect("valid");
            layer.plan(33, case.size).expect("plans")
        };
        let [tight_plan, whole_plan] = [plan(tight()), plan(&whole)];
        assert!(is_split(&tight_plan) && is_folded(&tight_plan), "{tight_plan}");
        assert!(!is_split(&whole_plan) && !is_folded(&whole_plan), "{whole_plan}");
        for choice in case.common_choices() {
            let split = subjects(tight(), case, choice);
            let whole = subjects(&whole, case, choice);
            for ((name, in_parts), (_, at_once)) in split.layers.iter().zip(&whole.layers) {
                assert_same_bits(name, &in_parts(&split.samples), &at_once(&whole.samples));
            }
        }
    }
}

/// The static convolution of kernel `k` of a bank.
fn of_one_kernel(case: &Case<2>, bank: &[f32], k: usize, choice: Algorithm, x: &[f32]) -> Vec<f32> {
    let kernel = &bank[k * case.weights()..(k + 1) * case.weights()];
    let layer = StaticConv2d::new(context(), &case.desc.kernels(1), kernel, None)
        .expect("valid")
        .algorithm(choice);
    layer.run(case.batch, case.size, x).expect("runs")
}

#[test]
fn a_logit_far_above_the_others_takes_its_kernel_alone() {
    let case = cases_2d()[0];
    let mut noise = Noise::new(24);
    let weights = weights::dy_cnn(&mut noise, &case.geometry(), [false, true]);
    let x = noise.floats(case.input_len());
    // e^300 is no f32: the largest logit must be subtracted from all, and before the division,
    // which overflows. The last two temperatures are subnormal numbers.
    let extremes = [(300.0, 1.0), (3e38, 0.1), (1.0, 1e-38), (3e38, 1e-44)];
    for ((largest, temperature), k) in extremes.into_iter().zip((0..case.kernels()).cycle()) {
        let logits = (0..case.kernels()).map(|i| if i == k { largest } else { 0.0 }).collect();
        let fc2 = vec![0.0; weights.head.len()];
        let weights = DyCnnWeights { head: fc2, head_bias: Some(logits), ..weights.clone() };
        let layer = DynConv2d::new(context(), &case.desc, &weights, temperature).expect("valid");
        let dynamic = layer.run(case.batch, case.size, &x).expect("runs");
        let fixed = of_one_kernel(&case, &weights.bank, k, Algorithm::Auto, &x);
        assert_same_bits(
            &format!("{case:?} kernel {k}, logit {largest} / {temperature:e}"),
            &dynamic,
            &fixed,
        );
    }
}

#[test]
fn one_hot_attention_is_the_static_convolution() {
    for case in &cases_2d() {
        let mut noise = Noise::new(22);
        let bank = noise.floats(case.kernels() * case.weights());
        let x = noise.floats(case.input_len());
        for choice in case.common_choices() {
            let layer = BankConv2d::new(context(), &case.desc, &bank, None)
                .expect("valid")
                .algorithm(choice);
            for k in 0..case.kernels() {
                let one_hot: Vec<f32> = (0..case.batch * case.kernels())
                    .map(|i| f32::from(u8::from(i % case.kernels() == k)))
                    .collect();
                let dynamic = layer.run(case.batch, case.size, &x, &one_hot).expect("runs");
                let fixed = of_one_kernel(case, &bank, k, choice, &x);
                assert_same_bits(&format!("{case:?} {choice:?} kernel {k}"), &dynamic, &fixed);
            }
        }
    }
}
