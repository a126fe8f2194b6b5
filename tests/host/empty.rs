//! An empty batch gives an empty output, of every kind of layer.

use dynconv::layers::Routing;
use dynconv::problem::Problem;
use dynconv::problem::{Cells, Layout};
use dynconv::{
    BankConv2d, CondConv2d, ConvDesc, DynConv2d, Elem, KernelWarehouse2d, OdConv2d, StaticConv2d,
    Tensor, Warehouse, tune,
};

use dynconv_suite::catalogue;
use dynconv_suite::laws::Law;
use dynconv_suite::run::Fault;
use dynconv_suite::variants::{with_lanes, with_matrices};

use crate::common::uses::uses;
use crate::common::{Noise, noop, weights};

#[test]
fn an_empty_batch_runs_nothing_and_gives_nothing() {
    let context = noop();
    for each in uses(&context, 0) {
        let name = each.name;
        let tensors: Vec<Tensor> = each
            .operands
            .iter()
            .map(|(_, shape)| Tensor::zeros(&context, shape).expect("fits"))
            .collect();
        let outcome = (each.call)(&tensors.iter().collect::<Vec<_>>())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outcome.output[0], 0, "{name}");
        assert!(outcome.output[1..].iter().all(|&size| size > 0), "{name}: {:?}", outcome.output);
        assert_eq!(outcome.steps, 0, "{name}");
        if let Some(rows) = outcome.attention {
            assert!(rows[0] == 0 && rows[1..].iter().all(|&size| size > 0), "{name}: {rows:?}");
        }
        let some =
            (uses(&context, 1).into_iter().find(|some| some.name == name)).expect("the same uses");
        assert_eq!(some.operands.len(), tensors.len(), "{name}");
    }
}

#[test]
fn an_empty_run_gives_an_empty_vector() {
    let context = noop();
    let noise = &mut Noise::new(4);
    let desc = ConvDesc::new(4, 6, [3, 3]).padding([1, 1]);
    let bank = desc.kernels(3);
    let [one, all] = [&desc, &bank].map(|desc| desc.geometry().expect("valid"));
    let fixed =
        StaticConv2d::new(&context, &desc, &noise.floats(one.weights()), None).expect("valid");
    assert!(fixed.run(0, [5, 5], &[]).expect("runs").is_empty());
    let last = fixed.clone().layouts(Layout::ChannelsLast, Layout::ChannelsLast);
    assert!(last.run(0, [5, 5], &[]).expect("runs").is_empty());
    let given =
        BankConv2d::new(&context, &bank, &noise.floats(3 * all.weights()), None).expect("valid");
    assert!(given.run(0, [5, 5], &[], &[]).expect("runs").is_empty());
    let dy = DynConv2d::new(&context, &bank, &weights::dy_cnn(noise, &all, [true; 2]), 1.0)
        .expect("valid");
    assert!(dy.run(0, [5, 5], &[]).expect("runs").is_empty());
    let od = OdConv2d::new(&context, &bank, &weights::od_conv(noise, &all), 1.0).expect("valid");
    assert!(od.run(0, [5, 5], &[]).expect("runs").is_empty());
    let cond =
        CondConv2d::new(&context, &bank, &weights::cond_conv(noise, &all, true)).expect("valid");
    assert!(cond.run(0, [5, 5], &[]).expect("runs").is_empty());
    let cells = Cells { count: 3, c_out: 2, c_in: 2, taps: 1 };
    let warehouse = Warehouse::new(&context, cells, &noise.floats(12)).expect("valid");
    let kw = weights::kernel_warehouse(noise, &one, cells, true);
    let kw = KernelWarehouse2d::new(&context, &desc, &kw, &warehouse).expect("valid");
    assert!(kw.run(0, [5, 5], &[]).expect("runs").is_empty());
}

#[test]
fn an_empty_tensor_is_read_and_written_as_nothing() {
    let context = noop();
    for elem in [Elem::F32, Elem::F16Storage] {
        let empty = Tensor::upload_in(&context, &[0, 3, 5], &[], elem).expect("is a tensor");
        assert!(empty.is_empty() && empty.range().is_empty());
        empty.write(&context, &[]).expect("writes");
        assert!(empty.read_blocking(&context).expect("reads").is_empty());
        assert!(pollster::block_on(empty.read(&context)).expect("reads").is_empty());
        let minute = std::time::Duration::from_secs(60);
        assert!(empty.read_blocking_for(&context, minute).expect("reads").is_empty());
        assert_eq!(empty.reshape(&[0, 15]).expect("as many").shape(), [0, 15]);
        assert_eq!(
            empty.reshape(&[15, 0]).expect_err("empty").to_string(),
            "reshaped tensor: expected no empty axis but the first, found [15, 0]"
        );
        let wrapped =
            Tensor::wrap_in(&context, empty.buffer(), 8, &[0, 7], elem).expect("is a tensor");
        assert!(wrapped.read_blocking(&context).expect("reads").is_empty());
    }
    assert!(!Tensor::zeros(&context, &[1]).expect("fits").is_empty());
}

#[test]
fn what_else_is_empty_is_refused_and_named() {
    let context = noop();
    let layer =
        StaticConv2d::new(&context, &ConvDesc::new(2, 3, [1, 1]), &[0.5; 6], None).expect("valid");
    let message = |batch, size| layer.run(batch, size, &[]).expect_err("empty").to_string();
    assert_eq!(
        message(2, [0, 4]),
        "input: expected no empty axis but the first, found [2, 2, 0, 4]"
    );
    assert_eq!(
        message(0, [4, 0]),
        "input: expected no empty axis but the first, found [0, 2, 4, 0]"
    );
    let routing = |channels, experts: usize| {
        Routing::new(&context, channels, &vec![0.5; channels * experts], &vec![0.0; experts])
            .map(drop)
    };
    for [channels, experts] in [[0, 3], [3, 0], [0, 0]] {
        assert_eq!(
            routing(channels, experts).expect_err("empty").to_string(),
            format!(
                "routing: expected at least 1 channel and 1 expert, \
                 found {channels} channels and {experts} experts"
            )
        );
    }
    let geometry = ConvDesc::new(2, 3, [1, 1]).geometry().expect("valid");
    assert_eq!(
        tune::tune(&context, &Problem::new(geometry, 0, [1, 4, 4])).expect_err("empty").to_string(),
        "batch: expected at least 1, since nothing of an empty one can be measured, found 0"
    );
}

/// The law runs nothing, so that it can be held to on any device, and as any.
#[test]
fn every_problem_of_the_catalogue_may_be_empty() {
    let law = Law::find("empty").expect("is a law");
    for caps in [with_lanes(), with_matrices(8)] {
        let context = noop().with_caps(caps);
        for spec in catalogue::problems(false).expect("parses") {
            match law.check(&context, &spec) {
                Ok(()) | Err(Fault::Refused(_)) => {}
                Err(fault) => panic!("{spec}: {fault}"),
            }
        }
    }
}
