//! A Vulkan layer that stands in for a driver with a fault. Mostly it changes one kernel's SPIR-V
//! on its way to the driver, as a miscompiling driver would. The correctness suite must find the
//! fault and say which kernel has it.
//!
//! With the library and a [`manifest`] of it in a folder:
//!
//! ```sh
//! VK_LAYER_PATH=FOLDER VK_INSTANCE_LAYERS=VK_LAYER_DYNCONV_fault \
//!     DYNCONV_FAULT=conv_depthwise:add dynconv check
//! ```
//!
//! `DYNCONV_FAULT` is `KERNEL:FAULT`, or `KERNEL:FAULT:PLACE` to change just one instruction,
//! numbered from 0. Kernels are known by their entry points. Faults:
//!
//! * `add`: floats are subtracted where they should be added,
//! * `compare`: `<` of unsigned numbers is taken for `<=`,
//! * `barrier`: barriers do nothing.
//!
//! Or the driver fails in another way:
//!
//! * `refuse:CALL`: there is no memory for the object whose creation has this number, counted from
//!   0; there is some again for the next one,
//! * `lose:SUBMISSION`: the device is lost at this submission,
//! * `clock:backwards`: timestamps are written in the wrong order.
//!
//! Without `DYNCONV_FAULT` the layer changes nothing. It says on stderr what it does.

#![allow(unsafe_code, reason = "Vulkan calls a layer through C pointers")]
#![warn(clippy::undocumented_unsafe_blocks)]

mod fault;
mod layer;
mod refusal;

use std::path::Path;

/// The layer's name, for `VK_INSTANCE_LAYERS`.
pub const LAYER: &str = "VK_LAYER_DYNCONV_fault";
/// The environment variable that names the fault.
pub const FAULT: &str = "DYNCONV_FAULT";
/// What every line on stderr begins with.
pub const PREFIX: &str = "fault layer: ";

/// What the Vulkan loader wants to read about the layer, in a file `*.json` in a folder of
/// `VK_LAYER_PATH`.
#[must_use]
pub fn manifest(library: &Path) -> String {
    format!(
        r#"{{
    "file_format_version": "1.1.2",
    "layer": {{
        "name": "{LAYER}",
        "type": "GLOBAL",
        "library_path": {library:?},
        "api_version": "1.3.0",
        "implementation_version": "1",
        "description": "Plants a fault in a dynconv kernel"
    }}
}}
"#
    )
}
