//! Ragged convolutions that tests share.
#![allow(clippy::missing_panics_doc, reason = "a case that is not valid is a slip in the suite")]

use dynconv::Algorithm;
use dynconv::problem::{AttentionSource, Geometry, Layout, Parts, Problem, WeightOrder};
use dynconv::program::Plan;
use dynconv::{Activation, Caps, ConvDesc};

use crate::catalogue;
use crate::spec::Spec;

/// Every activation, in the order of its number in the shader.
pub const ACTIVATIONS: [Activation; 11] = [
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

/// A convolution to test. Its methods panic if it is not a valid one.
#[derive(Clone, Copy, Debug)]
pub struct Case<const D: usize> {
    /// The convolution.
    pub desc: ConvDesc<D>,
    /// Samples.
    pub batch: usize,
    /// Input size.
    pub size: [usize; D],
}

impl<const D: usize> Case<D> {
    /// Its geometry over three axes.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.desc.geometry().expect("valid")
    }

    /// Kernels in the bank.
    #[must_use]
    pub fn kernels(&self) -> usize {
        self.geometry().kernels
    }

    /// Weights of one kernel.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.geometry().weights()
    }

    /// Output channels.
    #[must_use]
    pub fn c_out(&self) -> usize {
        self.geometry().c_out
    }

    /// Elements of the input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.batch * self.geometry().c_in * self.size.iter().product::<usize>()
    }

    /// Input `[batch, channels, spatial..]`.
    #[must_use]
    pub fn input_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.batch, self.geometry().c_in];
        shape.extend(self.size);
        shape
    }

    /// The same case with a single kernel.
    #[must_use]
    pub fn single(self) -> Self {
        Self { desc: self.desc.kernels(1), ..self }
    }

    /// Output `[batch, channels, spatial..]`.
    #[must_use]
    pub fn output_shape(&self) -> Vec<usize> {
        let size = self.desc.output_size(self.size).expect("fits");
        [&[self.batch, self.c_out()], &size[..]].concat()
    }

    /// Input size over three axes.
    #[must_use]
    pub fn input(&self) -> [usize; 3] {
        let mut input = [1; 3];
        input[3 - D..].copy_from_slice(&self.size);
        input
    }

    /// Kernels that can compute this on a device with these caps, in every layout and order of
    /// weights and exactly on integers, by name.
    #[must_use]
    pub fn choices(&self, caps: &Caps) -> Vec<Algorithm> {
        let mut choices = self.all_choices(caps);
        choices.retain(|choice| choice.sums_plainly());
        choices
    }

    /// Those, and the kernels with larger errors.
    #[must_use]
    pub fn all_choices(&self, caps: &Caps) -> Vec<Algorithm> {
        let parts = Parts { mix: true, ..Parts::default() };
        let attention = match self.kernels() {
            1 => AttentionSource::Static,
            _ => AttentionSource::Given(parts),
        };
        let plain =
            Problem { attention, ..Problem::new(self.geometry(), self.batch, self.input()) };
        let orders = [WeightOrder::Plain, WeightOrder::of_bank(&plain.geometry, caps)];
        let layouts = [Layout::ChannelsFirst, Layout::ChannelsLast];
        let plans = |algorithm: Algorithm| {
            orders.into_iter().all(|order| {
                layouts.into_iter().all(|layout| {
                    let layouts = [layout; 2];
                    Plan::new(&Problem { algorithm, order, layouts, ..plain }, caps).is_ok()
                })
            })
        };
        Algorithm::ALL.iter().copied().filter(|algorithm| plans(*algorithm)).collect()
    }
}

/// Kernels that can compute a convolution on some device, its weights in blocks and channels first,
/// where no map mixes.
#[must_use]
pub fn able(geometry: &Geometry, input: [usize; 3]) -> Vec<Algorithm> {
    let problem = Problem { order: WeightOrder::Blocked, ..Problem::new(*geometry, 1, input) };
    let asked = Algorithm::ALL.iter().copied().filter(|algorithm| *algorithm != Algorithm::Auto);
    asked.filter(|algorithm| algorithm.accepts(&problem).is_ok()).collect()
}

/// Whether outputs are computed in tiles, with numbers that are not finite in the sums of others.
pub(crate) fn is_filtered(spec: &Spec) -> bool {
    spec.winograd.is_some() || !spec.conv.sums_plainly()
}

/// Whether a kernel runs only on devices with lanes.
#[must_use]
pub fn needs_lanes(algorithm: Algorithm) -> bool {
    algorithm.kernel().is_some_and(|kernel| kernel.def().lanes)
}

