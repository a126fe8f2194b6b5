//! Description of a convolution: channels, kernel, stride, padding, dilation, groups, kernels in
//! the bank.

use super::winograd::{self, Winograd};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Error, Result, index32};

/// A convolution over `D` spatial axes (1 to 3), with a bank of `kernels` kernels.
///
/// Layouts everywhere in the library, outermost first: activations `[batch, channels, spatial..]`,
/// kernel bank `[K, channels out, channels in / groups, kernel..]`, attention `[batch, K]`, bias
/// bank `[K, channels out]`. Convolution is cross-correlation with zero padding:
/// `out = floor((in + pad_begin + pad_end - dilation * (kernel - 1) - 1) / stride) + 1` along each
/// axis.
///
/// ```
/// use dynconv::ConvDesc;
///
/// let desc = ConvDesc::new(64, 128, [3, 3]).kernels(4).stride([2, 2]).padding([1, 1]);
/// assert_eq!(desc.output_size([56, 56])?, [28, 28]);
/// # Ok::<(), dynconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvDesc<const D: usize> {
    c_in: usize,
    c_out: usize,
    kernel: [usize; D],
    stride: [usize; D],
    dilation: [usize; D],
    padding: [[usize; 2]; D],
    groups: usize,
    kernels: usize,
    same: bool,
    transposed: Option<[usize; D]>,
    bank: Elem,
    winograd: Option<Winograd>,
}

impl<const D: usize> ConvDesc<D> {
    /// Stride 1, no padding, dilation 1, one group, a bank of one kernel.
    #[must_use]
    pub fn new(c_in: usize, c_out: usize, kernel: [usize; D]) -> Self {
        Self {
            c_in,
            c_out,
            kernel,
            stride: [1; D],
            dilation: [1; D],
            padding: [[0; 2]; D],
            groups: 1,
            kernels: 1,
            same: false,
            transposed: None,
            bank: Elem::F32,
            winograd: None,
        }
    }

    /// Kernels in the bank (K).
    #[must_use]
    pub fn kernels(mut self, kernels: usize) -> Self {
        self.kernels = kernels;
        self
    }

    /// Steps between outputs, per axis.
    #[must_use]
    pub fn stride(mut self, stride: [usize; D]) -> Self {
        self.stride = stride;
        self
    }

    /// Zeros on both sides of each axis.
    #[must_use]
    pub fn padding(self, padding: [usize; D]) -> Self {
        self.padding_sides(padding.map(|p| [p, p]))
    }

    /// Zeros before and after each axis, which may differ.
    #[must_use]
    pub fn padding_sides(mut self, padding: [[usize; 2]; D]) -> Self {
        self.padding = padding;
        self.same = false;
        self
    }

    /// TensorFlow's "SAME": as many zeros as make the output `ceil(in / stride)` long, the odd one
    /// after the axis. It follows the input's size.
    #[must_use]
    pub fn padding_same(mut self) -> Self {
        self.same = true;
        self
    }

    /// The transposed (fractionally strided) convolution: the adjoint of the convolution with the
    /// same numbers. Its output is `(in - 1) * stride - pad_begin - pad_end + dilation *
    /// (kernel - 1) + output_padding + 1` long. Its bank is `[K, channels in, channels out /
    /// groups, kernel..]`, as in PyTorch.
    #[must_use]
    pub fn transposed(mut self, output_padding: [usize; D]) -> Self {
        self.transposed = Some(output_padding);
        self
    }

    /// Distance between taps, per axis.
    #[must_use]
    pub fn dilation(mut self, dilation: [usize; D]) -> Self {
        self.dilation = dilation;
        self
    }

    /// Element type of the kernel bank on the device: f32, or half the memory in `F16Storage` or
    /// `Bf16Storage`. Layers that share one kernel keep it in f32.
    #[must_use]
    pub fn bank_elem(mut self, elem: Elem) -> Self {
        self.bank = elem;
        self
    }

    /// Computes by Winograd's minimal filtering: fewer products, more memory, larger errors
    /// ([`Winograd`] says how much). For 3 x 3 kernels over two axes with stride 1, no
    /// dilation, a bank in f32, and attention without gains of the taps, which do not commute with
    /// it.
    #[must_use]
    pub fn winograd(mut self, winograd: Winograd) -> Self {
        self.winograd = Some(winograd);
        self
    }

