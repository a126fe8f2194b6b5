//! Problems in an interpreter that sees what a driver hides: races, accesses out of bounds, reads
//! of memory that nothing wrote.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use dynconv::Algorithm;
use dynconv::kernels::shader_files;
use dynconv::{Caps, Context};
use wgsl_sanitizer::{Binding, Buffer, Dispatch, Finding, Kind, Shader};

use crate::cases::needs_lanes;
use crate::recorded::{Recorded, RecordedError};
use crate::replay::{Module, Replay, ReplayError};
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
    /// A run that is at fault though no shader has been changed.
    #[error("{name}: {fault}")]
    Wrong {
        /// The run.
        name: String,
        /// What is wrong.
        fault: String,
    },
}

/// A problem, ready to run in the interpreter.
#[derive(Debug)]
pub struct Subject {
    case: Recorded,
    shaders: Vec<Shader>,
    subgroup_size: usize,
}

/// What was found, by shader.
type Found = Vec<(usize, Finding)>;

/// Memory between two dispatches.
#[derive(Clone, Debug)]
struct Memory {
    buffers: Vec<Buffer>,
    /// Bytes that a dispatch has bound.
    bound: Vec<Vec<bool>>,
}

impl Memory {
    fn is_same(&self, other: &Self) -> bool {
        self.buffers.iter().zip(&other.buffers).all(|(own, other)| own.bytes == other.bytes)
    }
}

/// Shaders in place of others, by module, and their texts.
type Replaced = BTreeMap<usize, (Shader, String)>;

/// A barrier of a kernel. Its place in the kernel's own file, which comes last in a shader's text,
/// is the same in all variants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BarrierName {
    /// The kernel.
    pub kernel: String,
    /// Line of `shaders/<kernel>.wgsl`, from 1.
    pub line: u32,
}

/// A device on which a problem runs what a GPU runs; software adapters have kernels of their own.
pub(crate) fn device(spec: &Spec) -> Context {
    if spec.conv == Algorithm::ConvGemmCoopmat {
        return noop().with_caps(with_matrices(8));
    }
    // Strips load several elements at once where they can.
    if needs_lanes(spec.conv) || spec.conv == Algorithm::ConvDepthwiseStrip {
        return noop().with_caps(Caps { f16: true, ..with_lanes() });
    }
    // Only software adapters bound loops; this one has no lanes.
    if spec.limits == Limits::Boundless {
        return noop()
            .with_caps(Caps { device_type: wgpu::DeviceType::Cpu, ..Caps::webgpu_default() });
    }
    // Memory for one of two buffers, or for both.
    let max_workgroup_memory = if spec.limits == Limits::Tight { 8 << 10 } else { 16 << 10 };
    noop().with_caps(Caps { f16: true, max_workgroup_memory, ..Caps::webgpu_default() })
}

/// Iterations that no workgroup of the small problems comes near: a change that makes a loop
/// endless is found sooner.
const MOST_TRIPS: Option<u64> = Some(1 << 12);

/// What is read past the end of a buffer the second time: NaN in f32 and in both halves of a word.
const PAST_END: u32 = 0x7fff_7fff;

