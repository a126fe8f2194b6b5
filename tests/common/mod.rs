//! What the tests share: the adapter, data, cases.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod weights;

use std::sync::OnceLock;

use dynconv::plan::ConvChoice;
use dynconv::{Activation, Bound, Context, ConvDesc, Geometry, Tensor, wgpu};

/// Every activation, in the order of its number in the shader.
pub(crate) const ACTIVATIONS: [Activation; 11] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::Gelu,
    Activation::HardSwish,
    Activation::HardSigmoid,
    Activation::LeakyRelu { slope: 0.1 },
    Activation::StarRelu { scale: 0.8944, bias: -0.4472 },
    Activation::Sigmoid,
    Activation::Tanh,
];

/// One device for all tests of a file. A machine without an adapter fails here.
pub(crate) fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter"))
}

/// A device of its own whose limits `lower` has lowered.
pub(crate) fn limited_context(lower: impl FnOnce(&mut wgpu::Limits)) -> Context {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
        .expect("these tests need a Vulkan, Metal or DX12 adapter");
    let mut required_limits = adapter.limits();
    lower(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("the adapter gives a device");
    Context::from_wgpu(device, queue)
}

/// A device that validates every call and computes nothing.
pub(crate) fn noop() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::from_wgpu(device, queue)
}

/// Pseudo-random numbers, the same in every run.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Integers from -limit to limit.
    pub(crate) fn integers(&mut self, len: usize, limit: i32) -> Vec<f32> {
        (0..len).map(|_| (self.next() % (2 * limit as u32 + 1)) as f32 - limit as f32).collect()
    }

    /// Numbers in [-1, 1).
    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 7) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// A convolution to test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<const D: usize> {
    pub(crate) desc: ConvDesc<D>,
    pub(crate) batch: usize,
    pub(crate) size: [usize; D],
}

impl<const D: usize> Case<D> {
    pub(crate) fn geometry(&self) -> Geometry {
        self.desc.geometry().expect("valid")
    }

    pub(crate) fn kernels(&self) -> usize {
        self.geometry().kernels
    }

    pub(crate) fn weights(&self) -> usize {
        self.geometry().weights()
    }

    pub(crate) fn c_out(&self) -> usize {
        self.geometry().c_out
    }

    pub(crate) fn input_len(&self) -> usize {
        self.batch * self.sample_len()
    }

    pub(crate) fn sample_len(&self) -> usize {
        self.geometry().c_in * self.size.iter().product::<usize>()
    }

    pub(crate) fn input_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.batch, self.geometry().c_in];
        shape.extend(self.size);
        shape
    }

    /// The same case with a single kernel.
    pub(crate) fn single(self) -> Self {
        Self { desc: self.desc.kernels(1), ..self }
    }

    /// Output `[batch, channels, spatial..]`.
    pub(crate) fn output_shape(&self) -> Vec<usize> {
        let size = self.desc.output_size(self.size).expect("fits");
        [&[self.batch, self.c_out()], &size[..]].concat()
    }

    /// Input size over three axes.
    pub(crate) fn input(&self) -> [usize; 3] {
        let mut input = [1; 3];
        input[3 - D..].copy_from_slice(&self.size);
        input
    }

    /// Kernels that can compute this, by name.
    pub(crate) fn choices(&self) -> Vec<ConvChoice> {
        let g = self.geometry();
        let mut choices = vec![ConvChoice::Auto, ConvChoice::Direct, ConvChoice::Tiled, ConvChoice::Register];
        if g.c_in == g.groups {
            choices.push(ConvChoice::Depthwise);
        }
        if g.is_pointwise() {
            choices.push(ConvChoice::Pointwise);
        }
        choices
    }
}

/// Ragged 2-D cases: channel counts that are multiples of nothing, rectangular kernels, every option at least once.
pub(crate) fn cases_2d() -> Vec<Case<2>> {
    let case = |desc, batch, size| Case { desc, batch, size };
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel).kernels(3);
    vec![
        case(desc(3, 5, [3, 3]).padding([1, 1]), 2, [7, 9]),
        case(desc(17, 13, [3, 3]).padding([1, 1]).stride([2, 2]), 3, [9, 8]),
        case(desc(5, 17, [1, 3]).padding([0, 1]), 1, [4, 11]),
        case(desc(2, 3, [5, 2]).padding_sides([[2, 1], [0, 1]]), 5, [6, 5]),
        case(desc(4, 6, [3, 3]).dilation([2, 3]).padding([2, 3]), 2, [8, 9]),
        case(desc(3, 4, [2, 2]).stride([3, 4]), 2, [11, 10]),
        case(desc(3, 4, [3, 3]).padding([4, 5]), 2, [3, 2]),
        case(desc(1, 1, [1, 1]), 1, [1, 1]),
        case(desc(19, 23, [1, 1]), 3, [7, 7]),
        case(desc(12, 20, [1, 1]).groups(4), 2, [5, 13]),
        case(desc(5, 9, [1, 1]).stride([2, 1]), 2, [6, 5]),
        case(desc(4, 6, [1, 1]).padding([1, 0]), 2, [3, 4]),
        case(desc(12, 8, [3, 3]).padding([1, 1]).groups(4), 4, [6, 7]),
        case(desc(7, 7, [3, 3]).padding([1, 1]).groups(7), 3, [9, 10]),
        case(desc(6, 12, [5, 3]).padding([2, 1]).groups(6).stride([2, 1]), 2, [9, 7]),
        case(desc(3, 9, [3, 3]).groups(3).dilation([2, 1]).stride([1, 3]), 1, [7, 12]),
        case(desc(2, 70, [3, 3]).padding([1, 1]), 2, [9, 9]),
        case(desc(9, 67, [3, 3]).padding([1, 1]), 1, [13, 11]),
        case(desc(3, 4, [3, 3]).padding([1, 1]).kernels(1), 2, [5, 6]),
        case(desc(3, 4, [3, 3]).padding([1, 1]).kernels(16), 6, [5, 6]),
    ]
}

