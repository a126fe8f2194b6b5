//! Recording on wgpu's noop device: every call is validated, nothing is computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dynconv::{BankConv2d, Context, ConvDesc, DynConv2d, StaticConv2d, Tensor, wgpu};

use dynconv_suite::variants::with_matrices;

use crate::common::{Noise, cases_2d, noop, weights};

/// What the device refuses while `work` runs.
fn refusals(context: &Context, work: impl FnOnce()) -> Option<String> {
    let scope = context.device().push_error_scope(wgpu::ErrorFilter::Validation);
    work();
    pollster::block_on(scope.pop()).map(|error| error.to_string())
}

#[test]
fn every_plan_is_recorded_without_a_refusal() {
    let context = noop().with_caps(with_matrices(8));
    for case in cases_2d() {
        let mut noise = Noise::new(1);
        let bank = noise.floats(case.kernels() * case.weights());
        let bias = noise.floats(case.kernels() * case.c_out());
        for choice in case.choices(context.caps()) {
            let layer = BankConv2d::new(&context, &case.desc, &bank, Some(&bias))
                .expect("valid")
                .algorithm(choice);
            let x = Tensor::zeros(&context, &case.input_shape()).expect("fits");
            let attention = Tensor::zeros(&context, &[case.batch, case.kernels()]).expect("fits");
            let y = Tensor::zeros(&context, &layer.output_shape(x.shape()).expect("fits"))
                .expect("fits");
            let bound = layer.bind(&x, &attention, &y).expect("binds");
            let refusal = refusals(&context, || {
                let mut encoder = context
                    .device()
                    .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                bound.record(&mut encoder);
                bound.record_in(
                    &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
                );
                context.queue().submit([encoder.finish()]);
            });
            assert_eq!(refusal, None, "{case:?} {choice:?}");
        }
    }
}

#[test]
fn a_whole_layer_is_one_recording_of_four_dispatches() {
    let context = noop();
    let desc = ConvDesc::new(8, 12, [3, 3]).kernels(4).padding([1, 1]);
    let weights = weights::dy_cnn(&mut Noise::new(2), &desc.geometry().expect("valid"), [false; 2]);
    let layer = DynConv2d::new(&context, &desc, &weights, 1.0).expect("valid");
    let x = Tensor::zeros(&context, &[2, 8, 5, 5]).expect("fits");
    let y = Tensor::zeros(&context, &[2, 12, 5, 5]).expect("fits");
    let bound = layer.bind(&x, &y).expect("binds");
    let kernels: Vec<_> =
        bound.steps().iter().map(|s| s.dispatch().variant.kernel.name()).collect();
    assert_eq!(kernels[..3], ["average_pool", "attention_mlp", "aggregate"]);
    assert_eq!(kernels.len(), 4);
    assert_eq!(bound.attention().map(Tensor::shape), Some(&[2, 4][..]));
}

/// What the device calls uncaptured while `work` runs on a context of the app's device.
fn uncaptured(work: impl FnOnce(&Context)) -> usize {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    work(&Context::from_wgpu(device, queue));
    count.load(Ordering::SeqCst)
}

#[test]
fn the_handler_of_the_app_stays_and_hears_only_the_app() {
    let make_and_drop = |context: &Context| {
        let layer = StaticConv2d::new(context, &ConvDesc::new(2, 2, [1, 1]), &[1.0; 4], None)
            .expect("valid");
        let [x, y] = [0, 1].map(|_| Tensor::zeros(context, &[1, 2, 3, 3]).expect("fits"));
        layer.bind(&x, &y).expect("binds");
    };
    // Storage that is mapped for reading: no device takes it.
    let mistake = |context: &Context| {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
        let buffer =
            wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
        drop(context.device().create_buffer(&buffer));
    };
    assert_eq!(uncaptured(make_and_drop), 0, "layers alone");
    // A handler of the library's own, or an error scope that it left behind, would swallow the
    // app's mistake.
    let count = uncaptured(|context| {
        make_and_drop(context);
        mistake(context);
        make_and_drop(context);
    });
    assert_eq!(count, 1, "one mistake between layers");
}
