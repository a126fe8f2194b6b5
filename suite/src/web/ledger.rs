//! What the page reports, and whether it is right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::WebModule;
use crate::recorded::Recorded;
use crate::replay::{Module, in_base64};

/// One post of the page. Places are those in what it was given.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Report {
    Adapter(Adapter),
    Progress {
        message: String,
    },
    /// A module, with all that the compiler said.
    Compiled {
        index: usize,
        messages: Vec<String>,
    },
    /// A module for which the device lacks a feature.
    Skipped {
        index: usize,
    },
    /// A case, with all that went wrong before there were values.
    Output {
        index: usize,
        messages: Vec<String>,
        #[serde(with = "in_base64")]
        bytes: Vec<u8>,
    },
    /// A case for which the device lacks a feature.
    PassedOver {
        index: usize,
    },
    Failed {
        message: String,
    },
    Done {
        compile_ms: f64,
        run_ms: f64,
    },
}

/// The browser and its adapter, in its own words.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Adapter {
    /// The user agent, or the version of Dawn.
    pub agent: String,
    /// Vendor.
    pub vendor: String,
    /// Family of the GPU.
    pub architecture: String,
    /// Device; empty where the browser hides it.
    pub device: String,
    /// Driver or device in prose; empty where the browser hides it.
    pub description: String,
    /// Whether the browser calls it a fallback, which is a software adapter.
    pub is_fallback: bool,
    /// Whether shaders may compute in f16.
    pub f16: bool,
}

/// A module that did not compile without a word, or a case whose result is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The module's label or the case's name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// What a browser made of its work.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Who did it.
    pub adapter: Adapter,
    /// Modules compiled without a word.
    pub compiled: usize,
    /// Of these, modules that became pipelines too.
    pub pipelines: usize,
    /// Messages of the compiler, warnings and remarks among them.
    pub messages: usize,
    /// Modules for which the device lacks a feature.
    pub modules_not_run: usize,
    /// Cases run.
    pub executed: usize,
    /// Cases whose result is right.
    pub right: usize,
    /// Cases for which the device lacks a feature.
    pub cases_not_run: usize,
    /// Everything that is wrong; any message of the compiler is.
    pub failures: Vec<Failure>,
    /// Time to compile all modules, in milliseconds.
    pub compile_ms: f64,
    /// Time to run all cases, in milliseconds.
    pub run_ms: f64,
}

/// What has been reported so far.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    modules: &'a [WebModule],
    cases: &'a [Recorded],
    adapter: Adapter,
    /// What the compiler said of each module; `None` if it was not run.
    compiled: BTreeMap<usize, Option<Vec<String>>>,
    /// What is wrong with each case; `None` if it was not run.
    outputs: BTreeMap<usize, Option<Vec<String>>>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(modules: &'a [WebModule], cases: &'a [Recorded]) -> Self {
        Self {
            modules,
            cases,
            adapter: Adapter::default(),
            compiled: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    pub(super) fn set_adapter(&mut self, adapter: Adapter) {
        self.adapter = adapter;
    }

    pub(super) fn set_module(&mut self, index: usize, messages: Option<Vec<String>>) {
        self.compiled.insert(index, messages);
    }

    pub(super) fn set_case(&mut self, index: usize, output: Option<(Vec<String>, Vec<u8>)>) {
        let wrongs = output.map(|(mut wrongs, bytes)| {
            // Without values the messages say it all.
            if wrongs.is_empty()
                && let Some(case) = self.cases.get(index)
            {
                wrongs.extend(case.first_wrong(&bytes));
            }
            wrongs
        });
        self.outputs.insert(index, wrongs);
    }

    /// The sum, once the page has done all. What it has left out is wrong too.
    pub(super) fn finish(&self, [compile_ms, run_ms]: [f64; 2]) -> Summary {
        let adapter = self.adapter.clone();
        let mut summary = Summary { adapter, compile_ms, run_ms, ..Summary::default() };
        let mut failures = Vec::new();
        let mut fail =
            |name: &str, reason: String| failures.push(Failure { name: name.to_owned(), reason });
        for (index, WebModule { module: Module { label, .. }, has_pipeline }) in
            self.modules.iter().enumerate()
        {
            match self.compiled.get(&index) {
                None => fail(label, "was not compiled".into()),
                Some(None) => summary.modules_not_run += 1,
                Some(Some(messages)) => {
                    summary.compiled += usize::from(messages.is_empty());
                    summary.pipelines += usize::from(messages.is_empty() && *has_pipeline);
                    summary.messages += messages.len();
                    messages.iter().for_each(|message| fail(label, message.clone()));
                }
            }
        }
        for (index, Recorded { name, .. }) in self.cases.iter().enumerate() {
            match self.outputs.get(&index) {
                None => fail(name, "was not run".into()),
                Some(None) => summary.cases_not_run += 1,
                Some(Some(wrongs)) => {
                    summary.executed += 1;
                    summary.right += usize::from(wrongs.is_empty());
                    wrongs.iter().for_each(|wrong| fail(name, wrong.clone()));
                }
            }
        }
        summary.failures = failures;
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::tests::{case, words};

    #[test]
    fn everything_is_counted_and_nothing_is_forgotten() {
        let modules = ["good", "warned", "f16", "lost"].map(|label| {
            let module = Module { label: label.into(), source: String::new() };
            WebModule { module, has_pipeline: label == "good" }
        });
        let names = ["right", "wrong", "refused", "f16", "lost"];
        let cases =
            names.map(|name| Recorded { name: name.into(), ..case(&[1.0, 0.0], &[0.0; 2], false) });
        let mut ledger = Ledger::new(&modules, &cases);
        ledger.set_module(0, Some(vec![]));
        ledger.set_module(1, Some(vec!["warning in line 3: unreachable".into()]));
        ledger.set_module(2, None);
        ledger.set_case(0, Some((vec![], words([1.0, 0.0]))));
        ledger.set_case(1, Some((vec![], words([1.0, 3.0]))));
        ledger.set_case(2, Some((vec!["invalid bind group".into()], vec![])));
        ledger.set_case(3, None);
        let summary = ledger.finish([1.0, 2.0]);
        assert_eq!(
            [summary.compiled, summary.pipelines, summary.messages, summary.modules_not_run],
            [1, 1, 1, 1]
        );
        assert_eq!([summary.executed, summary.right, summary.cases_not_run], [3, 1, 1]);
        let failures: Vec<_> =
            summary.failures.iter().map(|f| (f.name.as_str(), f.reason.as_str())).collect();
        let expected = [
            ("warned", "warning in line 3: unreachable"),
            ("lost", "was not compiled"),
            ("wrong", "element 1 of 2 is 3, expected 0 within 0e0"),
            ("refused", "invalid bind group"),
            ("lost", "was not run"),
        ];
        assert_eq!(failures, expected);
    }

    #[test]
    fn reports_are_read_as_the_page_writes_them() {
        let read = |text: &str| serde_json::from_str::<Report>(text);
        let output = read(r#"{"kind":"output","index":3,"messages":[],"bytes":"AACAPw=="}"#);
        assert!(matches!(
            output,
            Ok(Report::Output { index: 3, bytes, .. }) if bytes == 1.0_f32.to_le_bytes()
        ));
        assert!(matches!(
            read(r#"{"kind":"passed_over","index":1}"#),
            Ok(Report::PassedOver { index: 1 })
        ));
        assert!(read(r#"{"kind":"greeting"}"#).is_err());
    }
}
