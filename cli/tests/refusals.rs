//! A driver that has no memory for one object after another, loses the device at one submission
//! after another, or has a clock that runs backwards: the library says so with its own errors,
//! computes nothing wrong, and goes on where the device does.
#![cfg(target_os = "linux")]

mod layer;

use std::fs;
use std::process::Command;
use std::time::Duration;

use dynconv::device::PassTimer;
use dynconv::problem::{AttentionSource, Problem};
use dynconv::{
    BatchNorm, Context, ConvDesc, Error, Linear, OdConv2d, OdWeights, Tensor, tune, wgpu,
};
use layer::{Run, folder};

/// Numbers of no particular kind, small and not 0.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * i + 3 * i) % 17) as f32 / 8.0 - 1.0).collect()
}

fn weights() -> OdWeights {
    let linear = |outputs| Some(Linear { weight: numbers(2 * outputs), bias: numbers(outputs) });
    OdWeights {
        bank: numbers(2 * 6 * 4 * 9),
        bias: None,
        hidden: numbers(2 * 4),
        norm: BatchNorm::only_bias(numbers(2)),
        channel_head: linear(4),
        filter_head: linear(6),
        tap_head: linear(9),
        kernel_head: linear(2),
    }
}

/// All that a program does: a layer is made, bound, run, timed and tuned. The layer's output.
fn everything(context: &Context) -> Result<Vec<f32>, Error> {
    let desc = ConvDesc::new(4, 6, [3, 3]).kernels(2).padding([1, 1]);
    let layer = OdConv2d::new(context, &desc, &weights(), 1.0)?;
    context.warm_up(&[layer.plan(2, [5, 5])?], |_, _| {})?;
    let x = Tensor::upload(context, &[2, 4, 5, 5], &numbers(200))?;
    let y = Tensor::zeros(context, &[2, 6, 5, 5])?;
    let bound = layer.bind(&x, &y)?;
    let values = layer.forward(&x)?.read_blocking(context)?;
    if let Some(timer) = PassTimer::new(context, 1)? {
        // What a program of its own submits, wgpu reports to that program.
        let mut encoder =
            context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let timestamp_writes = Some(timer.writes(0));
            let descriptor = wgpu::ComputePassDescriptor { timestamp_writes, label: None };
            bound.record_in(&mut encoder.begin_compute_pass(&descriptor));
        }
        timer.resolve(&mut encoder);
        context.queue().submit([encoder.finish()]);
        let ms = timer.read(context)?;
        println!("timed: {ms:?}");
        assert!(ms.iter().all(|ms| *ms >= 0.0 && ms.is_finite()), "{ms:?}");
        assert_eq!(y.read_blocking(context)?, values, "two runs differ");
    }
    let geometry = ConvDesc::new(3, 4, [1, 1]).geometry()?;
    let problem =
        Problem { attention: AttentionSource::Static, ..Problem::new(geometry, 1, [1, 3, 3]) };
    for trial in tune::tune(context, &problem)?.trials {
        assert!(trial.ms().is_none_or(|ms| ms > 0.0 && ms.is_finite()), "{trial:?}");
    }
    Ok(values)
}

/// The program under the layer. What fails, fails with an error of the library; then the same
/// context does it, or a new one does.
#[test]
#[ignore = "for the tests below, which run it under the layer"]
fn program() {
    // The loader forgets a layer, and the layer its count, with the last instance.
    let _instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let request = || {
        Context::request_blocking().or_else(|error| {
            println!("told: {error}");
            Context::request_blocking()
        })
    };
    let context = request().expect("there is memory the second time");
    let attempt = |context: &Context| {
        everything(context).inspect_err(|error| {
            println!("told: {error}");
            let is_of_device = matches!(
                error,
                Error::OutOfMemory { .. }
                    | Error::DeviceLost { .. }
                    | Error::Refused { .. }
                    | Error::Shader { .. }
            );
            assert!(is_of_device, "{error:?}");
        })
    };
    let first = attempt(&context);
    let second = attempt(&context);
    // The context is usable, or clearly not.
    assert!(
        !matches!(
            second,
            Err(Error::OutOfMemory { .. } | Error::Refused { .. } | Error::Shader { .. })
        ) || first.is_ok()
    );
    // Where the fault comes this late, on the one after that.
    let fresh = || attempt(&request().expect("a new device"));
    let fresh = fresh().or_else(|_| fresh()).expect("runs on a new device");
    for values in [first, second].into_iter().flatten() {
        assert_eq!(values, fresh, "an output that is wrong");
    }
    println!("ended well");
}

/// A driver that waits for what never comes is no answer.
const LIMIT: Duration = Duration::from_secs(120);

fn run(fault: &str) -> Run {
    let folder = folder(fault);
    let mut command = Command::new(std::env::current_exe().expect("the test is a file"));
    command.args(["--exact", "program", "--ignored", "--nocapture"]);
    let run = layer::run(&mut command, &folder, Some(fault), LIMIT);
    let has_ended = run.status.success() && run.printed.contains("ended well");
    assert!(has_ended, "{fault}: {}\n{}\n{}", run.status, run.printed, run.said);
    fs::remove_dir_all(&folder).expect("was written");
    run
}

/// Runs the program with a fault in one place after another, until there is none: in each of the
/// first, and then in one of some. How many there were, and how many were told.
fn everywhere(fault: &str, first: usize, step: usize) -> [usize; 2] {
    let [mut places, mut told] = [0, 0];
    for place in (0..first).chain((first..).step_by(step)) {
        let Run { printed, layer, .. } = run(&format!("{fault}:{place}"));
        if layer.is_empty() {
            break;
        }
        places += 1;
        told += usize::from(printed.contains("told: "));
    }
    [places, told]
}

#[test]
fn memory_that_is_missing_is_told_wherever_it_is_missing() {
    let [places, told] = everywhere("refuse", 6, 5);
    assert!(places >= 20 && told == places, "{told} of {places}");
}

#[test]
fn a_device_that_is_lost_is_told_at_whatever_submission() {
    let [places, told] = everywhere("lose", 6, 17);
    assert!(places >= 10 && told == places, "{told} of {places}");
}

/// What the tests above do to some places.
#[test]
#[ignore = "takes minutes"]
fn every_creation_and_every_submission() {
    let [refused, told] = everywhere("refuse", usize::MAX, 1);
    println!("{told} of {refused} refusals told");
    assert!(told == refused, "{told} of {refused}");
    let [lost, told] = everywhere("lose", usize::MAX, 1);
    println!("{told} of {lost} losses told");
    assert!(told == lost, "{told} of {lost}");
}

#[test]
fn a_clock_that_runs_backwards_times_nothing() {
    let timed = |fault: &str| {
        let printed = run(fault).printed;
        printed
            .lines()
            .filter_map(|line| line.strip_prefix("timed: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let backwards = timed("clock:backwards");
    assert!(!backwards.is_empty() && backwards.iter().all(|ms| ms == "[0.0]"), "{backwards:?}");
    // A loss that never comes: the clock of the same driver without that fault.
    let forwards = timed(&format!("lose:{}", usize::MAX));
    assert!(forwards.iter().all(|ms| ms != "[0.0]"), "{forwards:?}");
}
