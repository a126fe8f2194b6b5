//! Pipelines are compiled once, when and where they are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use dynconv::kernels::Variant;
use dynconv::{Bound, Context, ConvDesc, DynConv2d, Error, StaticConv2d, Tensor};

use crate::common::{Noise, noop, weights};

/// A noop device whose compilations go through `edit`, and are counted.
fn counting(
    edit: impl Fn(usize, &Variant) -> String + Send + Sync + 'static,
) -> (Context, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let context =
        noop().with_shaders(move |variant| edit(counter.fetch_add(1, Ordering::SeqCst), variant));
    (context, count)
}

/// A layer of one dispatch, with `taps` taps an axis.
fn bind(context: &Context, taps: usize) -> dynconv::Result<Bound> {
    let desc = ConvDesc::new(2, 3, [taps, taps]).padding([taps / 2, taps / 2]);
    let weights = vec![0.5; 6 * taps * taps];
    let layer = StaticConv2d::new(context, &desc, &weights, None).expect("valid");
    let [x, y] = [2, 3].map(|channels| Tensor::zeros(context, &[1, channels, 8, 8]).expect("fits"));
    layer.bind(&x, &y)
}

#[test]
fn different_variants_are_compiled_at_the_same_time() {
    let inside = Arc::new(AtomicUsize::new(0));
    let (context, count) = counting(move |_, variant| {
        inside.fetch_add(1, Ordering::SeqCst);
        // The other thread comes, or there is a lock that keeps it out.
        let start = Instant::now();
        while inside.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        assert_eq!(inside.load(Ordering::SeqCst), 2, "one compilation waits for the other");
        variant.source()
    });
    std::thread::scope(|scope| {
        for taps in [3, 5] {
            let context = &context;
            scope.spawn(move || bind(context, taps).expect("binds"));
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn one_variant_is_compiled_once_however_many_ask() {
    let (context, count) = counting(|_, variant| {
        std::thread::sleep(Duration::from_millis(50));
        variant.source()
    });
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                bind(&context, 3).expect("binds")
            });
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_refused_variant_is_tried_again() {
    let (context, count) = counting(|number, variant| match number {
        0 => "nonsense".into(),
        1 => panic!("the edit panics"),
        _ => variant.source(),
    });
    assert!(matches!(bind(&context, 3), Err(Error::Shader { .. })));
    let panicking = std::thread::scope(|scope| scope.spawn(|| bind(&context, 3).map(drop)).join());
    panicking.expect_err("the edit has panicked");
    bind(&context, 3).expect("binds");
    bind(&context, 3).expect("binds");
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn after_warming_up_nothing_is_compiled() {
    let (context, count) = counting(|_, variant| variant.source());
    let desc = ConvDesc::new(8, 12, [3, 3]).kernels(4).padding([1, 1]);
    let noise = &mut Noise::new(2);
    let layers = [desc, desc.stride([2, 2])].map(|desc| {
        let weights = weights::dy_cnn(noise, &desc.geometry().expect("valid"), [false; 2]);
        DynConv2d::new(&context, &desc, &weights, 1.0).expect("valid")
    });
    let plans: Vec<_> = layers.iter().map(|layer| layer.plan(2, [9, 9]).expect("plans")).collect();
    let mut told = Vec::new();
    context.warm_up(&plans, |done, total| told.push((done, total))).expect("compiles");
    let compiled = count.load(Ordering::SeqCst);
    // Pooling, attention and aggregation are the same in both.
    assert_eq!(compiled, 5);
    assert_eq!(told, (0..=5).map(|done| (done, 5)).collect::<Vec<_>>());
    for layer in &layers {
        let x = Tensor::zeros(&context, &[2, 8, 9, 9]).expect("fits");
        layer.forward(&x).expect("runs");
    }
    assert_eq!(count.load(Ordering::SeqCst), compiled);
    context.warm_up(&plans, |_, _| {}).expect("is warm");
    assert_eq!(count.load(Ordering::SeqCst), compiled);
    context.warm_up(&[], |done, total| assert_eq!((done, total), (0, 0))).expect("nothing to do");

    let (broken, _) = counting(|_, _| "nonsense".into());
    assert!(matches!(
        broken.warm_up(&plans, |done, _| assert_eq!(done, 0)),
        Err(Error::Shader { .. })
    ));
}