    /// Groups: input and output channels are cut in as many independent parts. `groups == c_in` is
    /// depthwise.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Spatial size of the output for an input of size `input`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the description is not valid or the kernel does not fit in the padded
    /// input.
    pub fn output_size(&self, input: [usize; D]) -> Result<[usize; D]> {
        let geometry = self.geometry()?;
        let out = geometry.output_size(pad_axes(input, 1))?;
        Ok(std::array::from_fn(|i| out[3 - D + i]))
    }

    /// The same convolution over three axes, checked.
    ///
    /// # Errors
    /// [`Error::Shape`] for a zero where at least one is needed, more than three axes, or channels
    /// that the groups do not divide.
    pub fn geometry(&self) -> Result<Geometry> {
        if D == 0 || D > 3 {
            return Err(Error::Shape {
                what: "spatial axes".into(),
                expected: "1 to 3".into(),
                found: D.to_string(),
            });
        }
        if self.same && self.transposed.is_some() {
            return Err(Error::Unsupported {
                what: "\"SAME\" padding".into(),
                because: "a transposed convolution needs its padding as numbers".into(),
            });
        }
        for (axis, &extra) in self.transposed.iter().flatten().enumerate() {
            let limit = self.stride[axis].max(self.dilation[axis]);
            if extra >= limit {
                return Err(Error::Shape {
                    what: format!("output padding of axis {axis}"),
                    expected: format!("below {limit}, the larger of stride and dilation"),
                    found: extra.to_string(),
                });
            }
        }
        let geometry = Geometry {
            axes: D,
            c_in: self.c_in,
            c_out: self.c_out,
            groups: self.groups,
            kernels: self.kernels,
            kernel: pad_axes(self.kernel, 1),
            stride: pad_axes(self.stride, 1),
            dilation: pad_axes(self.dilation, 1),
            padding: pad_axes(self.padding, [0, 0]),
            same: self.same,
            transposed: self.transposed.is_some(),
            output_padding: pad_axes(self.transposed.unwrap_or([0; D]), 0),
            bank: self.bank,
            winograd: self.winograd,
        };
        geometry.check()?;
        Ok(geometry)
    }
}

/// `values` at the end of three axes (depth, height, width), `fill` before them.
pub(crate) fn pad_axes<T: Copy, const D: usize>(values: [T; D], fill: T) -> [T; 3] {
    let mut axes = [fill; 3];
    axes[3 - D..].copy_from_slice(&values);
    axes
}

/// Order of a kernel's weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightOrder {
    /// `[channels out, channels in / groups, taps]`, as published.
    #[default]
    Plain,
    /// `[groups, blocks, channels in / groups, taps, 16]`: the weights of 16 output channels of a
    /// group lie together, so that neighbouring invocations, or one wide load, take what they
    /// need in one piece. The last block of a group is filled up with zeros.
    Blocked,
}

impl WeightOrder {
    /// The order that a layer keeps its bank in: blocks, where invocations side by side or wide
    /// loads take several weights, and groups are not so small that they would mostly be zeros.
    /// Software adapters without lanes take weights one by one; there the order makes no
    /// difference.
    #[must_use]
    pub fn of_bank(geometry: &Geometry, caps: &Caps) -> Self {
        let wants_blocks = !caps.is_software() || caps.has_lanes();
        if wants_blocks && geometry.c_out / geometry.groups >= BLOCK / 2 {
            Self::Blocked
        } else {
            Self::Plain
        }
    }
}

/// Output channels of a block of [`WeightOrder::Blocked`].
pub(crate) const BLOCK: usize = 16;

/// A checked [`ConvDesc`] over the three axes depth, height, width; absent axes have size 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Spatial axes of the description that this came from.
    pub axes: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Groups; divides both channel counts.
    pub groups: usize,
    /// Kernels in the bank.
    pub kernels: usize,
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Stride.
    pub stride: [usize; 3],
    /// Dilation.
    pub dilation: [usize; 3],
    /// Zeros before and after each axis; for `same` to be computed by [`Geometry::at`].
    pub padding: [[usize; 2]; 3],
    /// Whether the padding follows the input's size.
    pub same: bool,
    /// Whether this is the transposed convolution.
    pub transposed: bool,
    /// What a transposed convolution adds to its output size.
    pub output_padding: [usize; 3],
    /// Element type of the kernel bank.
    pub bank: Elem,
    /// Tiles of Winograd's minimal filtering; `None` computes the plain sum.
    pub winograd: Option<Winograd>,
}

