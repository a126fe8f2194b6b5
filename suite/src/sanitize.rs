//! Problems in an interpreter that sees what a driver hides: races, accesses out of bounds, reads of memory that nothing wrote.

use std::collections::HashMap;

use dynconv::plan::ConvChoice;
use dynconv::{Caps, Context, Kernel};
use wgsl_sanitizer::{Binding, Buffer, Dispatch, Finding, Kind, Shader};

use crate::cases::needs_lanes;
use crate::recorded::{Recorded, RecordedError};
use crate::replay::{Replay, ReplayError};
use crate::spec::{Limits, Spec};
use crate::variants::{noop, with_lanes, with_matrices};

/// Why a problem was not run.
#[derive(Debug, thiserror::Error)]
pub enum SanitizeError {
    /// It cannot be planned or recorded.
    #[error(transparent)]
    Case(#[from] Box<RecordedError>),
    /// A recorded run that refers to what there is not.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A shader that the interpreter does not know all of.
    #[error("{label}: {error}")]
    Shader {
        /// The shader.
        label: String,
        /// What it does not know.
        error: wgsl_sanitizer::Error,
    },
}

/// A problem, ready to run in the interpreter.
#[derive(Debug)]
pub struct Subject {
    case: Recorded,
    shaders: Vec<Shader>,
    subgroup_size: usize,
    /// Trips of a workgroup's loops after which one counts as endless; as many as the interpreter allows if there is no number.
    most_trips: Option<u64>,
}

/// What was found, by shader, and the buffers afterwards.
type Ran = (Vec<(usize, Finding)>, Vec<Buffer>);

/// A barrier of a kernel. Its place in the kernel's own file, which comes last in a shader's text, is the same in all variants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierName {
    /// The kernel.
    pub kernel: String,
    /// Line of `shaders/<kernel>.wgsl`, from 1.
    pub line: u32,
}

/// A device on which a problem runs what a GPU runs; software adapters have kernels of their own.
pub(crate) fn device(spec: &Spec) -> Context {
    if spec.conv == ConvChoice::Matrix {
        return noop().with_caps(with_matrices(8));
    }
    if needs_lanes(spec.conv) {
        return noop().with_caps(Caps { f16: true, ..with_lanes() });
    }
    // Memory for one of two buffers, or for both.
    let max_workgroup_memory = if spec.limits == Limits::Tight { 8 << 10 } else { 16 << 10 };
    noop().with_caps(Caps { f16: true, max_workgroup_memory, ..Caps::webgpu_default() })
}

/// Trips that no workgroup of the small problems comes near: a change that makes a loop endless is found sooner.
const MOST_TRIPS: Option<u64> = Some(1 << 12);

/// What is read past the end of a buffer the second time: NaN in f32 and in both halves of a word.
const PAST_END: u32 = 0x7fff_7fff;

pub(crate) fn recorded(spec: &Spec) -> Result<Recorded, Box<RecordedError>> {
    Recorded::on(&device(spec), spec).map_err(Box::new)
}

pub(crate) fn subgroup_size(spec: &Spec) -> usize {
    device(spec).caps().subgroup_size[0].max(1) as usize
}

impl Subject {
    /// Plans and records a problem.
    ///
    /// # Errors
    /// [`SanitizeError`].
    pub fn new(spec: &Spec) -> Result<Self, SanitizeError> {
        Self::of(recorded(spec)?, subgroup_size(spec))
    }

    /// What was recorded for a device with subgroups of this many invocations.
    ///
    /// # Errors
    /// [`SanitizeError`].
    pub fn recorded(case: Recorded, subgroup_size: usize) -> Result<Self, SanitizeError> {
        case.replay.check()?;
        Self::of(case, subgroup_size)
    }

    /// A recorded run with other shader texts; nothing if `alter` changes none of them.
    pub(crate) fn altered(
        run: &Recorded,
        subgroup_size: usize,
        alter: impl Fn(&str) -> String,
    ) -> Result<Option<Self>, SanitizeError> {
        let sources: Vec<String> = run.replay.modules.iter().map(|module| alter(&module.source)).collect();
        if run.replay.modules.iter().zip(&sources).all(|(module, source)| module.source == *source) {
            return Ok(None);
        }
        let mut case = run.clone();
        case.replay.modules.iter_mut().zip(sources).for_each(|(module, source)| module.source = source);
        Ok(Some(Self { most_trips: MOST_TRIPS, ..Self::of(case, subgroup_size)? }))
    }

    fn of(case: Recorded, subgroup_size: usize) -> Result<Self, SanitizeError> {
        let shaders = case.replay.modules.iter().map(|module| {
            let named = |error| SanitizeError::Shader { label: module.label.clone(), error };
            Shader::new(&module.source).map_err(named)
        });
        Ok(Self { shaders: shaders.collect::<Result<_, _>>()?, case, subgroup_size, most_trips: None })
    }

