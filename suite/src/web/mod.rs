//! A second implementation of WGSL and WebGPU: Tint and Dawn, in Chromium or in node, compile the
//! shaders and replay recorded runs.
//!
//! The page (`suite/web`) gets shaders and runs from a server on this machine, and posts back what
//! the compiler said and what came out. It judges nothing: expected values stay here.

mod browser;
mod cases;
mod ledger;
mod server;

use std::time::Duration;

pub use browser::Browser;
pub use cases::{all_cases, all_modules};
pub use ledger::{Adapter, Failure, Summary};

use serde::Serialize;

use crate::recorded::Recorded;
use crate::replay::Module;

/// A shader to compile.
#[derive(Clone, Debug, Serialize)]
pub struct WebModule {
    /// The shader. Tint reads and checks all of them.
    #[serde(flatten)]
    pub module: Module,
    /// Whether a pipeline is made too, which takes the shader through Tint's back end and the
    /// driver. Software drivers take half a second for one.
    pub has_pipeline: bool,
}

/// What kept the browser from finishing its work. Wrong results are no error but in the
/// [`Summary`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The browser is not there.
    #[error("{what} not found; {remedy}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// What to install.
        remedy: &'static str,
    },
    /// The browser could not be started.
    #[error("cannot start {program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file or process of the run cannot be handled.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// No local server.
    #[error("cannot serve on 127.0.0.1: {0}")]
    Serve(String),
    /// The browser ended before its work did.
    #[error("the browser ended ({status}) after \"{last}\"; {stderr}")]
    Ended {
        /// How.
        status: std::process::ExitStatus,
        /// What it last reported.
        last: String,
        /// The end of what it wrote to its error output.
        stderr: String,
    },
    /// The browser has reported nothing for too long.
    #[error("no word from the browser for {} s after \"{last}\"", .silence.as_secs())]
    Silent {
        /// How long.
        silence: Duration,
        /// What it last reported.
        last: String,
    },
    /// The page gave up.
    #[error("the page failed after \"{last}\": {message}")]
    Page {
        /// What it last reported.
        last: String,
        /// Why.
        message: String,
    },
    /// The page sent what is no report.
    #[error("not a report: {0}")]
    Report(#[from] serde_json::Error),
    /// A planted fault was not found, so that nothing else that was not found counts.
    #[error("the planted fault \"{0}\" was not reported")]
    Blind(String),
}

/// Compiles `modules` and runs `cases` in a browser; `silence` is how long it may take from one
/// report to the next, and `progress` hears what it is at.
///
/// # Errors
/// [`WebError`] if the browser cannot be had or does not finish.
pub fn run(
    browser: &Browser,
    modules: &[WebModule],
    cases: &[Recorded],
    silence: Duration,
    progress: &mut dyn FnMut(&str),
) -> Result<Summary, WebError> {
    let server = server::Server::new(modules, cases)?;
    let mut process = browser.start(&server.address())?;
    let outcome = server.serve(&mut process, silence, progress);
    process.stop();
    outcome
}

/// Plants faults that `browser` must report: a shader that is no WGSL, one that draws a warning,
/// and a run whose result is wrong.
///
/// # Errors
/// [`WebError::Blind`] for a fault that it does not report; as [`run`].
pub fn check_sight(browser: &Browser, case: &Recorded, silence: Duration) -> Result<(), WebError> {
    let module = |label: &str, body: &str| {
        let source = format!("@compute @workgroup_size(1) fn main() {{ {body} }}");
        WebModule { module: Module { label: label.into(), source }, has_pipeline: true }
    };
    let modules =
        [module("a type error", "let a: u32 = 1.5;"), module("a warning", "return; let a = 1u;")];
    let mut wrong = Recorded { name: "a wrong element".into(), ..case.clone() };
    if let Some(last) = wrong.expected.last_mut() {
        *last += 1.0;
    }
    let wrong = [wrong];
    let summary = run(browser, &modules, &wrong, silence, &mut |_| {})?;
    let planted = modules
        .iter()
        .map(|shader| &shader.module.label)
        .chain(wrong.iter().map(|case| &case.name));
    match planted
        .into_iter()
        .find(|name| !summary.failures.iter().any(|failure| failure.name == **name))
    {
        None => Ok(()),
        Some(name) => Err(WebError::Blind(name.clone())),
    }
}
