//! What can go wrong with a measurement.

use dynconv_suite::run::Fault;
use dynconv_suite::spec::SpecError;

/// Result of a measurement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a shape file that describes no shape.
    #[error("{file}:{line}: {error}")]
    Line {
        /// The file, or the name of a built-in set.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<SpecError>,
    },
    /// A file without a single shape.
    #[error("{file}: expected a shape a line, found none")]
    Empty {
        /// The file.
        file: String,
    },
    /// Neither a file that can be read nor the name of a built-in set.
    #[error("cannot read {name}: {error}; built-in sets are {sets}")]
    NoSuchSet {
        /// What was asked for.
        name: String,
        /// Why it cannot be read as a file.
        error: std::io::Error,
        /// The sets that there are.
        sets: String,
    },
    /// A file that holds no results.
    #[error("{file}: {error}")]
    NoResults {
        /// The file.
        file: String,
        /// What is wrong with it.
        error: String,
    },
    /// Results that cannot be held against these.
    #[error("{file}: expected results of {what} {expected}, found {found}")]
    Incomparable {
        /// The file of the older results.
        file: String,
        /// What differs.
        what: &'static str,
        /// What these results have.
        expected: String,
        /// What the older ones have.
        found: String,
    },
    /// The library refuses, or the result is wrong.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The device did not do what it was asked to.
    #[error("the device failed: {0}")]
    Device(String),
    /// Whoever is told of the progress wants no more.
    #[error("stopped")]
    Stopped,
}

impl From<dynconv::Error> for Error {
    fn from(error: dynconv::Error) -> Self {
        Self::Fault(error.into())
    }
}

impl Error {
    /// A result that differs from what it must be.
    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::Fault(Fault::Wrong(what.into()))
    }
}
