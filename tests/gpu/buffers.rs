//! Buffers of the app: offsets, guards, poison, and recordings into the app's own encoder.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use dynconv::Algorithm;
use dynconv::layers::OwnAttention;
use dynconv::reference::{self, LayerWeights, narrow, widen};
use dynconv::{
    BankConv2d, Bound, CondConv2d, Context, ConvDesc, Error, Layer, OdConv2d, StaticConv2d, Tensor,
    wgpu,
};

use crate::common::{
    Case, Noise, assert_same_bits, cases_2d, context, read, run, submit, upload, weights,
};

/// A buffer of `before` guards, `len` NaNs and `after` guards, and the tensor in its middle.
struct Guarded {
    buffer: wgpu::Buffer,
    tensor: Tensor,
    before: usize,
    after: usize,
}

const GUARD: f32 = 12345.0;

impl Guarded {
    fn new(shape: &[usize], before: usize, after: usize) -> Self {
        let len: usize = shape.iter().product();
        let words = [vec![GUARD; before], vec![f32::NAN; len], vec![GUARD; after]].concat();
        let whole = upload(context(), &[words.len()], &words);
        let tensor =
            Tensor::wrap(context(), whole.buffer(), 4 * before as u64, shape).expect("fits");
        Self { buffer: whole.buffer().clone(), tensor, before, after }
    }

    /// The tensor's values; panics if a guard was touched.
    fn read(&self) -> Vec<f32> {
        let len = self.before + self.tensor.len() + self.after;
        let words = Tensor::wrap(context(), &self.buffer, 0, &[len])
            .expect("fits")
            .read_blocking(context())
            .expect("reads");
        let (values, after) = words[self.before..].split_at(self.tensor.len());
        assert!(
            words[..self.before].iter().chain(after).all(|&v| v == GUARD),
            "a guard was overwritten"
        );
        values.to_vec()
    }
}

/// Integer data and what it must give.
struct Exact {
    layer: BankConv2d,
    x: Vec<f32>,
    attention: Vec<f32>,
    truth: Vec<f32>,
}

fn exact(case: &Case<2>, choice: Algorithm, seed: u64) -> Exact {
    let mut noise = Noise::new(seed);
    // The bank does not follow the seed, so that several inputs share a layer.
    let bank = Noise::new(5).integers(case.kernels() * case.weights(), 3);
    let x = noise.integers(case.input_len(), 4);
    let attention = noise.integers(case.batch * case.kernels(), 2);
    let layer =
        BankConv2d::new(context(), &case.desc, &bank, None).expect("valid").algorithm(choice);
    let plan = layer.plan(case.batch, case.size).expect("plans");
    let weights = LayerWeights { bank: widen(&bank), ..Default::default() };
    let truth = reference::layer(plan.problem(), &weights, &widen(&x), &widen(&attention)).y;
    Exact { layer, x, attention, truth: narrow(&truth) }
}

impl Exact {
    fn bind(&self, case: &Case<2>, y: &Tensor) -> Bound {
        let x = upload(context(), &case.input_shape(), &self.x);
        let attention = upload(context(), &[case.batch, case.kernels()], &self.attention);
        self.layer.bind(&x, &attention, y).expect("binds")
    }
}

#[test]
fn two_recordings_into_one_encoder_are_both_right() {
    let case = cases_2d()[0];
    let [one, two] = [41, 42].map(|seed| exact(&case, Algorithm::Auto, seed));
    assert_ne!(one.truth, two.truth);
    let shape = one.layer.output_shape(&case.input_shape()).expect("fits");
    let [y1, y2] = [Guarded::new(&shape, 3, 3), Guarded::new(&shape, 5, 5)];

    // Two bindings of one layer, in two passes and in one.
    let [first, second] = [one.bind(&case, &y1.tensor), two.bind(&case, &y2.tensor)];
    submit(context(), |encoder| {
        first.record(encoder);
        second.record(encoder);
    });
    assert_same_bits("first", &y1.read(), &one.truth);
    assert_same_bits("second", &y2.read(), &two.truth);
    submit(context(), |encoder| {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        second.record_in(&mut pass);
        first.record_in(&mut pass);
    });
    assert_same_bits("first in one pass", &y1.read(), &one.truth);
    assert_same_bits("second in one pass", &y2.read(), &two.truth);

    // One binding twice, its input and attention changed in between and its output copied away.
    let x = upload(context(), &case.input_shape(), &one.x);
    let attention = upload(context(), &[case.batch, case.kernels()], &one.attention);
    let [x2, attention2] = [
        upload(context(), &case.input_shape(), &two.x),
        upload(context(), &[case.batch, case.kernels()], &two.attention),
    ];
    let y = Tensor::zeros(context(), &shape).expect("fits");
    let kept = Tensor::zeros(context(), &shape).expect("fits");
    let bound = one.layer.bind(&x, &attention, &y).expect("binds");
    let copy = |encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor| {
        encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), 0, from.buffer().size());
    };
    submit(context(), |encoder| {
        bound.record(encoder);
        copy(encoder, &y, &kept);
        copy(encoder, &x2, &x);
        copy(encoder, &attention2, &attention);
        bound.record(encoder);
    });
    assert_same_bits(
        "before the change",
        &kept.read_blocking(context()).expect("reads"),
        &one.truth,
    );
    assert_same_bits("after the change", &y.read_blocking(context()).expect("reads"), &two.truth);
}