    /// Names of the kernels that it runs.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        self.shaders.iter().filter_map(|shader| shader.entry_points().next()).collect()
    }

    /// What is wrong with its shaders or with what they compute, in words; nothing where all is well.
    ///
    /// # Errors
    /// [`SanitizeError::Shader`].
    pub fn faults(&self) -> Result<Vec<String>, SanitizeError> {
        let (found, buffers) = self.run(None, 0)?;
        let mut faults: Vec<String> = self.wrong_accesses(&found).chain(self.wrong_output(&buffers)).collect();
        faults.extend(self.what_shows(&found, &buffers)?);
        Ok(faults)
    }

    /// The first of the faults, if any: no more is run than that takes.
    ///
    /// # Errors
    /// [`SanitizeError::Shader`].
    pub fn first_fault(&self) -> Result<Option<String>, SanitizeError> {
        let (found, buffers) = self.run(None, 0)?;
        let fault = self.wrong_accesses(&found).chain(self.wrong_output(&buffers)).next();
        fault.map_or_else(|| self.what_shows(&found, &buffers), |fault| Ok(Some(fault)))
    }

    /// WebGPU lets kernels read past the end of a buffer, where nothing may come of it: that is [`Subject::what_shows`].
    fn wrong_accesses(&self, found: &[(usize, Finding)]) -> impl Iterator<Item = String> {
        let wrong = found.iter().filter(|(_, finding)| finding.kind != Kind::ReadPastEnd);
        wrong.map(|(number, finding)| {
            let module = &self.case.replay.modules[*number];
            format!("{}: {}", module.label, finding.describe(&module.source))
        })
    }

    fn wrong_output(&self, buffers: &[Buffer]) -> impl Iterator<Item = String> {
        let output = &self.case.replay.output;
        let range = bytes(output.offset, output.size);
        let wrong = self.case.first_wrong(&buffers[output.buffer].bytes[range.clone()]);
        let not_all = !buffers[output.buffer].is_written(range);
        not_all.then(|| "not all of the output was written".into()).into_iter().chain(wrong)
    }

    /// What would come of it if other numbers stood past the end of buffers, where any are read.
    fn what_shows(&self, found: &[(usize, Finding)], buffers: &[Buffer]) -> Result<Option<String>, SanitizeError> {
        if found.iter().all(|(_, finding)| finding.kind != Kind::ReadPastEnd) {
            return Ok(None);
        }
        let output = self.case.replay.output.buffer;
        let (_, otherwise) = self.run(None, PAST_END)?;
        let shows = buffers[output].bytes != otherwise[output].bytes;
        Ok(shows.then(|| "what is read past the end of a buffer shows in the output".into()))
    }

    /// Takes out one barrier after another, and tells of each whether that is found.
    ///
    /// # Errors
    /// [`SanitizeError::Shader`].
    pub fn without_barriers(&self) -> Result<HashMap<BarrierName, bool>, SanitizeError> {
        let mut told = HashMap::new();
        for (number, (shader, module)) in self.shaders.iter().zip(&self.case.replay.modules).enumerate() {
            let kernel = shader.entry_points().next().unwrap_or_default().to_owned();
            for barrier in 0..shader.barriers() {
                let named = |error| SanitizeError::Shader { label: module.label.clone(), error };
                let (blind, line) = shader.without_barrier(barrier, &module.source).map_err(named)?;
                let line = line_in_file(&kernel, &module.source, line);
                let (found, _) = self.run(Some((number, &blind)), 0)?;
                let is_found = found.iter().any(|(_, finding)| finding.kind != Kind::ReadPastEnd);
                *told.entry(BarrierName { kernel: kernel.clone(), line }).or_default() |= is_found;
            }
        }
        Ok(told)
    }

    /// Runs all dispatches, one shader perhaps replaced.
    fn run(&self, replaced: Option<(usize, &Shader)>, past_end: u32) -> Result<Ran, SanitizeError> {
        let Replay { modules, buffers, dispatches, .. } = &self.case.replay;
        let mut buffers: Vec<Buffer> = buffers.iter().map(|buffer| Buffer::new(buffer.bytes.clone())).collect();
        let mut known: Vec<Vec<bool>> = buffers.iter().map(|buffer| vec![false; buffer.bytes.len()]).collect();
        let mut found = Vec::new();
        for dispatch in dispatches {
            let number = dispatch.module;
            let shader = replaced.filter(|(at, _)| *at == number).map_or(&self.shaders[number], |(_, shader)| shader);
            let bindings: Vec<Binding> = dispatch
                .bindings
                .iter()
                .map(|b| Binding { group: 0, binding: b.binding, buffer: b.buffer, range: bytes(b.offset, b.size) })
                .collect();
            for binding in &bindings {
                // What a dispatch writes that none before it has bound holds nothing yet. Halves are written by atomic operations on words,
                // which read the other half.
                let is_written = shader.writes(binding.group, binding.binding);
                let is_half = shader.has_atomics(binding.group, binding.binding);
                for byte in binding.range.clone() {
                    if is_written && !is_half && !known[binding.buffer][byte] {
                        buffers[binding.buffer].forget(byte..byte + 1);
                    }
                    known[binding.buffer][byte] = true;
                }
            }
            let entry = shader.entry_points().next().unwrap_or_default();
            let run = Dispatch::new(shader, entry, &bindings, dispatch.grid);
            let run = run.subgroup_size(self.subgroup_size).past_end(past_end);
            let run = self.most_trips.map_or(run.clone(), |trips| run.most_trips(trips));
            let findings = wgsl_sanitizer::run(&run, &mut buffers);
            let named = |error| SanitizeError::Shader { label: modules[number].label.clone(), error };
            found.extend(findings.map_err(named)?.into_iter().map(|finding| (number, finding)));
        }
        Ok((found, buffers))
    }
}

