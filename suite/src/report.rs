//! What a driver's developer needs of a failure, in one file: the device, and each broken problem
//! as plain data that any implementation of WebGPU can run, with what it must give.

use std::collections::BTreeMap;

use dynconv::{Caps, Context};
use serde::{Deserialize, Serialize};

use crate::check::{Outcome, Verdict};
use crate::data::{Data, Numbers};
use crate::recorded::Recorded;
use crate::spec::Spec;
use crate::variants::noop_like;

/// The form of the file; another one gets another number.
pub const VERSION: u32 = 1;

/// What a report says of itself.
const ABOUT: &str = "\
    Compute shaders whose results are wrong on a device, each as plain data: make the buffers, do \
    the dispatches in order with all bindings in group 0 and workgroup memory not cleared, and \
    compare the output with what is expected, within the tolerance, or to the bit where that is 0. \
    Bytes are in base64: buffers as they lie in memory, expected and tolerance as little-endian \
    float64. `dynconv replay FILE` does it on an adapter or in an interpreter, `dynconv web \
    --replay FILE` in a browser.";

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What this is and how to use it.
    #[serde(default)]
    pub about: String,
    /// [`VERSION`].
    pub version: u32,
    /// Version of the library.
    pub dynconv: String,
    /// Operating system and processor.
    pub system: String,
    /// The device.
    pub device: Device,
    /// The broken problems.
    pub problems: Vec<Broken>,
}

/// A device, in its driver's words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Adapter.
    pub name: String,
    /// Driver and its version.
    pub driver: String,
    /// Backend of wgpu.
    pub backend: String,
    /// PCI ids of vendor and device, 0 where there are none.
    pub ids: [u32; 2],
    /// Features that it was opened with.
    pub features: Vec<String>,
    /// Limits that the library keeps to, in bytes where they are of memory.
    pub limits: BTreeMap<String, u64>,
}

/// A problem that is broken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broken {
    /// The problem, as `dynconv check --case` takes it.
    pub problem: String,
    /// Kernels that it runs.
    pub kernels: Vec<String>,
    /// The laws that it breaks.
    pub laws: Vec<BrokenLaw>,
    /// One run of it; none for a problem beyond [`MOST_RECORDED`], or one that cannot be recorded.
    pub run: Option<Recorded>,
    /// What is wrong with that run on this device, or what became of it; nothing if it is right,
    /// and only the laws show the fault.
    pub found: Option<String>,
}

/// A law that is broken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokenLaw {
    /// Its name.
    pub law: String,
    /// What it says.
    pub says: String,
    /// What was found.
    pub found: String,
}

/// Problems whose runs are recorded, at most: the smallest ones.
pub const MOST_RECORDED: usize = 8;

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It is no JSON of this form.
    #[error("no report of `dynconv check --report`: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another version.
    #[error("a report of version {found}, expected version {VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
}

impl Device {
    /// Invocations of its smallest subgroup; those of an interpreter, where the report has none or
    /// none that can be.
    #[must_use]
    pub fn subgroup_size(&self) -> usize {
        let size =
            self.limits.get("smallest subgroup").and_then(|&size| usize::try_from(size).ok());
        size.filter(|size| size.is_power_of_two() && *size <= 128).unwrap_or(32)
    }

    fn of(context: &Context) -> Self {
        let info = context.device().adapter_info();
        let caps = context.caps();
        Self {
            name: caps.name.clone(),
            driver: caps.driver.clone(),
            backend: format!("{:?}", caps.backend),
            ids: [info.vendor, info.device],
            features: context
                .device()
                .features()
                .iter_names()
                .map(|(name, _)| name.to_owned())
                .collect(),
            limits: limits(caps).map(|(name, limit)| (name.to_owned(), limit)).into(),
        }
    }
}

