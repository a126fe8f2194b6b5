//! What all targets do with their bytes.

use dynconv_hostile::{TARGETS, prepare};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Has a target read the bytes, within the memory that is promised.
pub fn read(name: &str, bytes: &[u8]) {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        panic!("no target {name}")
    };
    prepare();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.read)(bytes);
    let held = MEMORY.peak_usage().saturating_sub(before);
    assert!(held <= target.most_memory(bytes.len()), "{held} bytes of memory for {}", bytes.len());
}
