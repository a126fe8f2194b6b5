//! The kernels: one WGSL file each in `shaders/`, and beside it here what the host must know to
//! start it. What varies between a kernel's variants are module constants ([`Variant`]); whatever
//! changes with the input's size goes in its parameter block.

pub(crate) mod conv;
pub(crate) mod launch;
pub(crate) mod shader;

use std::str::FromStr;

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, BLOCK, Geometry, Problem};
use crate::reference;
use crate::registry::registry;
use conv::ConvKernel;
use shader::File;

pub use launch::{Dispatch, Slice, Value};
pub(crate) use launch::{Resources, value_limit, workgroup_within};
pub use shader::{Const, Slot, Variant, imports, shader_files};
pub(crate) use shader::{X_WIDTH, Y_WIDTH};

/// What the host knows of a kernel without running it.
#[derive(Debug)]
pub struct KernelDef {
    /// Bindings whose element type varies, of those that the shader imports; others are in f32.
    pub slots: &'static [Slot],
    /// Storage bindings from 1 on, in order; `true` for the one that is written. Binding 0 is the
    /// parameter block, whose first words are the base element of each of these.
    pub storage: &'static [bool],
    /// Whether it needs subgroups of eight and 64-bit integers ([`Caps::has_lanes`]).
    pub lanes: bool,
    /// Whether it needs cooperative matrices ([`Caps::matrices`]) and subgroup operations.
    pub matrices: bool,
}

/// A convolution kernel, with its twin in `src/reference/`.
pub(crate) struct Convolution {
    pub kernel: Kernel,
    pub conv: &'static dyn ConvKernel,
    pub formulation: fn(&reference::Conv<'_>) -> Vec<f64>,
}

/// Declares each kernel's module, and gathers what they define.
macro_rules! kernels {
    (steps { $($step:ident $step_stem:ident $step_doc:literal;)* }
     convolutions { $($conv:ident $stem:ident $doc:literal;)* }) => {
        $(pub(crate) mod $step_stem;)*
        $(pub(crate) mod $stem;)*

        /// A kernel, named after its file in `shaders/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kernel { $(#[doc = $step_doc] $step,)* $(#[doc = $doc] $conv,)* }

        impl Kernel {
            /// All kernels.
            pub const ALL: &'static [Self] = &[$(Self::$step,)* $(Self::$conv,)*];

            /// The kernel's definition.
            #[must_use]
            pub fn def(self) -> &'static KernelDef {
                match self { $(Self::$step => &$step_stem::DEF,)* $(Self::$conv => &$stem::DEF,)* }
            }

            /// Its shader's own file.
            fn file(self) -> File {
                match self {
                    $(Self::$step => shader::own_file!($step_stem),)*
                    $(Self::$conv => shader::own_file!($stem),)*
                }
            }

            /// Stem of its files, and name of the shader's entry point.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => stringify!($step_stem),)* $(Self::$conv => stringify!($stem),)*
                }
            }

            /// What it computes, in a few words.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$step => $step_doc,)* $(Self::$conv => $doc,)* }
            }
        }

        /// The convolutions, in order of preference, each with its formulation in f64.
        pub(crate) const CONVOLUTIONS: &[Convolution] = &[$(Convolution {
            kernel: Kernel::$conv,
            conv: &$stem::Conv,
            formulation: reference::$stem::$stem,
        },)*];

        #[allow(non_upper_case_globals, reason = "algorithms are named after their kernels")]
        impl Algorithm {
            $(#[doc = $doc] pub const $conv: Self = Self::of(stringify!($stem));)*

            /// All algorithms.
            pub const ALL: &'static [Self] = &[Self::Auto, Self::SplitK, $(Self::$conv,)*];
        }
    };
}

registry!(kernels);

impl Kernel {
    /// The names of all kernels.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|kernel| kernel.name())
    }

    /// Refuses a kernel that needs lanes on a device that has none.
    pub(crate) fn check_lanes(self, caps: &Caps) -> Result<()> {
        if self.def().lanes && !caps.has_lanes() {
            let feature = "SUBGROUP and SHADER_INT64 on a software adapter with subgroups of 8";
            return Err(Error::MissingFeature { feature, needed_for: self.name().into() });
        }
        Ok(())
    }

    /// Refuses a convolution that it cannot compute.
    pub(crate) fn accepts(self, problem: &Problem, output: [usize; 3]) -> Result<()> {
        let Some(convolution) = self.convolution() else {
            return Err(self.refusal("it does not convolve".into()));
        };
        convolution.accepts(problem, output).map_err(|because| self.refusal(because))
    }

    fn refusal(self, because: String) -> Error {
        Error::Unsupported { what: self.name().into(), because }
    }

    /// Refuses to split the sum over the input channels of a group.
    pub(crate) fn too_few_to_split(self, geometry: &Geometry) -> Error {
        let channels = geometry.c_in / geometry.groups;
        Error::Unsupported {
            what: format!("{} in slices", self.name()),
            because: format!(
                "it needs more than {BLOCK} input channels a group, and there are {channels}"
            ),
        }
    }

    /// How it convolves, if it does.
    pub(crate) fn convolution(self) -> Option<&'static dyn ConvKernel> {
        CONVOLUTIONS.iter().find(|one| one.kernel == self).map(|one| one.conv)
    }

    /// The formulation of the convolution that the kernel follows, in readable f64, if it
    /// convolves.
    #[must_use]
    pub fn formulation(self) -> Option<fn(&reference::Conv<'_>) -> Vec<f64>> {
        CONVOLUTIONS.iter().find(|one| one.kernel == self).map(|one| one.formulation)
    }
}

