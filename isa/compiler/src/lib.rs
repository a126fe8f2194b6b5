//! What passes between `dynconv-isa` and a driver that compiles for it, in a process of its own:
//! such a driver stands for a GPU that is not there, by variables and libraries that must be in
//! place before a process starts, and may be one for another processor.
//!
//! Each message is a line of JSON: requests on standard input, then on standard output a [`Device`]
//! and a [`Reply`] for every request, each after a [`MARK`]. What else is there the driver printed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A kernel to compile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// SPIR-V for drivers that check indices into buffers themselves.
    pub unchecked: PathBuf,
    /// SPIR-V that checks them, for others.
    pub checked: PathBuf,
    /// Entry point.
    pub entry_point: String,
    /// Storage buffers, beside one uniform buffer.
    pub storage: u32,
    /// Size of subgroups, if one is asked for.
    pub subgroup: Option<u32>,
    /// Whether it needs cooperative matrices.
    pub matrices: bool,
}

/// A driver and what it stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Name of the GPU.
    pub name: String,
    /// Driver and version.
    pub driver: String,
    /// Whether the GPU has cooperative matrices.
    pub matrices: bool,
    /// Whether the driver checks indices into buffers.
    pub robust: bool,
}

/// What a driver made of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It was compiled.
    Compiled(Executable),
    /// It was not, and why.
    Refused(String),
    /// The GPU lacks the cooperative matrices that it needs.
    NoMatrices,
}

/// A compiled kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executable {
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// The compiler's statistics by name.
    pub statistics: BTreeMap<String, f64>,
    /// The instructions, as text: the driver's last form.
    pub listing: String,
}

/// What a line of standard output begins with that holds a message.
pub const MARK: &str = "dynconv: ";
