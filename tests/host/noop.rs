//! Recording on wgpu's noop device: every call is validated, nothing is computed.

use dynconv::{BankConv2d, Context, ConvDesc, DyCnnWeights, DynConv2d, StaticConv2d, Tensor, wgpu};

use crate::common::{Noise, cases_2d};

fn noop() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_wgpu(device, queue)
}

/// What the device refuses while `work` runs.
fn refusals(context: &Context, work: impl FnOnce()) -> Option<String> {
    let scope = context.device().push_error_scope(wgpu::ErrorFilter::Validation);
    work();
    pollster::block_on(scope.pop()).map(|error| error.to_string())
}

#[test]
fn every_plan_is_recorded_without_a_refusal() {
    let context = noop();
    for case in cases_2d() {
        let mut noise = Noise::new(1);
        let bank = noise.floats(case.kernels() * case.weights());
        let bias = noise.floats(case.kernels() * case.c_out());
        for choice in case.choices() {
            let layer = BankConv2d::new(&context, &case.desc, &bank, Some(&bias)).expect("valid").kernel(choice);
            let x = Tensor::zeros(&context, &case.input_shape()).expect("fits");
            let attention = Tensor::zeros(&context, &[case.batch, case.kernels()]).expect("fits");
            let y = Tensor::zeros(&context, &layer.output_shape(x.shape()).expect("fits")).expect("fits");
            let bound = layer.bind(&x, &attention, &y).expect("binds");
            let refusal = refusals(&context, || {
                let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                bound.record(&mut encoder);
                bound.record_in(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
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
    let mut noise = Noise::new(2);
    let weights = DyCnnWeights {
        bank: noise.floats(4 * 12 * 8 * 9),
        bias: None,
        fc1: noise.floats(3 * 8),
        fc2: noise.floats(4 * 3),
        fc2_bias: None,
    };
    let layer = DynConv2d::new(&context, &desc, &weights, 1.0).expect("valid");
    let x = Tensor::zeros(&context, &[2, 8, 5, 5]).expect("fits");
    let y = Tensor::zeros(&context, &[2, 12, 5, 5]).expect("fits");
    let bound = layer.bind(&x, &y).expect("binds");
    let kernels: Vec<_> = bound.dispatches().iter().map(|d| d.variant.kernel.name()).collect();
    assert_eq!(kernels[..3], ["average_pool", "attention_mlp", "aggregate"]);
    assert_eq!(kernels.len(), 4);
    assert_eq!(bound.attention().map(Tensor::shape), Some(&[2, 4][..]));
}

#[test]
fn a_device_of_the_app_gets_no_handler_and_keeps_its_own() {
    let context = noop();
    let desc = ConvDesc::new(2, 2, [1, 1]);
    // A layer that is made and dropped inside a scope leaves nothing in it.
    let refusal = refusals(&context, || {
        StaticConv2d::new(&context, &desc, &[1.0; 4], None).expect("valid");
    });
    assert_eq!(refusal, None);
}
