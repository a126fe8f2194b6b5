//! Runs a compute shader in an interpreter of naga's intermediate representation, and tells what is
//! wrong with it although a driver may give a right result:
//!
//! * data races, on workgroup memory and on storage buffers, within a workgroup and between
//!   workgroups;
//! * accesses outside of arrays and buffers, before anything clamps or drops them;
//! * reads of memory that nothing has written;
//! * barriers that not all invocations of a workgroup reach, and subgroup operations that read an
//!   invocation which takes no part;
//! * shifts by too many bits, integer divisions by zero, conversions to an integer that cannot hold
//!   the value;
//! * loops without an end.
//!
//! All invocations of a workgroup go through the shader in step, one workgroup after another.
//! Whether two accesses race does not depend on this order: a race is two accesses that no barrier
//! orders, and every access is remembered until a barrier orders it. What is not reached is not
//! judged: a branch that these data do not take, or one that another outcome of an atomic operation
//! would.
//!
//! Components of a vector count as places of their own, though WGSL lets a write to one touch all
//! of them.
//!
//! Not interpreted, with [`Error::Unsupported`]: overrides, textures, matrices in buffers,
//! arguments that are structs, `subgroupBarrier`, quad operations, and of the built-in functions
//! those that are rare in compute shaders (`length`, `normalize`, `cross`, `distance`,
//! `modf`, `frexp`, `extractBits`, `firstLeadingBit`, packing in other formats than two halves).
//!
//! ```
//! use wgsl_sanitizer::{Binding, Buffer, Dispatch, Kind, Shader};
//!
//! let source = "
//!     @group(0) @binding(0) var<storage, read_write> y: array<u32>;
//!     var<workgroup> part: array<u32, 4>;
//!     @compute @workgroup_size(4)
//!     fn main(@builtin(local_invocation_index) lane: u32) {
//!         part[lane] = lane;
//!         y[lane] = part[3u - lane];
//!     }";
//! let shader = Shader::new(source)?;
//! let bindings = [Binding { group: 0, binding: 0, buffer: 0, range: 0..16 }];
//! let dispatch = Dispatch::new(&shader, "main", &bindings, [1, 1, 1]);
//! let findings = wgsl_sanitizer::run(&dispatch, &mut [Buffer::unwritten(16)])?;
//! assert_eq!(findings[0].kind, Kind::Race);
//! assert_eq!(findings[0].line(source), 7);
//! # Ok::<(), wgsl_sanitizer::Error>(())
//! ```

mod evaluate;
mod finding;
mod layout;
mod machine;
mod memory;
mod touch;
mod value;

use std::ops::Range;

use naga::valid::{
    Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{Module, ShaderStage};

pub use finding::{Finding, Kind};

/// Why a shader was not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no valid WGSL.
    #[error("{0}")]
    Invalid(String),
    /// The module has no compute shader of this name.
    #[error("no compute shader \"{0}\"")]
    NoEntryPoint(String),
    /// A variable of the shader is bound to nothing, or past the end of a buffer.
    #[error("{what}: {why}")]
    Binding {
        /// The variable.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A loop has no end: for those within, who stop there.
    #[doc(hidden)]
    #[error("a loop without an end")]
    Endless,
    /// Something of WGSL that is not interpreted.
    #[error("not interpreted: {what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
}

impl Error {
    fn unsupported(what: String) -> Self {
        Self::Unsupported { what }
    }
}

/// A module that has been parsed and validated.
#[derive(Debug)]
pub struct Shader {
    module: Module,
    info: ModuleInfo,
}

impl Shader {
    /// Parses and validates WGSL.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the place in the text.
    pub fn new(source: &str) -> Result<Self, Error> {
        let module = naga::front::wgsl::parse_str(source);
        let module = module.map_err(|error| Error::Invalid(error.emit_to_string(source)))?;
        Self::of(module, source)
    }

    /// Validates a module.
    fn of(module: Module, source: &str) -> Result<Self, Error> {
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        validator
            .subgroup_stages(ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all());
        let info = validator.validate(&module);
        let info = info.map_err(|error| Error::Invalid(error.emit_to_string(source)))?;
        Ok(Self { module, info })
    }

    /// Names of its compute shaders.
    pub fn entry_points(&self) -> impl Iterator<Item = &str> {
        let of_compute =
            self.module.entry_points.iter().filter(|entry| entry.stage == ShaderStage::Compute);
        of_compute.map(|entry| entry.name.as_str())
    }

    /// How many barriers its text has; `workgroupUniformLoad` does not count.
    #[must_use]
    pub fn barriers(&self) -> usize {
        let mut count = 0;
        machine::for_each_barrier(&self.module, &mut |_| count += 1);
        count
    }

    /// Whether it may write what is bound here.
    #[must_use]
    pub fn writes(&self, group: u32, binding: u32) -> bool {
        self.variables(group, binding).any(machine::may_write)
    }

    /// Whether what is bound here is an array of atomic numbers.
    #[must_use]
    pub fn has_atomics(&self, group: u32, binding: u32) -> bool {
        let types = &self.module.types;
        let is_atomic = |ty: naga::Handle<naga::Type>| match types[ty].inner {
            naga::TypeInner::Array { base, .. } => {
                matches!(types[base].inner, naga::TypeInner::Atomic(_))
            }
            _ => false,
        };
        self.variables(group, binding).any(|variable| is_atomic(variable.ty))
    }

    fn variables(&self, group: u32, binding: u32) -> impl Iterator<Item = &naga::GlobalVariable> {
        let is_here =
            move |place: &naga::ResourceBinding| (place.group, place.binding) == (group, binding);
        self.module
            .global_variables
            .iter()
            .map(|(_, v)| v)
            .filter(move |v| v.binding.as_ref().is_some_and(is_here))
    }

    /// The same shader without one of its barriers, and the barrier's line in `source`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such barrier.
    pub fn without_barrier(&self, number: usize, source: &str) -> Result<(Self, u32), Error> {
        let mut module = self.module.clone();
        let span = machine::remove_barrier(&mut module, number);
        let span = span.ok_or_else(|| Error::Invalid(format!("there is no barrier {number}")))?;
        Ok((Self::of(module, source)?, span.location(source).line_number))
    }
}

/// Memory on the device.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Which bytes anybody has written.
    written: Vec<bool>,
}