fn limits(caps: &Caps) -> [(&'static str, u64); 11] {
    [
        ("storage binding", caps.max_storage_binding),
        ("buffer", caps.max_buffer),
        ("storage buffers a shader", caps.max_storage_buffers.into()),
        ("storage alignment", caps.storage_alignment.into()),
        ("workgroups a dimension", caps.max_workgroups.into()),
        ("invocations a workgroup", caps.max_invocations.into()),
        ("workgroup size", caps.max_workgroup_size.into()),
        ("workgroup memory", caps.max_workgroup_memory.into()),
        ("loop iterations", caps.max_loop_iterations.into()),
        ("smallest subgroup", caps.subgroup_size[0].into()),
        ("largest subgroup", caps.subgroup_size[1].into()),
    ]
}

/// Numbers that a problem is given; none if they cannot be drawn.
fn size(spec: &Spec) -> usize {
    Data::new(spec, Numbers::Integers)
        .map_or(0, |data| data.x.len() + data.given.len() + data.bank.len())
}

impl Report {
    /// Of what was checked on a device; the broken problems are run there once more.
    #[must_use]
    pub fn new(context: &Context, outcomes: &[&Outcome]) -> Self {
        let mut problems: Vec<(Spec, Broken)> = Vec::new();
        for outcome in outcomes {
            let Verdict::Broken(found) = &outcome.verdict else { continue };
            let law = BrokenLaw {
                law: outcome.law.name.to_owned(),
                says: outcome.law.says.to_owned(),
                found: found.clone(),
            };
            match problems.iter_mut().find(|(spec, _)| *spec == outcome.spec) {
                Some((_, broken)) => broken.laws.push(law),
                None => {
                    let kernels = outcome.kernels.iter().map(|&name| name.to_owned()).collect();
                    let problem = outcome.spec.to_string();
                    let broken =
                        Broken { problem, kernels, laws: vec![law], run: None, found: None };
                    problems.push((outcome.spec.clone(), broken));
                }
            }
        }
        problems.sort_by_cached_key(|(spec, _)| size(spec));
        for (spec, broken) in problems.iter_mut().take(MOST_RECORDED) {
            (broken.run, broken.found) = recorded(context, spec);
        }
        Self {
            about: ABOUT.to_owned(),
            version: VERSION,
            dynconv: env!("CARGO_PKG_VERSION").to_owned(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            device: Device::of(context),
            problems: problems.into_iter().map(|(_, broken)| broken).collect(),
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version: found } = serde_json::from_str(text)?;
        if found != VERSION {
            return Err(ReportError::Version { found });
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// A run of a problem that is wrong on this device, if there is one: on integers or fractions, or
/// with a NaN in the input. Otherwise the first.
fn recorded(context: &Context, spec: &Spec) -> (Option<Recorded>, Option<String>) {
    let planned = noop_like(context);
    let mut first = None;
    let plain = [Recorded::on, Recorded::with_fractions]
        .into_iter()
        .filter_map(|record| record(&planned, spec).ok());
    for recorded in plain.chain(Recorded::with_nan(&planned, spec).ok().flatten()) {
        match recorded.run(context) {
            Ok(None) => drop(first.get_or_insert(recorded)),
            Ok(Some(wrong)) => return (Some(recorded), Some(wrong)),
            Err(error) => return (Some(recorded), Some(error.to_string())),
        }
    }
    (first, None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::kernels;
    use crate::laws::LAWS;
    use crate::variants::noop;

    fn outcome(spec: &str, law: usize, verdict: Verdict) -> Outcome {
        let spec: Spec = spec.parse().expect("parses");
        Outcome {
            kernels: kernels(&noop(), &spec),
            spec,
            law: &LAWS[law],
            verdict,
            time: Duration::ZERO,
        }
    }

    const SMALL: &str = "static batch=1 channels=2x3 input=5 kernel=3 conv=direct";
    const LARGE: &str = "bank batch=2 channels=2x3 input=9 kernel=3 kernels=2 conv=direct";

    #[test]
    fn a_report_has_each_broken_problem_once_with_a_run_that_is_wrong() {
        let broken = || Verdict::Broken("it".into());
        let all = [
            outcome(LARGE, 0, broken()),
            outcome(SMALL, 0, broken()),
            outcome(LARGE, 1, broken()),
            outcome(SMALL, 4, Verdict::Kept),
        ];
        // A device that computes nothing gets everything wrong.
        let report = Report::new(&noop(), &all.iter().collect::<Vec<_>>());
        let laws =
            |broken: &Broken| broken.laws.iter().map(|law| law.law.clone()).collect::<Vec<_>>();
        assert_eq!(
            report.problems.iter().map(laws).collect::<Vec<_>>(),
            [vec!["exact"], vec!["exact", "bound"]]
        );
        assert!(
            report.problems.iter().all(|broken| broken.run.is_some() && broken.found.is_some())
        );

        let text = serde_json::to_string(&report).expect("is JSON");
        let again = Report::parse(&text).expect("is a report");
        assert_eq!(serde_json::to_string(&again).expect("is JSON"), text);
        assert_eq!(again.device.subgroup_size(), 4);
        let run = again.problems[0].run.as_ref().expect("is recorded");
        let same = report.problems[0].run.as_ref().expect("is recorded");
        assert_eq!((&run.replay, &run.expected), (&same.replay, &same.expected));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let error = |text: &str| Report::parse(text).expect_err("is none").to_string();
        assert!(error("").starts_with("no report of `dynconv check --report`: "));
        assert!(error("{\"checks\": []}").contains("missing field `version`"));
        assert_eq!(error("{\"version\": 7}"), "a report of version 7, expected version 1");
        assert!(error("{\"version\": 1}").contains("missing field"));
    }
}
