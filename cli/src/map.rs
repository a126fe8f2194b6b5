//! Files mapped into memory, so that a large checkpoint is not read before it is needed.

use std::path::Path;

use anyhow::{Context as _, Result};
use memmap2::Mmap;

/// Maps a file for reading.
#[expect(unsafe_code, reason = "mapping a file is unsafe whatever the code around it does")]
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    // SAFETY: the map is only read as bytes, and every value is checked after it was copied out. A
    // program that shortens the file meanwhile ends this one with a bus error, as it would any
    // reader of maps.
    unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map {}", path.display()))
}