fn recorded(spec: &Spec) -> Result<Recorded, Box<RecordedError>> {
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

    fn of(case: Recorded, subgroup_size: usize) -> Result<Self, SanitizeError> {
        let shaders = case.replay.modules.iter().map(|module| parsed(module, &module.source));
        Ok(Self { shaders: shaders.collect::<Result<_, _>>()?, case, subgroup_size })
    }

    /// Names of the kernels that it runs.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        self.shaders.iter().filter_map(|shader| shader.entry_points().next()).collect()
    }

    /// What is wrong with its shaders or with what they compute, in words; nothing where all is
    /// well.
    ///
    /// # Errors
    /// [`SanitizeError::Shader`].
    pub fn faults(&self) -> Result<Vec<String>, SanitizeError> {
        let (found, memory) = self.run(&Replaced::new(), 0)?;
        self.faults_of(&found, &memory)
    }

    /// What is wrong with a run of the shaders as they are.
    fn faults_of(&self, found: &Found, memory: &Memory) -> Result<Vec<String>, SanitizeError> {
        let none = Replaced::new();
        let mut faults: Vec<String> =
            self.wrong_accesses(&none, found).chain(self.wrong_output(memory)).collect();
        // WebGPU lets kernels read past the end of a buffer, where nothing may come of it: the
        // results must be the same whatever is read.
        if is_any_past_end(found) && self.differs(memory, &self.run(&none, PAST_END)?.1) {
            faults.push(SHOWS.into());
        }
        Ok(faults)
    }

    fn wrong_accesses<'a>(
        &'a self,
        replaced: &'a Replaced,
        found: &'a Found,
    ) -> impl Iterator<Item = String> + 'a {
        found.iter().filter(|one| is_wrong(one)).map(|(number, finding)| {
            let module = &self.case.replay.modules[*number];
            let source = replaced.get(number).map_or(&module.source, |(_, source)| source);
            format!("{}: {}", module.label, finding.describe(source))
        })
    }

    fn wrong_output(&self, memory: &Memory) -> impl Iterator<Item = String> + use<> {
        let output = &self.case.replay.output;
        let range = bytes(output.offset, output.size);
        let buffer = &memory.buffers[output.buffer];
        let wrong = self.case.first_wrong(&buffer.bytes[range.clone()]);
        let not_all = !buffer.is_written(range);
        not_all.then(|| "not all of the output was written".into()).into_iter().chain(wrong)
    }

    /// Whether the outputs of two runs differ.
    fn differs(&self, one: &Memory, other: &Memory) -> bool {
        let output = self.case.replay.output.buffer;
        one.buffers[output].bytes != other.buffers[output].bytes
    }

    /// Takes out one barrier after another, and tells of each whether that is found.
    ///
    /// # Errors
    /// [`SanitizeError::Shader`].
    pub fn without_barriers(&self) -> Result<HashMap<BarrierName, bool>, SanitizeError> {
        let mut told = HashMap::new();
        for (number, (shader, module)) in
            self.shaders.iter().zip(&self.case.replay.modules).enumerate()
        {
            let kernel = shader.entry_points().next().unwrap_or_default().to_owned();
            for barrier in 0..shader.barriers() {
                let (blind, line) =
                    shader.without_barrier(barrier, &module.source).map_err(unknown(module))?;
                let line = line_in_file(&kernel, &module.source, line);
                let (found, _) =
                    self.run(&BTreeMap::from([(number, (blind, module.source.clone()))]), 0)?;
                let is_found = found.iter().any(is_wrong);
                *told.entry(BarrierName { kernel: kernel.clone(), line }).or_default() |= is_found;
            }
        }
        Ok(told)
    }

    /// Runs all dispatches, some shaders perhaps replaced.
    fn run(&self, replaced: &Replaced, past_end: u32) -> Result<(Found, Memory), SanitizeError> {
        let mut memory = self.memory();
        let mut found = Found::new();
        for number in 0..self.case.replay.dispatches.len() {
            found.extend(self.dispatch(number, replaced, None, past_end, &mut memory)?);
        }
        Ok((found, memory))
    }

    /// As it is at first.
    fn memory(&self) -> Memory {
        let buffers = &self.case.replay.buffers;
        let bound = buffers.iter().map(|buffer| vec![false; buffer.bytes.len()]).collect();
        Memory {
            buffers: buffers.iter().map(|buffer| Buffer::new(buffer.bytes.clone())).collect(),
            bound,
        }
    }

    /// Runs one dispatch. Without `most_iterations` of a workgroup's loops, as many as the
    /// interpreter allows.
    fn dispatch(
        &self,
        number: usize,
        replaced: &Replaced,
        most_iterations: Option<u64>,
        past_end: u32,
        memory: &mut Memory,
    ) -> Result<Found, SanitizeError> {
        let Replay { modules, dispatches, .. } = &self.case.replay;
        let dispatch = &dispatches[number];
        let shader = replaced
            .get(&dispatch.module)
            .map_or(&self.shaders[dispatch.module], |(shader, _)| shader);
        let binding = |b: &crate::replay::Binding| {
            let range = bytes(b.offset, b.size);
            Binding { group: 0, binding: b.binding, buffer: b.buffer, range }
        };
        let bindings: Vec<Binding> = dispatch.bindings.iter().map(binding).collect();
        for binding in &bindings {
            // What a dispatch writes that none before it has bound holds nothing yet. Halves are
            // written by atomic operations on words, which read the other half.
            let is_written = shader.writes(binding.group, binding.binding);
            let is_half = shader.has_atomics(binding.group, binding.binding);
            for byte in binding.range.clone() {
                if is_written && !is_half && !memory.bound[binding.buffer][byte] {
                    memory.buffers[binding.buffer].forget(byte..byte + 1);
                }
                memory.bound[binding.buffer][byte] = true;
            }
        }
        let entry = shader.entry_points().next().unwrap_or_default();
        let run = Dispatch::new(shader, entry, &bindings, dispatch.grid);
        let run = run.subgroup_size(self.subgroup_size).past_end(past_end);
        let run = most_iterations.map_or(run.clone(), |iterations| run.most_iterations(iterations));
        let findings = wgsl_sanitizer::run(&run, &mut memory.buffers);
        Ok(findings
            .map_err(unknown(&modules[dispatch.module]))?
            .into_iter()
            .map(|finding| (dispatch.module, finding))
            .collect())
    }
}

