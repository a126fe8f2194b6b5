//! Long runs: memory stays flat, and results the same to the bit.
//!
//! The counts here are those of seconds; `cargo test --test long -- --ignored --nocapture` has
//! those of minutes, and contexts.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dynconv::{Bound, Context, ConvDesc, DynConv2d, Tensor};

use common::{Noise, assert_same_bits, read, run, submit, upload, weights};

const SHAPE: [usize; 4] = [2, 6, 7, 9];
const OUTPUT: [usize; 4] = [2, 10, 7, 9];

fn new_context() -> Context {
    Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter")
}

fn layer(context: &Context) -> DynConv2d {
    let desc = ConvDesc::new(6, 10, [3, 3]).padding([1, 1]).kernels(3);
    let weights = weights::dy_cnn(&mut Noise::new(1), &desc.geometry().expect("valid"), [false; 2]);
    DynConv2d::new(context, &desc, &weights, 1.0).expect("valid")
}

fn bind(context: &Context, layer: &DynConv2d) -> Bound {
    let x = upload(context, &SHAPE, &Noise::new(2).floats(SHAPE.iter().product()));
    let y = Tensor::zeros(context, &OUTPUT).expect("fits");
    layer.bind(&x, &y).expect("binds")
}

/// Memory of this process in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Kept by the test that runs: the memory is the process's, and another test's would count.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may be added from the first tenth of a run to its end, in KiB: the system's allocator gives
/// back in large pieces.
const SLACK: u64 = 16 << 10;

/// Does something so many times, and holds the results that are read against the first.
fn repeat(what: &str, count: usize, mut once: impl FnMut(usize) -> Option<Vec<f32>>) {
    let start = Instant::now();
    let (mut first, mut early) = (None, None);
    for i in 0..count {
        if let Some(y) = once(i) {
            assert_same_bits(&format!("{what} {i}"), &y, first.get_or_insert_with(|| y.clone()));
        }
        if i == count / 10 {
            early = resident();
        }
    }
    let late = resident();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} {what}: {seconds:.0} s, {early:?} KiB after a tenth, {late:?} KiB at the end"
    );
    if let (Some(early), Some(late)) = (early, late) {
        assert!(
            late <= early + SLACK,
            "{count} {what}: {early} KiB after a tenth, {late} KiB at the end"
        );
    }
}

fn forwards(count: usize) {
    let _alone = alone();
    let context = new_context();
    let bound = bind(&context, &layer(&context));
    repeat("forwards", count, |i| {
        submit(&context, |encoder| bound.record(encoder));
        // Reading now and then keeps the queue short.
        i.is_multiple_of(10).then(|| read(&context, bound.output()))
    });
}

fn binds(count: usize) {
    let _alone = alone();
    let context = new_context();
    let layer = layer(&context);
    repeat("binds", count, |_| Some(run(&context, &bind(&context, &layer))));
}

/// Nothing is ever submitted.
fn binds_alone(count: usize) {
    let _alone = alone();
    let context = new_context();
    let layer = layer(&context);
    let x = Tensor::zeros(&context, &SHAPE).expect("fits");
    let y = Tensor::zeros(&context, &OUTPUT).expect("fits");
    repeat("binds without a submission", count, |_| {
        layer.bind(&x, &y).expect("binds");
        None
    });
}

fn contexts(count: usize) {
    let _alone = alone();
    repeat("contexts", count, |_| {
        let context = new_context();
        Some(run(&context, &bind(&context, &layer(&context))))
    });
}

/// Threads that share a context and a layer: each binds, records, runs, reads, changes nothing and
/// drops, all at once.
fn threads(count: usize) {
    const THREADS: usize = 4;
    let _alone = alone();
    let context = new_context();
    let layer = layer(&context);
    let expected = run(&context, &bind(&context, &layer));
    let one = &|number: usize| {
        // Some have layers of their own, which are made and dropped meanwhile.
        let own = (number % 2 == 1).then(|| self::layer(&context.clone()));
        let bound = bind(&context, own.as_ref().unwrap_or(&layer));
        drop(own);
        let y = run(&context, &bound);
        assert_same_bits(&format!("thread {number}"), &y, &expected);
        y
    };
    repeat("turns of four threads", count, |_| {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                (0..THREADS).map(|number| scope.spawn(move || one(number))).collect();
            running.into_iter().map(|thread| thread.join().expect("no thread panics")).next_back()
        })
    });
}

#[test]
fn threads_share_a_context_and_a_layer() {
    threads(50);
}

#[test]
#[ignore = "takes minutes"]
fn threads_share_a_context_and_a_layer_for_long() {
    threads(5000);
}

#[test]
fn memory_is_flat_over_ten_thousand_forwards() {
    forwards(10_000);
}

#[test]
fn memory_is_flat_over_a_thousand_binds() {
    binds(1000);
}

#[test]
fn memory_is_flat_where_nothing_is_submitted() {
    binds_alone(10_000);
}

#[test]
#[ignore = "takes minutes"]
fn memory_is_flat_over_a_hundred_thousand_forwards() {
    forwards(100_000);
}

#[test]
#[ignore = "takes minutes"]
fn memory_is_flat_over_ten_thousand_binds() {
    binds(10_000);
}

#[test]
#[ignore = "takes minutes"]
fn memory_is_flat_over_a_thousand_contexts() {
    contexts(1000);
}
