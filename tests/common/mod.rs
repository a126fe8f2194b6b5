//! What the tests share: the adapter, and the data and cases of the suite.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod mixing;
pub(crate) mod uses;

use std::sync::OnceLock;

use dynconv::{Bound, Context, Tensor, wgpu};

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use dynconv_suite::{cases::*, noise::Noise, variants::noop, weights};

/// One device for all tests of a file. A machine without an adapter fails here.
pub(crate) fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter")
    })
}

/// Records and submits.
pub(crate) fn submit(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder =
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    record(&mut encoder);
    context.queue().submit([encoder.finish()]);
}

/// Runs what is bound and reads its output.
pub(crate) fn run(context: &Context, bound: &Bound) -> Vec<f32> {
    submit(context, |encoder| bound.record(encoder));
    read(context, bound.output())
}

/// Reads a tensor.
pub(crate) fn read(context: &Context, tensor: &Tensor) -> Vec<f32> {
    tensor.read_blocking(context).expect("reads")
}

/// Uploads a tensor.
pub(crate) fn upload(context: &Context, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::upload(context, shape, values).expect("uploads")
}

/// The first place where two results differ in a bit.
pub(crate) fn assert_same_bits(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "{what}: element {i} is {a}, expected {b}");
    }
}