/// A right run and its memory before each dispatch and at the end, so that of a run with a change
/// no more need be done than the change reaches.
#[derive(Debug)]
pub(crate) struct Right {
    subject: Subject,
    before: Vec<Memory>,
}

impl Right {
    /// The run of shaders without a change.
    ///
    /// # Errors
    /// [`SanitizeError::Wrong`] if that is at fault: it would count every change as found.
    pub(crate) fn new(case: Recorded, subgroup_size: usize) -> Result<Self, SanitizeError> {
        let subject = Subject::of(case, subgroup_size)?;
        let none = Replaced::new();
        let mut memory = subject.memory();
        let mut before = Vec::new();
        let mut found = Found::new();
        for number in 0..subject.case.replay.dispatches.len() {
            before.push(memory.clone());
            found.extend(subject.dispatch(number, &none, MOST_TRIPS, 0, &mut memory)?);
        }
        if let Some(fault) = subject.faults_of(&found, &memory)?.into_iter().next() {
            return Err(SanitizeError::Wrong { name: subject.case.name, fault });
        }
        before.push(memory);
        Ok(Self { subject, before })
    }

    /// What runs.
    pub(crate) fn name(&self) -> &str {
        &self.subject.case.name
    }

    /// The first fault, if any, of the run with other shader texts; nothing if `alter` changes none
    /// of them.
    pub(crate) fn first_fault(
        &self,
        alter: impl Fn(&str) -> String,
    ) -> Result<Option<Option<String>>, SanitizeError> {
        let mut replaced = Replaced::new();
        for (number, module) in self.subject.case.replay.modules.iter().enumerate() {
            let source = alter(&module.source);
            if source != module.source {
                replaced.insert(number, (parsed(module, &source)?, source));
            }
        }
        if replaced.is_empty() {
            return Ok(None);
        }
        let (found, memory) = self.changed(&replaced, 0)?;
        let mut faults = self
            .subject
            .wrong_accesses(&replaced, &found)
            .chain(self.subject.wrong_output(memory.as_ref()));
        if let Some(fault) = faults.next() {
            return Ok(Some(Some(fault)));
        }
        let shows = is_any_past_end(&found)
            && self.subject.differs(memory.as_ref(), self.changed(&replaced, PAST_END)?.1.as_ref());
        Ok(Some(shows.then(|| SHOWS.into())))
    }

    /// What is found from the first dispatch of a changed shader on, and the memory at the end.
    fn changed(
        &self,
        replaced: &Replaced,
        past_end: u32,
    ) -> Result<(Found, Cow<'_, Memory>), SanitizeError> {
        let dispatches = &self.subject.case.replay.dispatches;
        let is_changed = |number: &usize| replaced.contains_key(&dispatches[*number].module);
        let first = (0..dispatches.len()).find(is_changed).unwrap_or(0);
        let last = (0..dispatches.len()).rfind(is_changed).unwrap_or(0);
        let mut memory = self.before[first].clone();
        let mut found = Found::new();
        for number in first..dispatches.len() {
            found.extend(self.subject.dispatch(
                number,
                replaced,
                MOST_TRIPS,
                past_end,
                &mut memory,
            )?);
            // From here on all is as it was, or does not matter.
            if found.iter().any(is_wrong)
                || number >= last && memory.is_same(&self.before[number + 1])
            {
                return Ok((found, Cow::Borrowed(&self.before[dispatches.len()])));
            }
        }
        Ok((found, Cow::Owned(memory)))
    }
}

fn parsed(module: &Module, source: &str) -> Result<Shader, SanitizeError> {
    Shader::new(source).map_err(unknown(module))
}

/// Names the module of an error.
fn unknown(module: &Module) -> impl FnOnce(wgsl_sanitizer::Error) -> SanitizeError + use<'_> {
    |error| SanitizeError::Shader { label: module.label.clone(), error }
}

/// WebGPU lets kernels read past the end of a buffer, where nothing may come of it: that is looked
/// at by itself.
fn is_wrong((_, finding): &(usize, Finding)) -> bool {
    finding.kind != Kind::ReadPastEnd
}

/// Said of a run that needs what it reads past the end of a buffer.
const SHOWS: &str = "what is read past the end of a buffer shows in the output";

fn is_any_past_end(found: &Found) -> bool {
    found.iter().any(|(_, finding)| finding.kind == Kind::ReadPastEnd)
}