/// Runs a layer on NaN, then on `x`, and asks for the bits of a first run on `x`. Says what the
/// first run left in the attention.
fn poisoned<A: OwnAttention>(
    what: &str,
    layer: &Layer<2, A>,
    case: &Case<2>,
    x: &[f32],
) -> Vec<f32> {
    let truth = layer.run(case.batch, case.size, x).expect("runs");
    let nan = |shape: &[usize]| upload(context(), shape, &vec![f32::NAN; shape.iter().product()]);
    let [input, y] = [nan(&case.input_shape()), nan(&case.output_shape())];
    let bound = layer.bind(&input, &y).expect("binds");
    run(context(), &bound);
    let attention = bound.attention().expect("computes its own");
    let left = read(context(), attention);
    // A hidden layer's ReLU may turn NaN to 0, so the attention is poisoned by hand too.
    attention.write(context(), &vec![f32::NAN; attention.len()]).expect("writes");
    input.write(context(), x).expect("writes");
    assert_same_bits(what, &run(context(), &bound), &truth);
    left
}

#[test]
fn poisoned_scratch_does_not_show() {
    let mut noise = Noise::new(33);
    // With per-sample kernels, and with one kernel for all (a single tap, K = 1), where the
    // convolution reads the gains.
    for case in [cases_2d()[12], cases_2d()[8].single(), cases_2d()[10].single()] {
        let g = case.geometry();
        let x = noise.floats(case.input_len());
        let od = OdConv2d::new(context(), &case.desc, &weights::od_conv(&mut noise, &g), 1.0)
            .expect("valid");
        poisoned(&format!("ODConv {case:?}"), &od, &case, &x);
        // Without a hidden layer NaN goes all the way: means, attention, per-sample kernels.
        let cond =
            CondConv2d::new(context(), &case.desc, &weights::cond_conv(&mut noise, &g, true))
                .expect("valid");
        let left = poisoned(&format!("CondConv {case:?}"), &cond, &case, &x);
        assert!(left.iter().all(|v| v.is_nan()), "{case:?}: the poison must be there");
    }
}

#[test]
fn reading_works_both_ways() {
    let values = Noise::new(9).floats(1000);
    let tensor = upload(context(), &[10, 100], &values);
    assert_same_bits("blocking", &tensor.read_blocking(context()).expect("reads"), &values);
    assert_same_bits("async", &pollster::block_on(tensor.read(context())).expect("reads"), &values);
    let timeout = Duration::from_secs(60);
    assert_same_bits(
        "with timeout",
        &tensor.read_blocking_for(context(), timeout).expect("reads"),
        &values,
    );
    // A part of it, through another handle.
    let part = Tensor::wrap(context(), tensor.buffer(), 40, &[3]).expect("fits");
    assert_same_bits("part", &part.read_blocking(context()).expect("reads"), &values[10..13]);
}

/// A device that no other test makes busy, or needs.
fn own_device() -> Context {
    Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter")
}

/// Queues work that takes a software adapter the better part of a second, and gives its output.
fn long_work(context: &Context) -> Tensor {
    let desc = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
    let layer = StaticConv2d::new(context, &desc, &vec![0.01; 64 * 64 * 9], None).expect("valid");
    let [x, y] = [0, 1].map(|_| Tensor::zeros(context, &[8, 64, 56, 56]).expect("fits"));
    let bound = layer.bind(&x, &y).expect("binds");
    submit(context, |encoder| (0..10).for_each(|_| bound.record(encoder)));
    y
}

/// Wakes a thread, and counts how often.
struct Counting {
    thread: Thread,
    wakes: AtomicUsize,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Threads that wait for the device, where the system lists them.
fn waiting() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.trim_end() == "dynconv read").count()
}

fn nobody_waits() {
    let start = Instant::now();
    while waiting() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "a thread was left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_asynchronous_read_sleeps() {
    let context = own_device();
    let y = long_work(&context);
    let counting =
        Arc::new(Counting { thread: std::thread::current(), wakes: AtomicUsize::new(0) });
    let waker = Waker::from(Arc::clone(&counting));
    let mut cx = std::task::Context::from_waker(&waker);
    let mut read = pin!(y.read(&context));
    let (start, mut polls) = (Instant::now(), 0);
    let values = loop {
        polls += 1;
        match read.as_mut().poll(&mut cx) {
            Poll::Ready(values) => break values.expect("reads"),
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(60)),
        }
    };
    println!("{polls} polls, {:?} wakes, {:?}", counting.wakes, start.elapsed());
    assert_eq!(values.len(), y.len());
    assert!((2..=4).contains(&polls), "{polls} polls of a future that has nothing to do but wait");
    assert!(counting.wakes.load(Ordering::SeqCst) <= 2);
    nobody_waits();
}

#[test]
fn a_read_that_is_dropped_leaves_nothing_behind() {
    let context = own_device();
    let y = long_work(&context);
    {
        let mut read = pin!(y.read(&context));
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(read.as_mut().poll(&mut cx).is_pending(), "the work takes longer");
    }
    nobody_waits();
    assert_eq!(y.read_blocking(&context).expect("reads").len(), y.len());
}

#[test]
fn a_read_of_a_lost_device_ends() {
    let context = own_device();
    let y = long_work(&context);
    let mut read = pin!(y.read(&context));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let early = read.as_mut().poll(&mut cx);
    context.device().destroy();
    // What was submitted before may still come; what is asked for afterwards is an error.
    if early.is_pending() {
        drop(pollster::block_on(read));
    }
    assert!(matches!(
        pollster::block_on(y.read(&context)),
        Err(Error::DeviceLost { .. } | Error::Refused { .. })
    ));
    assert!(matches!(
        y.read_blocking(&context),
        Err(Error::DeviceLost { .. } | Error::Refused { .. })
    ));
    let layer = StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None);
    layer
        .and_then(|layer| layer.run(1, [2, 2], &[0.0; 4]))
        .expect_err("a lost device computes nothing");
    nobody_waits();
}
