//! Choices by what they were measured on, and their text.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::key::{self, Bad, Key};
use super::{Tuned, kernel_version};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Problem};
use crate::program::Plan;

/// Which convolution kernel was measured to be the fastest, problem by problem, on one device with
/// one version of the kernels.
///
/// Its text is a header of five lines and then a line a problem:
///
/// ```text
/// adapter Some GPU
/// driver Some driver 1.2
/// backend Vulkan
/// lanes no
/// kernels 0123456789abcdef
/// static kernels=1 channels=64x64 groups=1 input=56x56 kernel=3x3 .. bias=no -> block
/// ```
///
/// `auto` is a choice too: there the planner's own was measured, and none was faster.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    origin: Origin,
    choices: HashMap<Key, Algorithm>,
}

/// What measurements are good for: lines of the header, by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin([String; 5]);

const HEADER: [&str; 5] = ["adapter", "driver", "backend", "lanes", "kernels"];

impl Origin {
    fn of(caps: &Caps) -> Self {
        // A name is one line, whatever a driver says.
        let line = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ");
        Self([
            line(&caps.name),
            line(&caps.driver),
            format!("{:?}", caps.backend),
            if caps.has_lanes() { "yes" } else { "no" }.into(),
            format!("{:016x}", kernel_version()),
        ])
    }
}

/// Tables that come with the library: a part of the adapter's name, one of the driver's, and the
/// text.
const SHIPPED: [(&str, &str, &str); 2] = [
    ("llvmpipe", "Mesa 25.", include_str!("../tuned/lavapipe-25.txt")),
    ("SwiftShader", "SwiftShader", include_str!("../tuned/swiftshader.txt")),
];

impl Tuning {
    /// An empty table for a device.
    #[must_use]
    pub fn new(caps: &Caps) -> Self {
        Self { origin: Origin::of(caps), choices: HashMap::new() }
    }

    /// The table that comes with the library for such a device, if there is one and the kernels are
    /// still those that were measured. It was measured on one machine: adapter and driver need
    /// only be of the same kind, so take it where nothing better is at hand.
    #[must_use]
    pub fn shipped(caps: &Caps) -> Option<Self> {
        let is_meant = |part: &str, whole: &str| whole.contains(part);
        let shipped = SHIPPED
            .into_iter()
            .find(|(name, driver, _)| is_meant(name, &caps.name) && is_meant(driver, &caps.driver));
        let table: Self = shipped?.2.parse().ok()?;
        let origin = Origin::of(caps);
        let [.., lanes, kernels] = &table.origin.0;
        let is_current = origin.0[3] == *lanes && origin.0[4] == *kernels;
        is_current.then_some(Self { origin, ..table })
    }

