//! The one error type of the library.

use std::time::Duration;

/// Result with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every variant names what was wrong, what was needed and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape or an element count does not fit the description.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The operand or parameter.
        what: String,
        /// What the description asks for.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A number lies outside its domain (a temperature of 0, a NaN weight).
    #[error("{what}: needs {needed}, found {found}")]
    Value {
        /// The parameter.
        what: String,
        /// Its domain.
        needed: String,
        /// The value given.
        found: String,
    },
    /// The device cannot do this within its limits.
    #[error(
        "{what} needs {}, but {limit} is {}; {remedy}",
        .unit.of(*.needed), .unit.of(*.available)
    )]
    Limit {
        /// The limit, by its name in `wgpu::Limits`, or in words where wgpu has none.
        limit: &'static str,
        /// What is counted.
        unit: Unit,
        /// What needs more.
        what: String,
        /// How much it needs.
        needed: u64,
        /// How much the device offers.
        available: u64,
        /// What would help.
        remedy: String,
    },
    /// The chosen kernel cannot compute this convolution.
    #[error("{what} is not possible: {because}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why it cannot be.
        because: String,
    },
    /// The device was made without a feature that this needs.
    #[error("{needed_for} needs the device feature {feature}, which is not enabled")]
    MissingFeature {
        /// The feature, by its name in `wgpu::Features`.
        feature: &'static str,
        /// What needs it.
        needed_for: String,
    },
    /// A wrapped buffer is too small for the tensor.
    #[error(
        "{what}: buffer needs {}, has {}",
        Unit::Bytes.of(*.needed), Unit::Bytes.of(*.available)
    )]
    BufferTooSmall {
        /// The tensor.
        what: String,
        /// Bytes needed, offset included.
        needed: u64,
        /// Bytes the buffer has.
        available: u64,
    },
    /// A wrapped buffer lacks usage flags.
    #[error("{what}: buffer lacks usage {missing:?}")]
    BufferUsage {
        /// The tensor.
        what: String,
        /// The flags that are missing.
        missing: wgpu::BufferUsages,
    },
    /// A tensor's offset in its buffer is not a multiple of 4.
    #[error("{what}: byte offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// The tensor.
        what: String,
        /// The offset given.
        offset: u64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// A tensor, a layer or a buffer of one device was used with another.
    #[error("{what} belongs to {found}, but is used with {expected}")]
    OtherDevice {
        /// What it is.
        what: String,
        /// The context that it belongs to, by its number and the name of its adapter; a buffer's
        /// is not known.
        found: String,
        /// The context that it was used with.
        expected: String,
    },
    /// The output shares a buffer with an input, which WebGPU forbids even for disjoint ranges.
    #[error("{output} and {input} are in the same buffer; the output needs a buffer of its own")]
    AliasedBuffers {
        /// The operand written.
        output: &'static str,
        /// The operand read.
        input: &'static str,
    },
    /// A count does not fit the 32 bits that shaders index with.
    #[error("{what} is {value}, more than the {limit} that kernels can index")]
    Overflow {
        /// The count.
        what: String,
        /// Its value.
        value: u128,
        /// The largest that fits.
        limit: u128,
    },
    /// A kernel's test gave another result than the CPU. This is a defect of the driver or of the
    /// library.
    #[error(
        "{kernel} computes wrongly on this device: output {output} is {found}, \
         expected {expected} to within {tolerance}"
    )]
    Wrong {
        /// The kernel, and how it computed.
        kernel: String,
        /// Number of the first output that is wrong.
        output: usize,
        /// What it is.
        found: f64,
        /// What it must be.
        expected: f64,
        /// How far it may be from that.
        tolerance: f64,
    },
    /// The driver or wgpu refused a kernel. This is a defect of the library or of the driver.
    #[error("kernel {kernel} was refused: {message}")]
    Shader {
        /// The kernel variant.
        kernel: String,
        /// What wgpu said.
        message: String,
    },
    /// The device refused a resource, such as a destroyed buffer.
    #[error("{what} was refused: {message}")]
    Refused {
        /// The resource.
        what: String,
        /// What wgpu said.
        message: String,
    },
    /// The device has no memory left.
    #[error("out of memory for {what}")]
    OutOfMemory {
        /// What memory was needed for.
        what: String,
    },
    /// The device was lost or its work failed.
    #[error("device lost or failed: {message}")]
    DeviceLost {
        /// What wgpu said.
        message: String,
    },
    /// The device did not finish in time.
    #[error("the device did not finish within {0:?}")]
    Timeout(Duration),
    /// No adapter fits the request.
    #[error("no adapter: {wanted}; {found}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A line of a tuning table that says nothing.
    #[error("tuning table, line {line}: expected {expected}, found {found}")]
    TuningLine {
        /// Number of the line, from 1.
        line: usize,
        /// What could stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A tuning table that was not measured with this adapter, driver and version of the kernels.
    #[error("tuning table: its {what} is {found}, but this is {expected}; tune again")]
    StaleTuning {
        /// What differs.
        what: &'static str,
        /// What the device or the library has.
        expected: String,
        /// What the table says.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// What the system said, or what is wrong with its content.
        message: String,
    },
    /// A checkpoint could not be loaded.
    #[cfg(feature = "safetensors")]
    #[error("checkpoint: {message}")]
    Checkpoint {
        /// What is wrong with the file.
        message: String,
    },
    /// A checkpoint lacks a tensor.
    #[cfg(feature = "safetensors")]
    #[error("checkpoint: no tensor {key}{}{}", of_shape(expected), did_you_mean(near))]
    MissingKey {
        /// The tensor's name.
        key: String,
        /// The shape it should have, or "any".
        expected: String,
        /// Tensors with similar names, the nearest first.
        near: Vec<String>,
    },
    /// A checkpoint has tensors under a layer's prefix that nothing reads, and that may change
    /// what the layer computes.
    #[cfg(feature = "safetensors")]
    #[error(
        "checkpoint: no part of this layer reads {}, which may change what it computes; \
         leave out with Checkpoint::without what does not",
        .keys.join(", ")
    )]
    UnreadKeys {
        /// The tensors' names.
        keys: Vec<String>,
    },
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes of a buffer, a binding or workgroup memory.
    Bytes,
    /// Invocations of a workgroup.
    Invocations,
    /// Workgroups of a dispatch.
    Workgroups,
    /// Storage buffers that a shader binds.
    Bindings,
    /// Loop iterations of an invocation.
    Iterations,
}