/// 1-D cases.
pub(crate) fn cases_1d() -> Vec<Case<1>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<1>::new(c_in, c_out, [kernel]).kernels(2);
    vec![
        Case { desc: desc(5, 7, 3).padding([1]).stride([2]), batch: 3, size: [21] },
        Case { desc: desc(6, 6, 5).padding_sides([[4, 0]]).groups(6), batch: 2, size: [300] },
        Case { desc: desc(4, 9, 1), batch: 2, size: [17] },
    ]
}

/// 3-D cases.
pub(crate) fn cases_3d() -> Vec<Case<3>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<3>::new(c_in, c_out, kernel).kernels(2);
    vec![
        Case { desc: desc(2, 9, [3, 2, 3]).padding([1, 0, 1]), batch: 2, size: [4, 5, 6] },
        Case { desc: desc(4, 4, [3, 3, 3]).padding([1, 1, 1]).groups(4).stride([1, 2, 1]), batch: 2, size: [5, 4, 6] },
        Case { desc: desc(3, 5, [1, 1, 1]), batch: 1, size: [2, 3, 5] },
    ]
}

/// Transposed 1-D cases.
pub(crate) fn transposed_1d() -> Vec<Case<1>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<1>::new(c_in, c_out, [kernel]).kernels(2);
    vec![
        Case { desc: desc(5, 7, 3).stride([2]).padding([1]).transposed([1]), batch: 3, size: [11] },
        Case {
            desc: desc(6, 6, 4).groups(6).stride([3]).padding_sides([[2, 0]]).transposed([2]),
            batch: 2,
            size: [40],
        },
    ]
}

/// Transposed 2-D cases: among them output padding that only the dilation allows, and padding wider than the kernel.
pub(crate) fn transposed_2d() -> Vec<Case<2>> {
    let case = |desc: ConvDesc<2>, extra, batch, size| Case { desc: desc.kernels(3).transposed(extra), batch, size };
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel);
    vec![
        case(desc(3, 9, [3, 3]).stride([2, 2]).padding([1, 1]), [1, 1], 2, [5, 6]),
        case(desc(4, 6, [4, 2]).groups(2).stride([2, 3]).padding_sides([[1, 2], [0, 1]]), [0, 2], 3, [4, 5]),
        case(desc(4, 10, [3, 3]).dilation([2, 3]).padding([1, 2]), [1, 2], 2, [5, 4]),
        case(desc(3, 4, [3, 3]).stride([2, 2]).padding([3, 2]), [1, 0], 2, [5, 4]),
        case(desc(6, 12, [3, 3]).groups(6).stride([2, 1]).padding([1, 0]), [1, 0], 2, [4, 7]),
        case(desc(9, 67, [1, 1]), [0, 0], 2, [5, 3]),
        case(desc(12, 8, [1, 1]).groups(4), [0, 0], 1, [3, 5]),
        case(desc(2, 70, [2, 2]).stride([2, 2]), [0, 0], 2, [5, 6]),
    ]
}

/// Transposed 3-D cases.
pub(crate) fn transposed_3d() -> Vec<Case<3>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<3>::new(c_in, c_out, kernel).kernels(2);
    let dense = desc(2, 9, [3, 2, 3]).stride([1, 2, 2]).padding([1, 0, 1]);
    let grouped = desc(4, 6, [2, 3, 2]).groups(2).stride([2, 1, 3]).dilation([1, 2, 1]);
    vec![
        Case { desc: dense.transposed([0, 1, 1]), batch: 2, size: [3, 4, 3] },
        Case { desc: grouped.transposed([1, 1, 2]), batch: 2, size: [2, 3, 3] },
    ]
}

/// Records and submits.
pub(crate) fn submit(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
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
