//! Tuning, from measurements to plans.

use dynconv::Algorithm;
use dynconv::kernels::Kernel;
use dynconv::problem::Layout;
use dynconv::problem::{AttentionSource, MapAxis, Parts, Problem};
use dynconv::tune::{Outcome, Tuned, Tuning, tune};
use dynconv::{BankConv2d, Caps, Context, ConvDesc, Elem, Error, wgpu};

use crate::common::{Noise, assert_same_bits, context};

/// What every kernel stores.
const STORE: &str = "return activate(value);";
const PLANTED: &str = "return activate(value) * 1.01;";

/// A context whose convolution kernels of these names are off by 1 %.
fn faulty(kernels: Vec<&'static str>) -> Context {
    context().clone().with_shaders(move |variant| {
        let source = variant.source();
        if !kernels.contains(&variant.kernel.name()) {
            return source;
        }
        assert!(source.contains(STORE), "{}", variant.kernel.name());
        source.replace(STORE, PLANTED)
    })
}

const CHANNELS: usize = 6;
const SIZE: [usize; 2] = [7, 10];

/// Depthwise, which several kernels compute on every device.
fn layer(context: &Context) -> BankConv2d {
    let desc =
        ConvDesc::new(CHANNELS, CHANNELS, [3, 3]).groups(CHANNELS).kernels(3).padding([1, 1]);
    let bank = Noise::new(3).floats(3 * CHANNELS * 9);
    BankConv2d::new(context, &desc, &bank, None).expect("valid")
}

fn is_wrong(tuned: &Tuned, kernel: &str) -> bool {
    let trial = tuned.trials.iter().find(|trial| trial.kernel.name() == kernel).expect("was tried");
    matches!(&trial.outcome, Outcome::Wrong(Error::Wrong { kernel: named, .. }) if named == kernel)
}

/// The planner's own choice and one other are wrong: both are told, neither is chosen, and what is
/// chosen runs, the same in every batch.
#[test]
fn wrong_kernels_are_told_and_never_chosen() {
    let planned = layer(context()).plan(3, SIZE).expect("plans").conv_kernel().name();
    let other = "conv_gemm_register";
    let tuned = layer(&faulty(vec![planned, other])).tune(3, SIZE).expect("tunes");
    assert!(is_wrong(&tuned, planned) && is_wrong(&tuned, other), "{tuned:?}");
    assert_eq!(tuned.trials[0].kernel.name(), planned);
    let wrong = tuned
        .trials
        .iter()
        .filter(|trial| !matches!(trial.outcome, Outcome::Timed(_) | Outcome::Stopped(_)));
    assert_eq!(wrong.count(), 2, "{tuned:?}");
    let (best, ms) = tuned.best().expect("the others are right");
    assert_eq!(tuned.choice(), best.choice);
    assert!(ms > 0.0 && ![planned, other].contains(&best.kernel.name()), "{tuned:?}");

    let mut table = Tuning::new(context().caps());
    table.add(&tuned);
    let by_table = layer(&context().clone().with_tuning(table).expect("is of this device"));
    assert_eq!(by_table.plan(1, SIZE).expect("plans").conv_kernel(), best.kernel);
    let sample = CHANNELS * SIZE[0] * SIZE[1];
    let (x, attention) = (Noise::new(4).floats(3 * sample), Noise::new(5).floats(9));
    let all = by_table.run(3, SIZE, &x, &attention).expect("runs");
    let each = x.chunks_exact(sample).zip(attention.chunks_exact(3));
    let each: Vec<f32> =
        each.flat_map(|(x, a)| by_table.run(1, SIZE, x, a).expect("runs")).collect();
    assert_same_bits("a tuned layer", &all, &each);
}

#[test]
fn without_a_yardstick_nothing_is_measured() {
    let error =
        layer(&faulty(vec!["conv_direct"])).tune(2, SIZE).expect_err("conv_direct is wrong");
    assert!(matches!(&error, Error::Wrong { kernel, .. } if kernel == "conv_direct"), "{error}");
}

/// Operands and reference of every kind of problem: if they were not those of the problem, its
/// kernels would all be wrong.
#[test]
fn every_kind_of_problem_can_be_measured() {
    let desc = ConvDesc::new(4, 6, [2, 3]).kernels(2);
    let problem = |desc: ConvDesc<2>, attention| Problem {
        attention,
        has_bias: true,
        ..Problem::new(desc.geometry().expect("valid"), 2, [1, 4, 5])
    };
    let all = Parts { channel: true, filter: true, spatial: true, mix: true };
    let gains = Parts { spatial: false, mix: false, ..all };
    let transposed = desc.kernels(1).groups(2).stride([2, 1]).transposed([1, 0]);
    let problems = [
        Problem {
            layouts: [Layout::ChannelsLast, Layout::ChannelsFirst],
            ..problem(desc, AttentionSource::Map(MapAxis::One(1)))
        },
        Problem {
            layouts: [Layout::ChannelsFirst, Layout::ChannelsLast],
            elems: [Elem::F16Storage; 2],
            ..problem(desc.padding([1, 1]).bank_elem(Elem::F16Storage), AttentionSource::Given(all))
        },
        problem(transposed, AttentionSource::SampleWeights),
        problem(desc.kernels(1).dilation([1, 2]), AttentionSource::Given(gains)),
    ];
    // As on a software adapter without lanes, where there are the fewest kernels to compile.
    let caps =
        Caps { device_type: wgpu::DeviceType::Cpu, subgroups: false, ..context().caps().clone() };
    let context = context().clone().with_caps(caps);
    for problem in problems {
        let tuned = tune(&context, &problem).expect("tunes");
        assert!(tuned.trials.len() > 1, "{tuned:?}");
        let defects = tuned
            .trials
            .iter()
            .filter(|trial| matches!(trial.outcome, Outcome::Wrong(_) | Outcome::Failed(_)));
        assert_eq!(defects.count(), 0, "{tuned:?}");
        let planned = tuned.planned_ms().expect("is right");
        let (best, ms) = tuned.best().expect("is right");
        let is_gain = ms < 0.97 * planned;
        assert_eq!(tuned.choice(), if is_gain { best.choice } else { Algorithm::Auto });
        assert!(tuned.trials.iter().any(|trial| trial.kernel == Kernel::ConvDirect));
    }
}