fn bytes(offset: u64, size: u64) -> std::ops::Range<usize> {
    let [first, last] = [offset, offset + size].map(|byte| usize::try_from(byte).unwrap_or(usize::MAX));
    first..last
}

/// A line of a shader's text as a line of the kernel's file, with which the text ends.
fn line_in_file(kernel: &str, source: &str, line: u32) -> u32 {
    let file = Kernel::ALL.into_iter().find(|one| one.name() == kernel).and_then(|one| one.def().parts.last().copied());
    let lines = |text: &str| u32::try_from(text.trim_end().lines().count()).unwrap_or(u32::MAX);
    let before = lines(source).saturating_sub(file.map_or(0, |(_, text)| lines(text)));
    line.saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalogue;

    #[test]
    fn the_problems_reach_every_kernel() {
        let problems = catalogue::sanitized().expect("parses");
        let subjects: Result<Vec<_>, _> = problems.iter().map(Subject::new).collect();
        let subjects = subjects.expect("all can be recorded");
        let reached: HashSet<&str> = subjects.iter().flat_map(Subject::kernels).collect();
        let missing: Vec<_> =
            Kernel::ALL.map(Kernel::name).into_iter().filter(|name| !reached.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// The faults of a kernel with one change, on the problem for it.
    fn faults(problem: &str, from: &str, to: &str) -> Vec<String> {
        let spec: Spec = problem.parse().expect("parses");
        let run = recorded(&spec).expect("can be recorded");
        let subject = Subject::altered(&run, 32, |source| source.replacen(from, to, 1)).expect("compiles");
        subject.expect("is in the text").faults().expect("runs")
    }

    const DIRECT: &str = "static batch=2 channels=3x5 input=5x6 kernel=3x3 padding=1x1 conv=direct with=bias";

    #[test]
    fn a_read_past_the_end_that_shows_is_found() {
        let found =
            faults(DIRECT, "let value = x_value(params.x_base + ", "let value = x_value(9999u + params.x_base + ");
        assert!(found.iter().any(|fault| fault.contains("shows in the output")), "{found:?}");
        // An even half of a word, too.
        for elems in ["f16,f16,f32", "f16_storage,f16_storage,f32"] {
            let problem = format!("{DIRECT} elems={elems}");
            let found = faults(&problem, "let value = x_value(params.x_base + ", "let value = x_value(99998u + ");
            assert!(found.iter().any(|fault| fault.contains("shows in the output")), "{elems}: {found:?}");
        }
    }

    #[test]
    fn an_output_that_is_not_written_is_found() {
        let found =
            faults(DIRECT, "    y_store(y_element(", "    if position == 0u { return; }\n    y_store(y_element(");
        assert!(found.iter().any(|fault| fault.contains("not all of the output was written")), "{found:?}");
    }

    #[test]
    fn stores_of_others_are_found() {
        let found = faults(DIRECT, "return params.y_base + element(", "return params.y_base + 0u * element(");
        assert!(found.iter().any(|fault| fault.contains("data race")), "{found:?}");
        let found = faults(DIRECT, "return params.y_base + element(", "return 9999u + element(");
        assert!(found.iter().any(|fault| fault.contains("access out of bounds")), "{found:?}");
    }

    #[test]
    fn sums_of_what_nothing_wrote_are_found() {
        let found = faults(DIRECT, "var value = sum;", "var value = sum + y_value(params.y_base + place);");
        assert!(found.iter().any(|fault| fault.contains("memory that nothing has written")), "{found:?}");
    }
}
