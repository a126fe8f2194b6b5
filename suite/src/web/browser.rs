//! Starting and ending browsers.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::WebError;

/// What runs the page.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Browser {
    /// Chromium, or a browser made of it: this program.
    Chromium(PathBuf),
    /// Node with the npm package `webgpu` (Dawn), installed in this folder.
    Dawn(PathBuf),
}

/// What to do where there is no Chromium.
const GET_CHROMIUM: &str = "\
    install Chromium (the package chromium of Debian, Fedora, Arch and Alpine) or name one with \
    --program";
/// What to do where there is no Dawn.
const GET_DAWN: &str =
    "install node and run `npm install webgpu` in a folder, and name that with --program";

/// Programs to look for.
const CHROMIUMS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Without them Chromium takes no software adapter (the first two), asks questions, or looks for
/// updates.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--enable-unsafe-webgpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    // The small /dev/shm of containers is not enough.
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

const DAWN: &str = include_str!("../../web/dawn.mjs");

/// Time to end by itself.
const GRACE: Duration = Duration::from_secs(5);

impl Browser {
    /// Chromium: `program`, or what the search path has.
    ///
    /// # Errors
    /// [`WebError::NotFound`].
    pub fn chromium(program: Option<&Path>) -> Result<Self, WebError> {
        let not_found = |what: String| WebError::NotFound { what, remedy: GET_CHROMIUM };
        match program {
            Some(program) if program.is_file() => Ok(Self::Chromium(program.into())),
            Some(program) => Err(not_found(program.display().to_string())),
            None => {
                let found = CHROMIUMS.iter().find_map(|name| on_path(name));
                found.map(Self::Chromium).ok_or_else(|| not_found("Chromium".into()))
            }
        }
    }

    /// Dawn from the npm package `webgpu` installed in `folder`.
    ///
    /// # Errors
    /// [`WebError::NotFound`].
    pub fn dawn(folder: Option<&Path>) -> Result<Self, WebError> {
        let not_found = |what: String| WebError::NotFound { what, remedy: GET_DAWN };
        let folder = folder.ok_or_else(|| not_found("the npm package webgpu".into()))?;
        if !folder.join("node_modules/webgpu/package.json").is_file() {
            return Err(not_found(format!("{}/node_modules/webgpu", folder.display())));
        }
        if on_path("node").is_none() {
            return Err(not_found("node".into()));
        }
        Ok(Self::Dawn(folder.into()))
    }

    /// Starts it on the page of the server at `address`.
    pub(super) fn start(&self, address: &str) -> Result<Process, WebError> {
        let folder = tempfile::Builder::new()
            .prefix("dynconv-web-")
            .tempdir()
            .map_err(io("a temporary folder"))?;
        let mut command = match self {
            Self::Chromium(program) => chromium(program, folder.path(), address),
            Self::Dawn(packages) => {
                let mut node = Command::new("node");
                node.args(["--input-type=module", "--eval", DAWN, "--", address])
                    .current_dir(packages);
                node
            }
        };
        let stderr = File::create(folder.path().join(STDERR)).map_err(io("a temporary file"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| WebError::Start { program, error })?;
        Ok(Process { child, folder: Some(folder) })
    }
}

fn chromium(program: &Path, folder: &Path, address: &str) -> Command {
    let mut command = Command::new(program);
    command.args(FLAGS).arg(format!("--user-data-dir={}", folder.join("profile").display()));
    if is_root() {
        // Chromium refuses to start as root with its sandbox.
        command.arg("--no-sandbox");
    }
    command.arg(format!("{address}/"));
    command
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Where a program is, if it is on the search path.
fn on_path(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(&name))
        .find(|program| program.is_file())
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> WebError {
    move |error| WebError::Io { what, error }
}

const STDERR: &str = "stderr";

/// A browser at work. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Its profile and its error output; `None` once it has been removed.
    folder: Option<TempDir>,
}

impl Process {
    /// How it ended and the last lines that it wrote, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<(ExitStatus, String)>, WebError> {
        let status = self.child.try_wait().map_err(io("waiting for the browser"))?;
        Ok(status.map(|status| (status, self.last_lines())))
    }

    fn last_lines(&self) -> String {
        let file = self.folder.as_ref().map(|folder| folder.path().join(STDERR));
        // Not everything that browsers write is UTF-8.
        let bytes = file.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.as_slice() {
            [] => "it wrote no error".into(),
            lines => lines[lines.len().saturating_sub(3)..].join(" | "),
        }
    }

    /// Ends it and its helpers, and removes its files.
    pub(super) fn stop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        self.signal(false);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(true);
        // Failures here concern a process that is gone already, or files in a folder for temporary
        // ones.
        drop(self.child.wait());
        drop(folder.close());
    }

    /// Asks it to end, or makes it.
    #[cfg(unix)]
    fn signal(&mut self, force: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        if matches!(self.child.try_wait(), Ok(None)) {
            let signal = if force { Signal::KILL } else { Signal::TERM };
            // Its helpers end when they lose it. If it has just ended itself, that is what was
            // wanted.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, force: bool) {
        if force {
            drop(self.child.kill());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_a_remedy() {
        let error =
            Browser::chromium(Some(Path::new("/no/such/browser"))).expect_err("absent").to_string();
        assert!(error.starts_with("/no/such/browser not found; install Chromium"), "{error}");
        let error =
            Browser::dawn(Some(Path::new("/no/such/folder"))).expect_err("absent").to_string();
        assert!(error.contains("npm install webgpu"), "{error}");
        assert!(Browser::dawn(None).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_ends_early_is_noticed_and_leaves_nothing() {
        let mut process =
            Browser::Chromium("/bin/false".into()).start("http://127.0.0.1:1").expect("starts");
        let folder = process.folder.as_ref().expect("has one").path().to_owned();
        let start = Instant::now();
        let (status, _) = loop {
            if let Some(ended) = process.ended().expect("can be asked") {
                break ended;
            }
            assert!(start.elapsed() < GRACE, "still there");
        };
        assert!(!status.success());
        process.stop();
        assert!(!folder.exists());
    }
}