/// Ragged 2-D cases: channel counts that are multiples of nothing, rectangular kernels, every
/// option at least once; and one of the catalogue for each kernel that computes none of these.
#[must_use]
pub fn cases_2d() -> Vec<Case<2>> {
    let mut cases = ragged_2d();
    let problems = catalogue::problems(false).expect("the catalogue parses");
    for &algorithm in Algorithm::ALL.iter().filter(|algorithm| **algorithm != Algorithm::Auto) {
        let is_able = |case: &Case<2>| able(&case.geometry(), case.input()).contains(&algorithm);
        let mut of_catalogue = problems.iter().filter(|spec| spec.conv == algorithm);
        if !cases.iter().any(is_able) {
            cases.extend(of_catalogue.find_map(case_of));
        }
    }
    cases
}

/// A problem of the catalogue over two axes, as a case.
fn case_of(spec: &Spec) -> Option<Case<2>> {
    let size = <[usize; 2]>::try_from(&spec.input[..]).ok()?;
    Some(Case { desc: spec.desc().ok()?, batch: spec.batch, size })
}

fn ragged_2d() -> Vec<Case<2>> {
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
        case(desc(19, 23, [1, 1]), 3, [8, 6]),
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
        case(desc(5, 5, [3, 3]).padding([1, 1]).groups(5), 2, [8, 7]),
        case(desc(7, 14, [5, 5]).padding([2, 1]).groups(7), 2, [9, 20]),
    ]
}

/// 1-D cases.
#[must_use]
pub fn cases_1d() -> Vec<Case<1>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<1>::new(c_in, c_out, [kernel]).kernels(2);
    vec![
        Case { desc: desc(5, 7, 3).padding([1]).stride([2]), batch: 3, size: [21] },
        Case { desc: desc(6, 6, 5).padding_sides([[4, 0]]).groups(6), batch: 2, size: [300] },
        Case { desc: desc(4, 9, 1), batch: 2, size: [17] },
    ]
}

/// 3-D cases.
#[must_use]
pub fn cases_3d() -> Vec<Case<3>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<3>::new(c_in, c_out, kernel).kernels(2);
    vec![
        Case { desc: desc(2, 9, [3, 2, 3]).padding([1, 0, 1]), batch: 2, size: [4, 5, 6] },
        Case {
            desc: desc(4, 4, [3, 3, 3]).padding([1, 1, 1]).groups(4).stride([1, 2, 1]),
            batch: 2,
            size: [5, 4, 6],
        },
        Case { desc: desc(3, 5, [1, 1, 1]), batch: 1, size: [2, 3, 5] },
    ]
}

/// Transposed 1-D cases.
#[must_use]
pub fn transposed_1d() -> Vec<Case<1>> {
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

/// Transposed 2-D cases: among them output padding that only the dilation allows, and padding wider
/// than the kernel.
#[must_use]
pub fn transposed_2d() -> Vec<Case<2>> {
    let case = |desc: ConvDesc<2>, extra, batch, size| Case {
        desc: desc.kernels(3).transposed(extra),
        batch,
        size,
    };
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel);
    vec![
        case(desc(3, 9, [3, 3]).stride([2, 2]).padding([1, 1]), [1, 1], 2, [5, 6]),
        case(
            desc(4, 6, [4, 2]).groups(2).stride([2, 3]).padding_sides([[1, 2], [0, 1]]),
            [0, 2],
            3,
            [4, 5],
        ),
        case(desc(4, 10, [3, 3]).dilation([2, 3]).padding([1, 2]), [1, 2], 2, [5, 4]),
        case(desc(3, 4, [3, 3]).stride([2, 2]).padding([3, 2]), [1, 0], 2, [5, 4]),
        case(desc(6, 12, [3, 3]).groups(6).stride([2, 1]).padding([1, 0]), [1, 0], 2, [4, 7]),
        case(desc(9, 67, [1, 1]), [0, 0], 2, [5, 3]),
        case(desc(12, 8, [1, 1]).groups(4), [0, 0], 1, [3, 5]),
        case(desc(2, 70, [2, 2]).stride([2, 2]), [0, 0], 2, [5, 6]),
    ]
}

/// Transposed 3-D cases.
#[must_use]
pub fn transposed_3d() -> Vec<Case<3>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<3>::new(c_in, c_out, kernel).kernels(2);
    let dense = desc(2, 9, [3, 2, 3]).stride([1, 2, 2]).padding([1, 0, 1]);
    let grouped = desc(4, 6, [2, 3, 2]).groups(2).stride([2, 1, 3]).dilation([1, 2, 1]);
    vec![
        Case { desc: dense.transposed([0, 1, 1]), batch: 2, size: [3, 4, 3] },
        Case { desc: grouped.transposed([1, 1, 2]), batch: 2, size: [2, 3, 3] },
    ]
}