impl Buffer {
    /// A buffer that holds these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { written: vec![true; bytes.len()], bytes }
    }

    /// From now on these bytes count as never written. Those past the end are nobody's.
    pub fn forget(&mut self, range: Range<usize>) {
        self.written
            .iter_mut()
            .take(range.end)
            .skip(range.start)
            .for_each(|written| *written = false);
    }

    /// Whether somebody has written all of these bytes.
    #[must_use]
    pub fn is_written(&self, range: Range<usize>) -> bool {
        self.written.get(range).is_some_and(|bytes| bytes.iter().all(|written| *written))
    }

    /// A buffer that nobody has written.
    #[must_use]
    pub fn unwritten(len: usize) -> Self {
        Self { bytes: vec![0; len], written: vec![false; len] }
    }
}

/// What a variable of the shader is bound to.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Of the variable.
    pub group: u32,
    /// Of the variable.
    pub binding: u32,
    /// Place in the list of buffers.
    pub buffer: usize,
    /// Bytes of the buffer.
    pub range: Range<usize>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Dispatch<'a> {
    shader: &'a Shader,
    entry: &'a str,
    bindings: &'a [Binding],
    grid: [u32; 3],
    subgroup_size: usize,
    clears_workgroup_memory: bool,
    most_iterations: u64,
    past_end: u32,
}

impl<'a> Dispatch<'a> {
    /// `grid` is in workgroups. Subgroups have 32 invocations, and workgroup memory holds nothing
    /// at first, as on a device that does not clear it.
    #[must_use]
    pub fn new(
        shader: &'a Shader,
        entry: &'a str,
        bindings: &'a [Binding],
        grid: [u32; 3],
    ) -> Self {
        Self {
            shader,
            entry,
            bindings,
            grid,
            subgroup_size: 32,
            clears_workgroup_memory: false,
            most_iterations: 1 << 20,
            past_end: 0,
        }
    }

    /// Invocations of a subgroup: a power of two up to 128.
    #[must_use]
    pub fn subgroup_size(self, subgroup_size: usize) -> Self {
        Self { subgroup_size, ..self }
    }

    /// Whether workgroup memory holds zeros at first, as WGSL says.
    #[must_use]
    pub fn clears_workgroup_memory(self, clears_workgroup_memory: bool) -> Self {
        Self { clears_workgroup_memory, ..self }
    }

    /// What reads past the end of a buffer give, as bits; 0 unless said otherwise. Results that do
    /// not depend on this do not need what is read there.
    #[must_use]
    pub fn past_end(self, past_end: u32) -> Self {
        Self { past_end, ..self }
    }

    /// Iterations of all loops of a workgroup together after which the one that runs counts as
    /// endless; a million unless said otherwise.
    #[must_use]
    pub fn most_iterations(self, most_iterations: u64) -> Self {
        Self { most_iterations, ..self }
    }
}

/// Runs a dispatch on these buffers, and tells what is wrong: each thing once, however often it
/// happens.
///
/// # Errors
/// [`Error`] for what cannot be run; the buffers then hold what they held.
pub fn run(dispatch: &Dispatch<'_>, buffers: &mut [Buffer]) -> Result<Vec<Finding>, Error> {
    machine::run(dispatch, buffers)
}
