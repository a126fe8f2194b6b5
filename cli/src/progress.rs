//! How far a long run has come: a bar on a terminal, elsewhere a line now and then.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::say::{self, warn};

/// Where standard error is no terminal, a run that lasts less says nothing.
const FIRST: Duration = Duration::from_secs(1);
/// The time between two lines.
const BETWEEN: Duration = Duration::from_secs(10);

/// Progress on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// When the next line is due; none where there is a bar.
    due: Option<Mutex<Duration>>,
}

impl Progress {
    /// Of so many `what`; of as many as there will be where there is no number.
    pub(crate) fn new(len: Option<usize>, what: &'static str) -> Self {
        let bar = len.map_or_else(ProgressBar::no_length, |len| ProgressBar::new(len as u64));
        let template = match len {
            Some(_) => format!("{{bar:30}} {{pos}}/{{len}} {what}, {{elapsed}} {{msg}}"),
            None => "{spinner} {elapsed} {msg}".into(),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let is_plain = !io::stderr().is_terminal();
        if !is_plain {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, what, due: is_plain.then(|| Mutex::new(FIRST)) }
    }

    /// So many more are done.
    pub(crate) fn inc(&self, count: usize) {
        self.bar.inc(count as u64);
        self.look();
    }

    /// What is being done.
    pub(crate) fn set_message(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
        self.look();
    }

    /// Prints with the bar out of the way.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line if it is time for one.
    pub(crate) fn look(&self) {
        let Some(due) = &self.due else { return };
        let mut due = say::lock(due);
        let elapsed = self.bar.elapsed();
        if elapsed < *due {
            return;
        }
        *due = elapsed + BETWEEN;
        warn(format_args!("{}\n", self.line(elapsed)));
    }

    fn line(&self, elapsed: Duration) -> String {
        let message = self.bar.message();
        let seconds = elapsed.as_secs();
        match self.bar.length() {
            Some(len) => {
                let separator = if message.is_empty() { "" } else { ": " };
                format!(
                    "{} of {len} {}, {seconds} s{separator}{message}",
                    self.bar.position(),
                    self.what
                )
            }
            None => format!("{message}, {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_the_run_has_come() {
        let some = Progress::new(Some(9), "problems");
        some.inc(4);
        assert_eq!(some.line(Duration::from_millis(2500)), "4 of 9 problems, 2 s");
        some.set_message("a");
        assert_eq!(some.line(Duration::ZERO), "4 of 9 problems, 0 s: a");
        let any = Progress::new(None, "problems");
        any.set_message("3 problems, 0 failures");
        assert_eq!(any.line(Duration::from_secs(61)), "3 problems, 0 failures, 61 s");
    }
}