fn bytes(offset: u64, size: u64) -> std::ops::Range<usize> {
    let [first, last] =
        [offset, offset + size].map(|byte| usize::try_from(byte).unwrap_or(usize::MAX));
    first..last
}

/// A line of a shader's text as a line of the kernel's file, with which the text ends.
fn line_in_file(kernel: &str, source: &str, line: u32) -> u32 {
    let name = format!("{kernel}.wgsl");
    let file = shader_files().find(|(file, _)| *file == name);
    let lines = |text: &str| u32::try_from(text.trim_end().lines().count()).unwrap_or(u32::MAX);
    let before = lines(source).saturating_sub(file.map_or(0, |(_, text)| lines(text)));
    line.saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dynconv::kernels::Kernel;

    use super::*;
    use crate::catalogue;

    #[test]
    fn the_problems_reach_every_kernel() {
        let problems = catalogue::sanitized().expect("parses");
        let subjects: Result<Vec<_>, _> = problems.iter().map(Subject::new).collect();
        let subjects = subjects.expect("all can be recorded");
        let reached: HashSet<&str> = subjects.iter().flat_map(Subject::kernels).collect();
        let missing: Vec<_> = Kernel::ALL
            .iter()
            .map(|kernel| kernel.name())
            .filter(|name| !reached.contains(name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// The faults of a kernel with one change, on the problem for it.
    fn faults(problem: &str, from: &str, to: &str) -> Vec<String> {
        let spec: Spec = problem.parse().expect("parses");
        let run = recorded(&spec).expect("can be recorded");
        let mut altered = run.clone();
        altered
            .replay
            .modules
            .iter_mut()
            .for_each(|module| module.source = module.source.replacen(from, to, 1));
        assert_ne!(altered.replay, run.replay, "{from} is in no text");
        let faults = Subject::recorded(altered, 32).expect("compiles").faults().expect("runs");
        let right = Right::new(run, 32).expect("runs");
        let first = right.first_fault(|source| source.replacen(from, to, 1)).expect("runs");
        assert_eq!(first, Some(faults.first().cloned()));
        faults
    }

    const DIRECT: &str =
        "static batch=2 channels=3x5 input=5x6 kernel=3x3 padding=1x1 conv=direct with=bias";

    #[test]
    fn a_read_past_the_end_that_shows_is_found() {
        let found = faults(DIRECT, "let value = x_value(", "let value = x_value(9999u + ");
        assert!(found.iter().any(|fault| fault.contains("shows in the output")), "{found:?}");
        // An even half of a word, too.
        for elems in ["f16,f16,f32", "f16_storage,f16_storage,f32"] {
            let problem = format!("{DIRECT} elems={elems}");
            let found = faults(&problem, "let value = x_value(", "let value = x_value(99998u + ");
            assert!(
                found.iter().any(|fault| fault.contains("shows in the output")),
                "{elems}: {found:?}"
            );
        }
    }

    #[test]
    fn a_run_that_is_wrong_as_it_is_tells_nothing_of_changes() {
        let mut run = recorded(&DIRECT.parse().expect("parses")).expect("can be recorded");
        Right::new(run.clone(), 32).expect("is right");
        run.expected[0] += 1.0;
        let error = Right::new(run, 32).expect_err("is wrong").to_string();
        assert!(error.starts_with(DIRECT) && error.contains("element 0 of 300 is "), "{error}");
    }

    #[test]
    fn an_output_that_is_not_written_is_found() {
        let found = faults(
            DIRECT,
            "    y_store(y_element(",
            "    if position == 0u { return; }\n    y_store(y_element(",
        );
        assert!(
            found.iter().any(|fault| fault.contains("not all of the output was written")),
            "{found:?}"
        );
    }

    #[test]
    fn stores_of_others_are_found() {
        let found = faults(
            DIRECT,
            "    return params.y_base\n        + element(",
            "    return params.y_base\n        + 0u * element(",
        );
        assert!(found.iter().any(|fault| fault.contains("data race")), "{found:?}");
        let found = faults(
            DIRECT,
            "    return params.y_base\n        + element(",
            "    return 9999u\n        + element(",
        );
        assert!(found.iter().any(|fault| fault.contains("access out of bounds")), "{found:?}");
    }

    #[test]
    fn sums_of_what_nothing_wrote_are_found() {
        let found =
            faults(DIRECT, "var value = sum;", "var value = sum + y_value(params.y_base + place);");
        assert!(
            found.iter().any(|fault| fault.contains("memory that nothing has written")),
            "{found:?}"
        );
    }
}
