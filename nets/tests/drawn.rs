//! Networks that are drawn: shared memory and the order of steps show nowhere.
//!
//! Each step is also computed alone, from tensors of its own into a tensor of its own. Its numbers
//! are held to f64 by the suite; here a network must give its very bits, whatever lay in its memory
//! before, whatever else reads what a step makes, and wherever it ends.

use std::sync::{Arc, OnceLock};

use dynconv::device::Builder;
use dynconv::layers::{
    AnyLayer, AxisPool, Gains, Gate, GlobalPool, LayerNorm, Resample, WindowPool, concatenated,
};
use dynconv::problem::{Pooling, Sampling};
use dynconv::{Activation, BankConv2d, Context, ConvDesc, ModulatedConv2d, StaticConv2d, Tensor};
use dynconv_nets::{Network, Slot};
use dynconv_suite::noise::Noise;
use proptest::prelude::*;

fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter")
    })
}

/// A step: what it does, and which earlier steps it reads, by numbers that are taken modulo what
/// there is.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    what: usize,
    reads: [usize; 2],
    seed: u64,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (0..12_usize, any::<[u16; 2]>(), any::<u32>()).prop_map(|(what, reads, seed)| Drawn {
        what,
        reads: reads.map(usize::from),
        seed: seed.into(),
    })
}

/// A network, and what each of its steps gives alone.
struct Twin {
    network: Network,
    slots: Vec<Slot>,
    tensors: Vec<Tensor>,
}

impl Twin {
    fn new(input: &[usize]) -> Self {
        let values = Noise::new(5).floats(input.iter().product());
        let x = Tensor::upload(context(), input, &values).expect("uploads");
        let network = Network::new(context());
        Self { network, slots: vec![Slot::INPUT], tensors: vec![x] }
    }

    fn shape(&self, number: usize) -> &[usize] {
        self.tensors[number].shape()
    }

    /// Of the steps before, one like the shape, by a number.
    fn like(&self, number: usize, is_like: impl Fn(&[usize]) -> bool) -> Option<usize> {
        let alike: Vec<usize> =
            (0..self.tensors.len()).filter(|&other| is_like(self.shape(other))).collect();
        (!alike.is_empty()).then(|| alike[number % alike.len()])
    }

    fn push(
        &mut self,
        layer: impl AnyLayer + 'static,
        x: usize,
        given: &[usize],
        residual: Option<usize>,
    ) {
        let layer = Arc::new(layer);
        let tensors: Vec<&Tensor> = given.iter().map(|&number| &self.tensors[number]).collect();
        let shape = layer.output_shape(self.shape(x)).expect("fits");
        let y = Tensor::zeros(context(), &shape).expect("fits");
        let added = residual.map(|number| &self.tensors[number]);
        let bound = layer.bind_any(&self.tensors[x], &tensors, added, &y).expect("binds");
        submit(|encoder| bound.record(encoder));
        let given: Vec<Slot> = given.iter().map(|&number| self.slots[number]).collect();
        let residual = residual.map(|number| self.slots[number]);
        self.slots.push(self.network.layer_given(layer, self.slots[x], &given, residual));
        self.tensors.push(y);
    }

    fn concat(&mut self, parts: [usize; 2], axis: usize) {
        let shape = concatenated(&parts.map(|part| self.shape(part)), axis).expect("fits");
        let y = Tensor::zeros(context(), &shape).expect("fits");
        let mut builder = Builder::new(context());
        let values = parts.map(|part| builder.tensor("part", &self.tensors[part]));
        let whole = builder.tensor("whole", &y);
        builder.concat_into(&values, axis, whole).expect("fits");
        let bound = builder.bind(whole).expect("binds");
        submit(|encoder| bound.record(encoder));
        let slots = parts.map(|part| self.slots[part]);
        self.slots.push(self.network.concat(&slots, axis));
        self.tensors.push(y);
    }

