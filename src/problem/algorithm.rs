//! Which convolution kernel a problem asks for.

use std::fmt;

/// Which convolution kernel runs.
///
/// Every convolution kernel has an algorithm of its own, under the kernel's name:
/// `Algorithm::ConvDirect` asks for `conv_direct`. [`Algorithm::ALL`] lists them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Algorithm(Option<&'static str>);

#[allow(non_upper_case_globals, reason = "algorithms are named after their kernels")]
impl Algorithm {
    /// The planner chooses.
    pub const Auto: Self = Self(None);
    /// `conv_gemm_shared` with the sum over the input channels split among workgroups (split-K), in
    /// two slices at least, and `sum_slices`; for more than 16 input channels a group.
    pub const SplitK: Self = Self(Some("conv_split_k"));

    /// That of the kernel with a stem.
    pub(crate) const fn of(stem: &'static str) -> Self {
        Self(Some(stem))
    }

    /// Stem of the kernel that it asks for, if it asks for one.
    pub(crate) fn stem(self) -> Option<&'static str> {
        self.0
    }

    /// Its name in arguments and tables: the kernel's, without `conv_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.map_or("auto", |stem| stem.strip_prefix("conv_").unwrap_or(stem))
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
