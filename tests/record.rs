//! What recording costs the host: allocations, counted, and time.
//!
//! It has a process of its own, whose allocator counts.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dynconv::{Bound, ConvDesc, DynConv2d, Tensor, wgpu};
use dynconv_suite::noise::Noise;
use dynconv_suite::variants::noop;
use dynconv_suite::weights;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RECORDINGS: usize = 1000;
const BATCHES: usize = 5;

fn layer() -> (dynconv::Context, Bound, [Tensor; 2]) {
    let context = noop();
    let desc = ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]);
    let weights = weights::dy_cnn(&mut Noise::new(1), &desc.geometry().expect("valid"), [false; 2]);
    let layer = DynConv2d::new(&context, &desc, &weights, 1.0).expect("valid");
    let x = Tensor::zeros(&context, &[8, 64, 14, 14]).expect("fits");
    let y = Tensor::zeros(&context, &[8, 64, 14, 14]).expect("fits");
    let bound = layer.bind(&x, &y).expect("binds");
    (context, bound, [x, y])
}

/// Allocations and microseconds of one recording, over many into one pass.
fn measure(
    context: &dynconv::Context,
    record: impl Fn(&mut wgpu::ComputePass<'_>),
) -> (usize, f64) {
    let mut encoder =
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    // A pass keeps its commands in vectors; they have grown once these are in.
    (0..RECORDINGS).for_each(|_| record(&mut pass));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let batch = RECORDINGS / BATCHES / 2;
    let time = || {
        let start = Instant::now();
        (0..batch).for_each(|_| record(&mut pass));
        start.elapsed().as_secs_f64() * 1e6 / batch as f64
    };
    // The quickest batch: other work on the machine can only add.
    let time = std::iter::repeat_with(time).take(BATCHES).fold(f64::INFINITY, f64::min);
    (ALLOCATIONS.load(Ordering::Relaxed) - before, time)
}

#[test]
fn recording_allocates_nothing_and_takes_microseconds() {
    let (context, bound, _) = layer();
    assert_eq!(bound.steps().len(), 4, "pooling, attention, aggregation, convolution");
    let (allocations, time) = measure(&context, |pass| bound.record_in(pass));
    println!("{allocations} allocations in {} recordings, {time:.2} us each", RECORDINGS / 2);
    // What is left are the vectors of the pass, which double now and then; an allocation a
    // recording would be hundreds.
    assert!(allocations <= 4, "{allocations} allocations in {} recordings", RECORDINGS / 2);
    assert!(time < 10.0, "{time} us a recording");

    let counted = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), counted + 1, "the allocator counts");
}

/// Frameworks have new buffers in every call.
#[test]
fn a_binding_to_other_tensors_takes_microseconds() {
    const TIMES: usize = 200;
    let (context, bound, [x, y]) = layer();
    let [next_x, next_y] = [&x, &y].map(|t| Tensor::zeros(&context, t.shape()).expect("fits"));
    let time = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            bound.rebind(&[(&x, &next_x), (&y, &next_y)]).expect("has the same shapes");
        }
        start.elapsed().as_secs_f64() * 1e6 / TIMES as f64
    };
    let time = std::iter::repeat_with(time).take(BATCHES).fold(f64::INFINITY, f64::min);
    println!("{time:.1} us a rebinding of {} steps", bound.steps().len());
    // To bind from the start takes fifty times as long on this device.
    assert!(time < 500.0, "{time} us a rebinding");
}
