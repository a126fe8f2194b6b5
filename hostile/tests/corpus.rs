//! Every file of the corpus, and pieces of it: read without a panic, within the memory that is
//! promised.

use std::fs;
use std::path::Path;

use dynconv_hostile::{TARGETS, Target, prepare};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn read(target: &Target, name: &str, bytes: &[u8]) {
    prepare();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.read)(bytes);
    let held = MEMORY.peak_usage().saturating_sub(before);
    let most = target.most_memory(bytes.len());
    assert!(
        held <= most,
        "{} {name}: {held} bytes for {}, expected {most} at most",
        target.name,
        bytes.len()
    );
}

/// One test, since memory is counted for all threads together.
#[test]
fn files_are_read_whole_cut_and_spoilt() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.corpus);
        let files =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let path = file.expect("is listed").path();
            let bytes = fs::read(&path).expect("can be read");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            read(&target, &name, &bytes);
            let step = bytes.len().div_ceil(100).max(1);
            for at in (0..bytes.len()).step_by(step) {
                read(&target, &format!("{name}, {at} bytes of it"), &bytes[..at]);
                let mut spoilt = bytes.clone();
                spoilt[at] ^= 0x41;
                read(&target, &format!("{name}, byte {at} spoilt"), &spoilt);
                spoilt[at] = 0xff;
                read(&target, &format!("{name}, byte {at} 0xff"), &spoilt);
            }
            count += 1;
        }
        assert!(count >= 3, "{}: {count} files", folder.display());
    }
}
