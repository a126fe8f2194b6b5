//! Measurements on whatever adapter there is.

use std::ops::ControlFlow;

use dynconv::Algorithm;
use dynconv::{Caps, Context, Elem};
use dynconv_measure::{Case, Options, Outcome, Peak, Results, Row, load, measure};
use dynconv_suite::spec::Family;

fn context() -> Context {
    Context::request_blocking().expect("these tests need an adapter; `cargo xtask test` brings one")
}

fn measured(context: &Context, batch: usize, kernels: &[Algorithm]) -> Vec<Outcome> {
    let peak = Peak { gflops: 1.0, copy_gbps: 1.0 };
    let shape = load("smoke").expect("parses").remove(0);
    let kernels = kernels.to_vec();
    let options = Options {
        family: Family::Bank,
        elem: Elem::F32,
        kernels,
        samples: 3,
        groups: true,
        quick: false,
    };
    measure(context, &peak, &Case { shape, batch }, &options, &mut |_| ControlFlow::Continue(()))
        .expect("the device works")
}

fn row(outcome: &Outcome) -> &Row {
    let Outcome::Measured(row) = outcome else { panic!("{outcome:?}") };
    row
}

#[test]
fn short_layers_run_often_in_a_sample() {
    let context = context();
    // How often is decided by a first run, which a busy machine may stretch: one of three must do.
    let outcomes: Vec<_> = (0..3).flat_map(|_| measured(&context, 1, &[Algorithm::Auto])).collect();
    let rows: Vec<&Row> = outcomes.iter().map(row).collect();
    assert!(rows.iter().any(|row| row.repeats > 1), "{rows:?}");
    let is_ordered = |row: &&Row| row.min_ms <= row.median_ms && row.median_ms <= row.max_ms;
    assert!(rows.iter().all(is_ordered), "{rows:?}");
}

/// Banks are kept in another order on some devices, and some kernels read only that.
#[test]
fn the_planners_choice_can_be_asked_for() {
    let context = context();
    let shape = load("peers")
        .expect("parses")
        .into_iter()
        .find(|shape| shape.name == "s6")
        .expect("is 1 x 1");
    let peak = Peak { gflops: 1.0, copy_gbps: 1.0 };
    let measured = |conv| {
        let options = Options {
            family: Family::Bank,
            elem: Elem::F32,
            kernels: vec![conv],
            samples: 1,
            groups: false,
            quick: true,
        };
        let case = Case { shape: shape.clone(), batch: 1 };
        row(&measure(&context, &peak, &case, &options, &mut |_| ControlFlow::Continue(()))
            .expect("the device works")[0])
        .kernel
        .clone()
    };
    let planned = measured(Algorithm::Auto);
    let name = planned.rsplit("conv_").next().expect("has an end");
    assert_eq!(measured(name.parse().expect("is a kernel")), planned);
}

#[test]
fn without_timestamps_times_are_the_hosts() {
    let context = context();
    let caps = Caps { timestamps: false, ..context.caps().clone() };
    let context = context.with_caps(caps);
    let outcomes = measured(&context, 2, &[Algorithm::Auto]);
    let row = row(&outcomes[0]);
    assert!(row.median_ms > 0.0 && row.median_ms == row.wall_ms, "{row:?}");
    let peak = Peak::measure(&context, true).expect("the peak can be measured");
    assert!(!Results::new(&context, &peak, 3, false).timestamps);
}

#[test]
fn what_cannot_run_is_an_outcome() {
    let refusal = |outcome: &Outcome| {
        let Outcome::NotMeasured(refusal) = outcome else { panic!("{outcome:?}") };
        assert!(!refusal.is_wrong, "{refusal:?}");
        (refusal.strategy.clone(), refusal.reason.clone())
    };
    let outcomes = measured(&context(), 2, &[Algorithm::ConvDirect, Algorithm::ConvDepthwise]);
    assert_eq!((outcomes.len(), row(&outcomes[0]).strategy.as_str()), (2, "direct"));
    assert!(refusal(&outcomes[1]).1.contains("one input channel a group"));

    // Hundreds of gigabytes of numbers are not drawn to find out that no device has room for them.
    let outcomes = measured(&context(), 100_000_000, &[Algorithm::Auto]);
    assert_eq!((outcomes.len(), refusal(&outcomes[0]).0.as_str()), (1, "all"));
}
