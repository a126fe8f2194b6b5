//! What the tool prints for people. It goes to standard output, or to standard error where
//! `--json -` gives standard output to the results.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static IS_STDOUT_TAKEN: AtomicBool = AtomicBool::new(false);
static HAS_FILES: AtomicBool = AtomicBool::new(false);
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The status that shells tell of a program whose reader has closed the pipe.
const PIPE_CLOSED: i32 = 141;

/// The standard library's macro panics where the reader has closed the pipe, as `head` does; this
/// one ends in silence.
macro_rules! print {
    ($($words:tt)*) => { $crate::say::say(format_args!($($words)*)) };
}

/// As `print`, with the end of a line.
macro_rules! println {
    () => { $crate::say::say(format_args!("\n")) };
    ($($words:tt)*) => { $crate::say::say(format_args!("{}\n", format_args!($($words)*))) };
}

/// From now on standard output is for results alone. False where it was so already.
pub(crate) fn take_stdout() -> bool {
    !IS_STDOUT_TAKEN.swap(true, Ordering::Relaxed)
}

/// What a thread left behind that panicked is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on the run writes a file at its end, and goes on for it without a reader.
pub(crate) fn keep_for_files() {
    HAS_FILES.store(true, Ordering::Relaxed);
}

/// Prints for people.
pub(crate) fn say(text: Arguments<'_>) {
    if IS_CLOSED.load(Ordering::Relaxed) {
        return;
    }
    if IS_STDOUT_TAKEN.load(Ordering::Relaxed) {
        warn(text);
    } else {
        end_unless_written(io::stdout().write_fmt(text));
    }
}

/// Prints on standard error. Where that is closed, there is nobody to tell.
pub(crate) fn warn(text: Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Writes results to standard output.
pub(crate) fn write_stdout(text: &str) {
    let mut stdout = io::stdout();
    end_unless_written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Without a reader the program ends in silence, or goes on in silence if it has files to write;
/// where it cannot write for another reason it says so.
fn end_unless_written(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error)
            if error.kind() == ErrorKind::BrokenPipe && HAS_FILES.load(Ordering::Relaxed) =>
        {
            IS_CLOSED.store(true, Ordering::Relaxed);
        }
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(PIPE_CLOSED),
        Err(error) => {
            warn(format_args!("error: cannot write to standard output: {error}\n"));
            process::exit(1);
        }
    }
}