    /// Adds a drawn step; one that fits nothing is left out.
    fn add(&mut self, drawn: Drawn) {
        let Drawn { what, reads, seed } = drawn;
        let x = reads[0] % self.tensors.len();
        let shape = self.shape(x).to_vec();
        let [_, channels, height, width] = shape[..] else { return };
        let noise = &mut Noise::new(seed);
        let wide = 1 + usize::try_from(seed % 5).expect("small");
        // Maps stay small, and there is one for each step to read.
        if channels > 40 || height * width > 1500 {
            return;
        }
        let same = self.like(reads[1], |other| other == shape);
        let context = context();
        let one = |c_out: usize| ConvDesc::new(channels, c_out, [1, 1]);
        let depthwise = |side: [usize; 2]| ConvDesc::new(channels, channels, side).groups(channels);
        match what {
            0 | 1 => {
                let desc = ConvDesc::new(channels, 2 * wide, [3, 3]).padding([1, 1]);
                let kernel = noise.floats(2 * wide * channels * 9);
                let layer = StaticConv2d::new(context, &desc, &kernel, None).expect("valid");
                self.push(layer.activation(Activation::Silu), x, &[], None);
            }
            2 => {
                let kernel = noise.floats(channels * channels);
                let layer = StaticConv2d::new(context, &one(channels), &kernel, None);
                self.push(layer.expect("valid").activation(Activation::Relu), x, &[], same);
            }
            3 => {
                let desc = depthwise([3, 3]).stride([2, 1]).padding([1, 1]);
                let layer = StaticConv2d::new(context, &desc, &noise.floats(channels * 9), None);
                self.push(layer.expect("valid"), x, &[], None);
            }
            4 => self.push(GlobalPool::new(context), x, &[], None),
            5 => {
                let gains = self.like(reads[1], |other| other == [shape[0], channels, 1, 1]);
                let Some(gains) = gains else { return };
                let gate = Gate::<2>::new(context, channels, Gains::Channels).expect("valid");
                self.push(gate, x, &[gains], same);
            }
            6 => {
                let layer = Resample::enlarge(context, channels, [1, 2], Sampling::Linear);
                self.push(layer.expect("valid"), x, &[], None);
            }
            7 => {
                let windows = depthwise([2, 2]).padding([1, 1]);
                let pool = WindowPool::new(context, &windows, Pooling::Max).expect("valid");
                self.push(pool, x, &[], None);
            }
            8 => {
                let Some(other) =
                    self.like(reads[1], |other| other.len() == 4 && other[2..] == shape[2..])
                else {
                    return;
                };
                self.concat([x, other], 1);
            }
            9 => {
                let [scale, shift] = [0, 1].map(|_| noise.floats(channels));
                let norm = LayerNorm::<2>::new(context, &scale, &shift, 1e-3).expect("valid");
                self.push(norm, x, &[], same);
            }
            10 => {
                let kernels = 3;
                let Some(attention) =
                    self.like(reads[1], |other| other == [shape[0], kernels, 1, 1])
                else {
                    let means = self.tensors.len();
                    self.push(GlobalPool::new(context), x, &[], None);
                    let kernel = noise.floats(kernels * channels);
                    let head = StaticConv2d::new(context, &one(kernels), &kernel, None);
                    self.push(head.expect("valid"), means, &[], None);
                    return;
                };
                let bank = noise.floats(kernels * channels * wide);
                let layer = BankConv2d::new(context, &one(wide).kernels(kernels), &bank, None);
                self.push(layer.expect("valid"), x, &[attention], None);
            }
            _ => {
                let style = self.like(reads[1], |other| other == [shape[0], channels, 1, 1]);
                let Some(style) = style else {
                    self.push(AxisPool::new(context, 3).expect("valid"), x, &[], None);
                    return;
                };
                let kernel = noise.floats(channels * wide);
                let layer = ModulatedConv2d::new(context, &one(wide), &kernel, true);
                self.push(layer.expect("valid"), x, &[style], None);
            }
        }
    }
}

fn submit(record: impl FnOnce(&mut dynconv::wgpu::CommandEncoder)) {
    let mut encoder = context().device().create_command_encoder(&Default::default());
    record(&mut encoder);
    context().queue().submit([encoder.finish()]);
}

fn read(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.read_blocking(context()).expect("reads");
    values.into_iter().map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_network_gives_the_bits_of_its_steps(
        batch in 1..4_usize,
        steps in prop::collection::vec(drawn(), 3..14),
        stage in any::<prop::sample::Index>(),
    ) {
        let mut twin = Twin::new(&[batch, 3, 7, 6]);
        steps.into_iter().for_each(|step| twin.add(step));
        let last = twin.slots.len() - 1;
        prop_assume!(last > 0);
        let middle = 1 + stage.index(last);
        twin.network.name("middle", twin.slots[middle]);
        let Twin { network, tensors, .. } = twin;
        let y = Tensor::zeros(context(), tensors[last].shape()).expect("fits");
        let kept = Tensor::zeros(context(), tensors[middle].shape()).expect("fits");
        let stages = [("middle", &kept)];
        let stages = if middle == last { &[][..] } else { &stages[..] };
        let bound = network.bind_stages(&tensors[0], stages, &y).expect("binds");
        for (_, tensor) in bound.scratch() {
            tensor.write(context(), &vec![f32::NAN; tensor.len()]).expect("writes");
        }
        // Twice: what the first run leaves is nothing to the second.
        for _ in 0..2 {
            submit(|encoder| bound.record(encoder));
            prop_assert_eq!(read(&y), read(&tensors[last]));
            if middle != last {
                prop_assert_eq!(read(&kept), read(&tensors[middle]));
            }
        }
        let until = network.until("middle").expect("is a stage");
        let found = until.forward(&tensors[0]).expect("runs");
        prop_assert_eq!(read(&found), read(&tensors[middle]));
    }
}
