//! Known faults of drivers, as data.

use dynconv::Caps;

use crate::check::{Outcome, Verdict};

/// The lines that come with the suite.
pub const KNOWN: &str = include_str!("../expectations.txt");

/// A fault that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Part of the adapter's name.
    pub driver: String,
    /// Part of the driver's version.
    pub version: String,
    /// The law, or `*`.
    pub law: String,
    /// Words that the problem's line has.
    pub words: Vec<String>,
    /// Why it fails.
    pub reason: String,
}

/// A line that is no expectation.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: expected driver | version | law | words | reason, found \"{found}\"")]
pub struct ExpectationError {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub found: String,
}

/// The expectations of a text.
///
/// # Errors
/// [`ExpectationError`] for the first line that is none.
pub fn parse(text: &str) -> Result<Vec<Expectation>, ExpectationError> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, text)| !text.trim().is_empty() && !text.starts_with('#'));
    lines
        .map(|(line, text)| {
            let fields: Vec<&str> = text.split('|').map(str::trim).collect();
            let [driver, version, law, words, reason] = fields[..] else {
                return Err(ExpectationError { line, found: text.into() });
            };
            Ok(Expectation {
                driver: driver.into(),
                version: version.into(),
                law: law.into(),
                words: words.split_whitespace().map(Into::into).collect(),
                reason: reason.into(),
            })
        })
        .collect()
}

impl Expectation {
    fn meets(&self, caps: &Caps, outcome: &Outcome) -> bool {
        let line = outcome.spec.to_string();
        let has = |word: &String| line.split(' ').any(|found| found == word);
        caps.name.contains(&self.driver)
            && caps.driver.contains(&self.version)
            && (self.law == "*" || self.law == outcome.law.name)
            && self.words.iter().all(has)
    }
}

/// How an outcome stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// As it should be.
    Fine,
    /// Refused by the library.
    NotRun,
    /// Broken, and nobody knew.
    Broken,
    /// Broken as expected.
    Known(&'a Expectation),
    /// Expected to be broken, and is not.
    Mended(&'a Expectation),
}

/// Judges an outcome. A law that says nothing about results, as that of empty sizes, is not
/// expected to break.
#[must_use]
pub fn judge<'a>(known: &'a [Expectation], caps: &Caps, outcome: &Outcome) -> Standing<'a> {
    let expectation = known.iter().find(|expectation| expectation.meets(caps, outcome));
    match (&outcome.verdict, expectation) {
        (Verdict::Refused(_), _) => Standing::NotRun,
        (Verdict::Broken(_), None) => Standing::Broken,
        (Verdict::Broken(_), Some(expectation)) => Standing::Known(expectation),
        (Verdict::Kept, Some(expectation)) if outcome.law.name == "exact" => {
            Standing::Mended(expectation)
        }
        (Verdict::Kept, _) => Standing::Fine,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::laws::LAWS;

    fn outcome(line: &str, verdict: Verdict) -> Outcome {
        let spec = line.parse().expect("parses");
        Outcome { spec, law: &LAWS[0], kernels: Vec::new(), verdict, time: Duration::ZERO }
    }

    #[test]
    fn known_faults_are_told_from_new_ones() {
        let known = parse(
            "# comment\nllvmpipe | Mesa 22. | exact | limits=boundless \
             kernel=3 | loops end early\n",
        )
        .expect("parses");
        let caps = |driver: &str| Caps {
            name: "llvmpipe (LLVM 15)".into(),
            driver: driver.into(),
            ..Caps::webgpu_default()
        };
        let broken = || Verdict::Broken("off".into());
        let line = "static batch=1 channels=1x1 input=5 kernel=3 limits=boundless";
        assert_eq!(
            judge(&known, &caps("Mesa 22.3.6"), &outcome(line, broken())),
            Standing::Known(&known[0])
        );
        assert_eq!(
            judge(&known, &caps("Mesa 22.3.6"), &outcome(line, Verdict::Kept)),
            Standing::Mended(&known[0])
        );
        assert_eq!(judge(&known, &caps("Mesa 25.0.7"), &outcome(line, broken())), Standing::Broken);
        let other = "static batch=1 channels=1x1 input=5 kernel=3";
        assert_eq!(
            judge(&known, &caps("Mesa 22.3.6"), &outcome(other, broken())),
            Standing::Broken
        );
        assert_eq!(
            judge(&known, &caps("Mesa 22.3.6"), &outcome(other, Verdict::Kept)),
            Standing::Fine
        );
    }

    #[test]
    fn the_known_faults_can_be_read() {
        assert!(!parse(KNOWN).expect("parses").is_empty());
        let error = parse("llvmpipe | all").expect_err("is none").to_string();
        assert_eq!(
            error,
            "line 1: expected driver | version | law | words | reason, found \"llvmpipe | all\""
        );
    }
}
