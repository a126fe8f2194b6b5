//! Ctrl-C: a long run ends where it stands, and tells what there is.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::say::warn;

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// The exit status that shells give a program ended by Ctrl-C.
const STOPPED: u8 = 130;

/// From now on the first Ctrl-C asks the run to stop, and the second ends the program at once.
pub(crate) fn listen() -> anyhow::Result<()> {
    let on_ctrl_c = || {
        if IS_ASKED.swap(true, Ordering::Relaxed) {
            end_at_once();
        }
        warn(format_args!("\nstopping after what is running now; Ctrl-C again ends at once\n"));
    };
    ctrlc::set_handler(on_ctrl_c).context("cannot listen to Ctrl-C")
}

/// Whether the run is to stop.
pub(crate) fn is_asked() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}

/// The exit status: that of a stopped run where it was stopped.
pub(crate) fn status(is_success: bool) -> ExitCode {
    match (is_asked(), is_success) {
        (true, _) => ExitCode::from(STOPPED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

/// An ordinary exit would wait for the driver's threads.
#[cfg(unix)]
fn end_at_once() {
    use rustix::process::{Signal, getpid, kill_process};
    let _ = kill_process(getpid(), Signal::KILL);
}

#[cfg(not(unix))]
fn end_at_once() {
    std::process::exit(STOPPED.into());
}