impl Algorithm {
    /// The kernel that it asks for, if it asks for one.
    #[must_use]
    pub fn kernel(self) -> Option<Kernel> {
        if self == Self::SplitK {
            return Some(Kernel::ConvGemmShared);
        }
        Kernel::ALL.iter().copied().find(|kernel| Some(kernel.name()) == self.stem())
    }

    /// Refuses a problem that it cannot compute on any device, whatever its size.
    ///
    /// # Errors
    /// [`Error::Unsupported`] says why; [`Error::Shape`] where the kernel does not fit the input.
    pub fn accepts(self, problem: &Problem) -> Result<()> {
        let Some(kernel) = self.kernel() else { return Ok(()) };
        let geometry = problem.geometry.at(problem.input);
        let output = geometry.output_size(problem.input)?;
        let (summed, map) = Problem { geometry, ..*problem }.summed(output);
        kernel.accepts(&summed, map)?;
        let Geometry { c_in, groups, .. } = summed.geometry;
        if self == Self::SplitK && c_in / groups <= BLOCK {
            return Err(kernel.too_few_to_split(&summed.geometry));
        }
        Ok(())
    }

    /// Whether it computes the plain sum, which is exact where all numbers are small integers.
    #[must_use]
    pub fn sums_plainly(self) -> bool {
        self.kernel().and_then(Kernel::convolution).is_none_or(ConvKernel::sums_plainly)
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| Error::Value {
            what: "convolution kernel".into(),
            needed: format!("one of {}", Self::names()),
            found: format!("\"{name}\""),
        })
    }
}

impl Algorithm {
    /// The names of all, as messages list them.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Activation, ConvDesc, Layout, WeightOrder, Winograd};
    use crate::reference::{Conv, conv_direct, sum_slices};

    fn noise(len: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        (0..len).map(|_| next()).collect()
    }

    fn formulations_agree<const D: usize>(desc: &ConvDesc<D>, input: [usize; 3]) {
        let geometry = desc.geometry().expect("valid");
        let output = geometry.output_size(input).expect("fits");
        let row = geometry.weights() + geometry.c_out;
        let x = noise(2 * geometry.c_in * input.iter().product::<usize>(), 1);
        let rows = noise(2 * row, 2);
        let conv = Conv {
            geometry: &geometry,
            batch: 2,
            input,
            output,
            x: &x,
            rows: &rows,
            row_stride: row,
            has_bias: true,
            gains: None,
            affine: None,
            residual: None,
            activation: Activation::Relu,
            layouts: [Layout::ChannelsFirst; 2],
        };
        let direct = conv_direct::conv_direct(&conv);
        let problem = Problem { order: WeightOrder::Blocked, ..Problem::new(geometry, 2, input) };
        let able = CONVOLUTIONS.iter().filter(|one| one.conv.accepts(&problem, output).is_ok());
        let mut others: Vec<_> = able.map(|one| (one.formulation)(&conv)).collect();
        if geometry.is_plain_3x3() {
            others.extend(
                [Winograd::F2, Winograd::F4]
                    .map(|tiles| reference::filtered(&conv, tiles, &tiles.matrices())),
            );
        }
        if conv_gemm_shared::Conv.accepts(&problem, output).is_ok() {
            let partials = reference::conv_gemm_shared::in_slices(&conv, 2);
            others.push(sum_slices::sum_slices(&conv, &partials));
        }
        assert!(direct.iter().any(|&v| v > 0.0));
        for other in others {
            assert_eq!(direct.len(), other.len());
            for (a, b) in direct.iter().zip(&other) {
                approx::assert_relative_eq!(a, b, epsilon = 1e-12);
            }
        }
    }

    #[test]
    fn all_formulations_of_the_convolution_agree() {
        formulations_agree(
            &ConvDesc::new(4, 6, [3, 2]).stride([2, 1]).padding_sides([[1, 0], [0, 2]]).groups(2),
            [1, 7, 5],
        );
        formulations_agree(
            &ConvDesc::new(3, 6, [3, 3]).padding([2, 2]).dilation([2, 1]).groups(3),
            [1, 6, 7],
        );
        formulations_agree(
            &ConvDesc::new(4, 6, [3, 3]).padding_sides([[1, 0], [2, 1]]).groups(2),
            [1, 5, 6],
        );
        formulations_agree(&ConvDesc::new(3, 6, [3, 3]).padding([1, 2]).groups(3), [1, 4, 5]);
        formulations_agree(
            &ConvDesc::new(4, 6, [3, 3]).stride([2, 2]).padding_sides([[1, 0], [2, 1]]).groups(2),
            [1, 6, 5],
        );
        formulations_agree(&ConvDesc::new(4, 6, [1, 1]).groups(2), [1, 3, 5]);
        formulations_agree(
            &ConvDesc::new(2, 3, [2, 3, 1]).padding([1, 0, 1]).stride([1, 2, 2]),
            [3, 5, 4],
        );
    }
}