impl Geometry {
    /// Refuses zeros, groups that do not divide the channels, and numbers past what kernels can
    /// index.
    pub(crate) fn check(&self) -> Result<()> {
        let padding = self.padding.as_flattened().iter().copied().max().unwrap_or(0);
        let [smallest, largest] =
            [|v: [usize; 3]| v.into_iter().min(), |v: [usize; 3]| v.into_iter().max()].map(
                |pick| [self.kernel, self.stride, self.dilation].map(|v| pick(v).unwrap_or(0)),
            );
        let counts = [
            ("input channels", self.c_in, self.c_in),
            ("output channels", self.c_out, self.c_out),
            ("groups", self.groups, self.groups),
            ("kernels in the bank", self.kernels, self.kernels),
            ("kernel size", smallest[0], largest[0]),
            ("stride", smallest[1], largest[1]),
            ("dilation", smallest[2], largest[2]),
            ("padding", 1, padding),
        ];
        for (what, smallest, largest) in counts {
            if smallest == 0 {
                return Err(Error::Shape {
                    what: what.into(),
                    expected: "at least 1".into(),
                    found: "0".into(),
                });
            }
            index32(what, largest)?;
        }
        for (what, channels) in [("input channels", self.c_in), ("output channels", self.c_out)] {
            if !channels.is_multiple_of(self.groups) {
                return Err(Error::Shape {
                    what: what.into(),
                    expected: format!("a multiple of {} groups", self.groups),
                    found: channels.to_string(),
                });
            }
        }
        let sizes =
            [self.kernels, self.c_out, self.c_in / self.groups].into_iter().chain(self.kernel);
        let bank = sizes.fold(1_usize, usize::saturating_mul);
        index32("elements of the kernel bank", bank)?;
        match self.winograd {
            Some(_) if !self.is_plain_3x3() => {
                winograd::refuse("it needs two axes, a 3 x 3 kernel, stride 1 and no dilation")
            }
            Some(_) if self.bank != Elem::F32 => winograd::refuse("it needs a kernel bank in f32"),
            Some(tiles) => {
                index32(
                    "elements of the kernel bank",
                    bank / self.taps().max(1) * tiles.numbers(),
                )?;
                index32(
                    "channels of all products",
                    self.c_in.max(self.c_out).saturating_mul(tiles.numbers()),
                )?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The convolution that sums: this one, or with minimal filtering the 1 x 1 convolution over
    /// tiles that multiplies, a group for each number of each group's tiles.
    #[must_use]
    pub fn summed(&self) -> Self {
        let Some(winograd) = self.winograd else { return *self };
        let n = winograd.numbers();
        let [c_in, c_out, groups] = [self.c_in, self.c_out, self.groups].map(|count| count * n);
        Self {
            c_in,
            c_out,
            groups,
            kernel: [1; 3],
            padding: [[0; 2]; 3],
            same: false,
            winograd: None,
            ..*self
        }
    }

    /// Taps of one kernel plane.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Elements of one kernel: `channels out * channels in / groups * taps`.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.taps()
    }

    /// Elements of one kernel in an order of its weights.
    #[must_use]
    pub fn kernel_len(&self, order: WeightOrder) -> usize {
        let g = self.summed();
        match order {
            WeightOrder::Plain => g.weights(),
            WeightOrder::Blocked => {
                let blocks = (g.c_out / g.groups).div_ceil(BLOCK);
                g.groups * blocks * BLOCK * (g.c_in / g.groups) * g.taps()
            }
        }
    }

    /// Elements of a row: one kernel, then its bias if there is one. Rows of blocks are filled up
    /// to whole blocks.
    #[must_use]
    pub fn row(&self, order: WeightOrder, has_bias: bool) -> usize {
        let row = self.kernel_len(order) + if has_bias { self.c_out } else { 0 };
        match order {
            WeightOrder::Plain => row,
            WeightOrder::Blocked => row.next_multiple_of(BLOCK),
        }
    }

    /// Kernels `[channels out, channels in / groups, taps]` as a device keeps them: taken to the
    /// domain of minimal filtering, in an order.
    pub(crate) fn kept(&self, kernels: Vec<f32>, order: WeightOrder) -> Vec<f32> {
        let Some(winograd) = self.winograd else { return self.in_order(kernels, order) };
        self.summed().in_order(winograd.kernels(&kernels, self.weights() / self.taps()), order)
    }

    /// Kernels `[channels out, channels in / groups, taps]`, in another order.
    pub(crate) fn in_order<T: Copy + Default>(
        &self,
        kernels: Vec<T>,
        order: WeightOrder,
    ) -> Vec<T> {
        if order == WeightOrder::Plain {
            return kernels;
        }
        let [c_out, reduction] = [self.c_out / self.groups, self.c_in / self.groups * self.taps()];
        let mut blocked =
            Vec::with_capacity(kernels.len() / self.weights() * self.kernel_len(order));
        for group in kernels.chunks_exact(c_out * reduction) {
            for block in group.chunks(BLOCK * reduction) {
                for r in 0..reduction {
                    blocked.extend(
                        (0..BLOCK)
                            .map(|co| block.get(co * reduction + r).copied().unwrap_or_default()),
                    );
                }
            }
        }
        blocked
    }

    /// Kernels in an order of their weights, back in `[channels out, channels in / groups, taps]`.
    pub(crate) fn plain<T: Copy + Default>(&self, kernels: &[T], order: WeightOrder) -> Vec<T> {
        if order == WeightOrder::Plain {
            return kernels.to_vec();
        }
        let [c_out, reduction] = [self.c_out / self.groups, self.c_in / self.groups * self.taps()];
        let group = c_out.div_ceil(BLOCK) * BLOCK * reduction;
        let of_group = |group: &[T]| -> Vec<T> {
            let weight = |i: usize| {
                let (co, r) = (i / reduction, i % reduction);
                group[(co / BLOCK * reduction + r) * BLOCK + co % BLOCK]
            };
            (0..c_out * reduction).map(weight).collect()
        };
        kernels.chunks_exact(group).flat_map(of_group).collect()
    }

    /// Whether outputs read the input position of their own number: 1 x 1 taps, stride 1, no
    /// padding.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1
            && self.stride == [1; 3]
            && self.padding == [[0; 2]; 3]
            && self.output_padding == [0; 3]
    }

    /// Whether this is a 3 x 3 convolution over two axes with stride 1 and no dilation.
    #[must_use]
    pub fn is_plain_3x3(&self) -> bool {
        let is_plain = self.stride == [1; 3] && self.dilation == [1; 3] && !self.transposed;
        self.axes == 2 && self.kernel == [1, 3, 3] && is_plain
    }

    /// Whether it is a convolution over two axes with 3 x 3 kernels, stride 2 and no dilation.
    #[must_use]
    pub fn is_strided_3x3(&self) -> bool {
        Self { stride: [1; 3], ..*self }.is_plain_3x3() && self.stride == [1, 2, 2]
    }

    /// The geometry for an input of this size: "SAME" padding turned to numbers.
    #[must_use]
    pub fn at(&self, input: [usize; 3]) -> Self {
        if !self.same {
            return *self;
        }
        let padding = std::array::from_fn(|axis| {
            let last = (input[axis].div_ceil(self.stride[axis]).max(1) - 1) * self.stride[axis];
            let reach = last
                .saturating_add(self.dilation[axis].saturating_mul(self.kernel[axis] - 1))
                .saturating_add(1);
            let total = reach.saturating_sub(input[axis]);
            [total / 2, total.div_ceil(2)]
        });
        Self { padding, same: false, ..*self }
    }

    /// Output size for an input size.
    ///
    /// # Errors
    /// [`Error::Shape`] where the input is empty or the dilated kernel is larger than the padded
    /// input.
    pub fn output_size(&self, input: [usize; 3]) -> Result<[usize; 3]> {
        if self.same {
            return self.at(input).output_size(input);
        }
        if self.transposed {
            return self.transposed_size(input);
        }
        let mut out = [0; 3];
        for axis in 0..3 {
            let [begin, end] = self.padding[axis];
            let padded = input[axis].saturating_add(begin).saturating_add(end);
            let extent =
                self.dilation[axis].saturating_mul(self.kernel[axis] - 1).saturating_add(1);
            if input[axis] == 0 || padded < extent {
                return Err(Error::Shape {
                    what: format!("input {}", ["depth", "height", "width"][axis]),
                    expected: format!(
                        "at least {}",
                        extent.saturating_sub(begin.saturating_add(end)).max(1)
                    ),
                    found: input[axis].to_string(),
                });
            }
            out[axis] = (padded - extent) / self.stride[axis] + 1;
        }
        Ok(out)
    }

    fn transposed_size(&self, input: [usize; 3]) -> Result<[usize; 3]> {
        let mut out = [0; 3];
        for axis in 0..3 {
            let [begin, end] = self.padding[axis];
            let extent =
                self.dilation[axis].saturating_mul(self.kernel[axis] - 1).saturating_add(1);
            let last = input[axis].saturating_sub(1).saturating_mul(self.stride[axis]);
            let full = last.saturating_add(extent).saturating_add(self.output_padding[axis]);
            if input[axis] == 0 || full <= begin.saturating_add(end) {
                return Err(Error::Shape {
                    what: format!("input {}", ["depth", "height", "width"][axis]),
                    expected: format!(
                        "more than the {} zeros of padding leave",
                        begin.saturating_add(end)
                    ),
                    found: input[axis].to_string(),
                });
            }
            out[axis] = full - begin - end;
        }
        Ok(out)
    }

    /// A published bank in the order that kernels read, `[K, channels out, channels in / groups,
    /// taps]`: transposed convolutions are published as `[K, channels in, channels out /
    /// groups, taps]`.
    pub(crate) fn bank_rows<T: Copy>(&self, bank: &[T]) -> Vec<T> {
        if !self.transposed {
            return bank.to_vec();
        }
        let taps = self.taps();
        let [c_in, c_out] = [self.c_in / self.groups, self.c_out / self.groups];
        let mut rows = Vec::with_capacity(bank.len());
        for kernel in bank.chunks_exact(self.weights()) {
            for co in 0..self.c_out {
                for ci in 0..c_in {
                    let row = (co / c_out * c_in + ci) * c_out + co % c_out;
                    rows.extend(&kernel[row * taps..(row + 1) * taps]);
                }
            }
        }
        rows
    }

    /// Multiplications and additions of the static convolution, 2 each: `2 * batch * weights *
    /// positions`, the positions being those of the output, or of the input for the transposed.
    #[must_use]
    pub fn flops(&self, batch: usize, input: [usize; 3], output: [usize; 3]) -> u64 {
        let positions = if self.transposed { input } else { output };
        positions
            .iter()
            .fold(2 * self.weights() as u64, |n, &size| n.saturating_mul(size as u64))
            .saturating_mul(batch as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_follow_the_formula() {
        let desc = ConvDesc::new(1, 1, [3, 5])
            .stride([2, 1])
            .padding_sides([[1, 0], [2, 3]])
            .dilation([2, 1]);
        assert_eq!(desc.output_size([10, 7]).expect("fits"), [4, 8]);
        assert_eq!(ConvDesc::new(1, 1, [3]).output_size([3]).expect("fits"), [1]);
    }

    #[test]
    fn invalid_descriptions_are_named() {
        let cases: [(ConvDesc<2>, &str); 5] = [
            (ConvDesc::new(0, 1, [3, 3]), "input channels"),
            (ConvDesc::new(4, 6, [3, 3]).groups(3), "input channels"),
            (ConvDesc::new(3, 4, [3, 3]).groups(3), "output channels"),
            (ConvDesc::new(1, 1, [3, 0]), "kernel size"),
            (ConvDesc::new(1, 1, [3, 3]).stride([0, 1]), "stride"),
        ];
        for (desc, what) in cases {
            let message = desc.geometry().expect_err("invalid").to_string();
            assert!(message.starts_with(what), "{message}");
        }
        let message =
            ConvDesc::new(1, 1, [3, 3]).output_size([2, 9]).expect_err("too small").to_string();
        assert_eq!(message, "input height: expected at least 3, found 2");
        assert!(ConvDesc::new(1, 1, [1, 1, 1, 1]).geometry().is_err());
    }
}