    /// Refuses another device, driver or version of the kernels than those that were measured.
    ///
    /// # Errors
    /// [`Error::StaleTuning`] with what differs first.
    pub fn check(&self, caps: &Caps) -> Result<()> {
        let here = Origin::of(caps);
        let differs = |((what, expected), found): ((&'static str, String), &String)| {
            (expected != *found).then(|| Error::StaleTuning {
                what,
                expected,
                found: found.clone(),
            })
        };
        HEADER.into_iter().zip(here.0).zip(&self.origin.0).find_map(differs).map_or(Ok(()), Err)
    }

    /// The choice for a problem, if one was measured. The problem's own choice and its batch do not
    /// matter.
    #[must_use]
    pub fn choice(&self, problem: &Problem) -> Option<Algorithm> {
        self.choices.get(&Key::of(problem)).copied()
    }

    /// Plans a layer with the kernel that was measured to be the fastest for it, where the table
    /// knows the problem and the problem leaves the kernel to the planner; else as [`Plan::new`].
    ///
    /// # Errors
    /// As [`Plan::new`]; also where the table names a kernel that cannot compute this.
    pub fn plan(&self, problem: &Problem, caps: &Caps) -> Result<Plan> {
        let known = self.choice(problem).filter(|choice| *choice != Algorithm::Auto);
        match known {
            Some(algorithm) if problem.algorithm == Algorithm::Auto => {
                let plan = Plan::new(&Problem { algorithm, ..*problem }, caps)?;
                Ok(plan.because("tuned: measured to be the fastest on this adapter"))
            }
            _ => Plan::new(problem, caps),
        }
    }

    /// Puts a choice for a problem in, over one that is there.
    pub fn insert(&mut self, problem: &Problem, choice: Algorithm) {
        self.choices.insert(Key::of(problem), choice);
    }

    /// Puts in what came of a measurement.
    pub fn add(&mut self, tuned: &Tuned) {
        self.choices.insert(tuned.key, tuned.choice());
    }

    /// Choices by their problems, in no order.
    pub fn choices(&self) -> impl ExactSizeIterator<Item = (&Key, Algorithm)> {
        self.choices.iter().map(|(key, choice)| (key, *choice))
    }

    /// The same without problems whose fastest kernel is the planner's own choice: all that a
    /// program needs to be as fast.
    #[must_use]
    pub fn gains(mut self) -> Self {
        self.choices.retain(|_, choice| *choice != Algorithm::Auto);
        self
    }

    /// The name that a table of this device and these kernels has in a folder of such, without what
    /// follows the last dot: other files that belong to it may have it too.
    #[must_use]
    pub fn file_stem(caps: &Caps) -> String {
        format!("dynconv-{:016x}", super::hash(Origin::of(caps).0.iter().map(String::as_str)))
    }

    fn path(folder: &Path, caps: &Caps) -> PathBuf {
        folder.join(Self::file_stem(caps)).with_extension(Self::EXTENSION)
    }

    /// What follows the last dot of a table's file name.
    pub const EXTENSION: &str = "tuning";

    /// Reads the table of a device from a folder, if there is one of this device, driver and
    /// version of the kernels.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, and as [`Tuning::read`].
    pub fn load(folder: &Path, caps: &Caps) -> Result<Option<Self>> {
        let path = Self::path(folder, caps);
        if !path.exists() {
            return Ok(None);
        }
        let table = Self::read(&path)?;
        table.check(caps)?;
        Ok(Some(table))
    }

    /// Reads any table. It may be of another device: see [`Tuning::check`].
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read or is no table.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |message: String| Error::File { path: path.display().to_string(), message };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        text.parse().map_err(|error: Error| failed(error.to_string()))
    }

    /// Writes the table to a folder, which is made if there is none, under a name of its own for
    /// each device, driver and version of the kernels, and gives its path. Whoever reads
    /// meanwhile finds the table before or this one.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn save(&self, folder: &Path, caps: &Caps) -> Result<PathBuf> {
        self.check(caps)?;
        let path = Self::path(folder, caps);
        let failed = |error: std::io::Error| Error::File {
            path: path.display().to_string(),
            message: error.to_string(),
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let unfinished = path.with_extension(format!("{}.{}", Self::EXTENSION, std::process::id()));
        std::fs::write(&unfinished, self.to_string()).map_err(failed)?;
        std::fs::rename(&unfinished, &path).map_err(failed)?;
        Ok(path)
    }
}

/// Lines in the order of their letters, so that tables can be compared.
impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEADER
            .iter()
            .zip(&self.origin.0)
            .try_for_each(|(name, value)| writeln!(f, "{name} {value}"))?;
        let mut lines: Vec<String> =
            self.choices().map(|(key, choice)| format!("{key} -> {choice}")).collect();
        lines.sort_unstable();
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Tuning {
    type Err = Error;

    /// Reads what is written by `Display`; empty lines and lines that begin with `#` say nothing.
    fn from_str(text: &str) -> Result<Self> {
        let mut lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let at = |line: usize| {
            move |Bad { expected, found }: Bad| Error::TuningLine { line, expected, found }
        };
        let mut origin = Origin(Default::default());
        for (name, value) in HEADER.iter().zip(&mut origin.0) {
            let (number, line) = lines.next().unwrap_or((text.lines().count() + 1, ""));
            let rest = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            *value = rest
                .ok_or_else(|| at(number)(Bad::new(format!("\"{name} ..\""), line)))?
                .trim()
                .into();
        }
        let mut choices = HashMap::new();
        for (number, line) in lines {
            let (key, choice) = entry(line).map_err(at(number))?;
            if choices.insert(key, choice).is_some() {
                return Err(at(number)(Bad::new("a problem that no line before it has", line)));
            }
        }
        Ok(Self { origin, choices })
    }
}

fn entry(line: &str) -> std::result::Result<(Key, Algorithm), Bad> {
    let (problem, choice) =
        line.split_once(" -> ").ok_or_else(|| Bad::new("a problem -> its kernel", line))?;
    let key = key::parse(problem)?;
    let names = || format!("one of {}", Algorithm::names());
    let choice = choice.trim().parse().map_err(|_| Bad::new(names(), choice.trim()))?;
    Ok((key, choice))
}