impl Unit {
    /// A count with its unit: `3 workgroups`, `65536 bytes (64 KiB)`.
    #[must_use]
    pub fn of(self, count: u64) -> String {
        let name = match self {
            Self::Bytes => "byte",
            Self::Invocations => "invocation",
            Self::Workgroups => "workgroup",
            Self::Bindings => "storage buffer",
            Self::Iterations => "iteration",
        };
        let exact = format!("{count} {name}{}", if count == 1 { "" } else { "s" });
        match (self, count.checked_ilog2().unwrap_or(0) / 10) {
            (Self::Bytes, power @ 1..) => {
                let prefix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power as usize];
                // One decimal place, which a whole number has no need of.
                let tenths = u128::from(count) * 10 / (1 << (10 * power));
                let rest =
                    if tenths % 10 == 0 { String::new() } else { format!(".{}", tenths % 10) };
                format!("{exact} ({}{rest} {prefix}B)", tenths / 10)
            }
            _ => exact,
        }
    }
}

impl Error {
    pub(crate) fn shape(what: impl Into<String>, expected: &[usize], found: &[usize]) -> Self {
        Self::Shape {
            what: what.into(),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
        }
    }
}

#[cfg(feature = "safetensors")]
pub(crate) const ANY_SHAPE: &str = "any";

#[cfg(feature = "safetensors")]
fn of_shape(expected: &str) -> String {
    if expected == ANY_SHAPE {
        String::new()
    } else {
        format!(", which should have shape {expected}")
    }
}

#[cfg(feature = "safetensors")]
fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// A count of elements in words.
pub(crate) fn elements(count: usize) -> String {
    format!("{count} element{}", if count == 1 { "" } else { "s" })
}

/// Refuses data whose length is not `expected`.
pub(crate) fn check_len(what: &str, data: &[f32], expected: usize) -> Result<()> {
    if data.len() == expected {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.into(),
        expected: elements(expected),
        found: elements(data.len()),
    })
}

/// Refuses NaN and infinite parameters, naming the first.
pub(crate) fn check_finite(what: &str, data: &[f32]) -> Result<()> {
    match data.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::Value {
            what: format!("{what}, element {i}"),
            needed: "a finite number".into(),
            found: data[i].to_string(),
        }),
    }
}

/// The 32-bit value of a count, or an error that names it.
pub(crate) fn index32(what: &str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::Overflow {
        what: what.into(),
        value: value as u128,
        limit: u128::from(u32::MAX),
    })
}
