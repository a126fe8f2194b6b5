//! Shaders with one fault each, to prove that the laws find faults.
//!
//! A mutant changes one place of one file of `shaders/` the way a slip would: a comparison that
//! includes its bound, a swapped axis, a forgotten offset, a dropped barrier. It lives where the
//! changed shader still compiles; it is killed if a law of the catalogue breaks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dynconv::kernels::{Variant, shader_files};
use dynconv::{Context, Error};

use crate::check::laws_of;
use crate::noise::Noise;
use crate::run::{Fault, Prepared};
use crate::spec::Spec;
use crate::variants::noop_like;

/// A shader file with one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// File in `shaders/`.
    pub file: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// What kind of slip it is.
    pub slip: &'static str,
    /// The line as it is.
    pub original: String,
    /// The line as it becomes.
    pub mutated: String,
    /// The file's text.
    source: &'static str,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// A law broke: its name, the problem, and what was found.
    Killed(&'static str, String, String),
    /// The shader does not compile: it proves nothing.
    Stillborn(String),
    /// Every law holds.
    Survived,
    /// No problem runs the shader on this device: it lacks f16.
    NotRun,
}

/// Slips that replace one piece of text by another, wherever it stands in code. Spaces tell
/// operators from brackets.
const REPLACEMENTS: &[(&str, &str, &str)] = &[
    ("bound", " < ", " <= "),
    ("bound", " <= ", " < "),
    ("bound", " >= ", " > "),
    ("bound", " > ", " >= "),
    ("comparison", " == ", " != "),
    ("comparison", " < ", " >= "),
    ("arithmetic", " + ", " - "),
    ("arithmetic", " - ", " + "),
    ("arithmetic", " * ", " + "),
    ("arithmetic", " / ", " * "),
    ("arithmetic", " % ", " / "),
    ("arithmetic", " += ", " -= "),
    ("arithmetic", " += ", " = "),
    ("arithmetic", " *= ", " += "),
    ("logic", " && ", " || "),
    ("logic", " || ", " && "),
    ("logic", "if !", "if "),
    ("extreme", "min(", "max("),
    ("extreme", "max(", "min("),
    ("number", "0u", "1u"),
    ("number", "1u", "2u"),
    ("number", "1u", "0u"),
    ("number", "2u", "3u"),
    ("number", "3u", "2u"),
    ("number", "4u", "5u"),
    ("number", "8u", "7u"),
    ("number", "0.0", "1.0"),
    ("number", "1.0", "0.0"),
    ("number", "6.0", "7.0"),
    ("number", "2.0", "1.0"),
    ("axis", "_w", "_h"),
    ("axis", "_h", "_d"),
    ("axis", "_W", "_H"),
    ("axis", "_H", "_D"),
    ("axis", "kx", "ky"),
    ("axis", "ky", "kz"),
    ("axis", "out_x", "out_y"),
    ("axis", "column", "row"),
    ("component", ".x", ".y"),
    ("component", ".y", ".x"),
    ("component", ".z", ".w"),
    ("component", ".w", ".z"),
    ("channels", "c_in", "c_out"),
    ("channels", "c_out", "c_in"),
    ("tile", "TILE_M", "TILE_N"),
    ("tile", "TILE_N", "TILE_M"),
    ("batch", "(b,", "(0u,"),
    ("batch", " b *", " 0u *"),
    ("batch", "(b *", "(0u *"),
    ("batch", "tile.b", "0u"),
    ("group", "g *", "0u *"),
    ("group", "tile.g", "0u"),
    ("lane", "+ lane", "+ 0u"),
];

/// Pieces of a parameter's name whose value is forgotten.
const FORGOTTEN: [(&str, &str); 4] =
    [("base", "_base"), ("offset", "_offset"), ("stride", "_stride"), ("begin", "ci_begin")];

/// Ends of lines that are statements of their own: leaving one out still compiles.
fn is_statement(code: &str) -> bool {
    let code = code.trim();
    let is_declaration = ["let ", "var ", "const ", "return ", "struct ", "@", "for "]
        .iter()
        .any(|word| code.starts_with(word));
    code.ends_with(';')
        && !is_declaration
        && (code.contains(" = ")
            || code.contains("= ")
            || code.ends_with(");")
            || code == "return;")
}

/// Every shader file, once.
fn files() -> BTreeMap<&'static str, &'static str> {
    shader_files().collect()
}

/// All mutants, in the order of their files and lines. Their places in it are their numbers.
#[must_use]
pub fn all() -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (file, source) in files() {
        for (line, original) in (1..).zip(source.lines()) {
            for (slip, mutated) in slips(original) {
                let original = original.to_string();
                mutants.push(Mutant { file, line, slip, original, mutated, source });
            }
        }
    }
    mutants
}

/// Lines of code, with their numbers from 1: without comments and what is empty then.
fn code_of(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| -> usize { line.find("//").unwrap_or(line.len()) };
    (1..)
        .zip(source.lines())
        .map(move |(n, line)| (n, line[..code(line)].trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// What one line can become.
fn slips(line: &str) -> Vec<(&'static str, String)> {
    let code_len = line.find("//").unwrap_or(line.len());
    let code = &line[..code_len];
    let declares =
        ["fn ", "struct ", "@group", "@builtin", "@compute", "enable ", "var<", "const "];
    if code.trim().is_empty() || declares.iter().any(|word| code.trim_start().starts_with(word)) {
        return Vec::new();
    }
    let mut all: Vec<(&'static str, String)> = Vec::new();
    for &(slip, from, to) in REPLACEMENTS {
        for (at, _) in code.match_indices(from) {
            if is_whole(code, at, from) {
                all.push((slip, format!("{}{to}{}", &line[..at], &line[at + from.len()..])));
            }
        }
    }
    for (slip, end) in FORGOTTEN {
        for (at, _) in code.match_indices("params.") {
            let name = code[at + 7..]
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or("");
            if name.ends_with(end) {
                all.push((slip, format!("{}0u{}", &line[..at], &line[at + 7 + name.len()..])));
            }
        }
    }
    if let (Some(at), Some(end)) = (code.find("if "), code.find(" {")) {
        all.extend(
            ["true", "false"]
                .map(|value| ("condition", format!("{}{value}{}", &line[..at + 3], &line[end..]))),
        );
    }
    if is_statement(code) {
        all.push(("left out", String::new()));
    }
    all.dedup();
    all
}

/// Whether a piece of text is no part of a longer name or number.
fn is_whole(code: &str, at: usize, piece: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let first = piece.chars().next().unwrap_or(' ');
    let last = piece.chars().last().unwrap_or(' ');
    let joined_before = first.is_alphanumeric() && code[..at].chars().last().is_some_and(is_name);
    let joined_after =
        last.is_alphanumeric() && code[at + piece.len()..].chars().next().is_some_and(is_name);
    !joined_before && !joined_after
}

impl Mutant {
    /// A name that no other mutant has, nor one of another text of the file. Comments are no part
    /// of it.
    #[must_use]
    pub fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        code_of(self.source).for_each(|(_, code)| code.hash(&mut hasher));
        let line = code_of(self.source).take_while(|(number, _)| *number < self.line).count() + 1;
        format!("{}:{:016x}:{line}:{}", self.file, hasher.finish(), self.mutated.trim())
    }

    /// The mutated text of a variant; its own where the file is no part of it.
    #[must_use]
    pub fn apply(&self, variant: &Variant) -> String {
        self.apply_to(&variant.source())
    }

    /// The same of a variant's text.
    pub(crate) fn apply_to(&self, source: &str) -> String {
        let mut lines: Vec<&str> = self.source.lines().collect();
        lines[self.line - 1] = &self.mutated;
        source.replacen(self.source.trim_end(), &lines.join("\n"), 1)
    }

    /// Whether a problem runs a variant that the file is part of.
    fn is_in(&self, context: &Context, spec: &Spec) -> bool {
        let Ok(prepared) = Prepared::with_integers(context, spec) else { return false };
        let mut files =
            prepared.bound.steps().iter().flat_map(|step| step.dispatch().variant.files());
        files.any(|(file, _)| file == self.file)
    }

    /// Holds the problems that run the mutated shader to their laws until one breaks, problem by
    /// problem, since most of the time goes into compiling.
    #[must_use]
    pub fn by_laws(&self, context: &Context, specs: &[Spec]) -> Fate {
        let planned = noop_like(context);
        let specs: Vec<&Spec> = specs.iter().filter(|spec| self.is_in(&planned, spec)).collect();
        if specs.is_empty() {
            return Fate::NotRun;
        }
        let mutant = self.clone();
        let context = context.clone().with_shaders(move |variant| mutant.apply(variant));
        for spec in specs {
            for law in laws_of(spec) {
                match law.check(&context, spec) {
                    Ok(()) | Err(Fault::Refused(_)) => {}
                    Err(Fault::Failed(Error::Shader { message, .. })) => {
                        return Fate::Stillborn(message);
                    }
                    Err(fault) => {
                        return Fate::Killed(law.name, spec.to_string(), fault.to_string());
                    }
                }
            }
        }
        Fate::Survived
    }
}

/// Reasons why a mutant cannot be told from the shader: file | line as it is | line as it becomes |
/// reason.
const EXPLANATIONS: &str = include_str!("../explanations.txt");

/// File, line as it is, line as it becomes, and reason.
type Explanation = [&'static str; 4];

/// All of them; nothing for a line that is no explanation.
fn explanations() -> impl Iterator<Item = Option<Explanation>> {
    let lines = EXPLANATIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(" | ").map(str::trim).collect::<Vec<_>>().try_into().ok())
}

fn is_of(explanation: &Explanation, mutant: &Mutant) -> bool {
    let [file, original, mutated, _] = explanation;
    *file == mutant.file && *original == mutant.original.trim() && *mutated == mutant.mutated.trim()
}

/// Why nothing can kill a mutant, if that is known.
#[must_use]
pub fn explained(mutant: &Mutant) -> Option<&'static str> {
    explanations()
        .flatten()
        .find(|explanation| is_of(explanation, mutant))
        .map(|[.., reason]| reason)
}

/// At most `count` of the mutants that are asked for, drawn as evenly over the files as their
/// numbers allow, and over each file's lines. Their numbers.
#[must_use]
pub fn sample(
    mutants: &[Mutant],
    is_asked: impl Fn(&Mutant) -> bool,
    count: usize,
    seed: u64,
) -> Vec<usize> {
    let mut of_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate().filter(|(_, mutant)| is_asked(mutant)) {
        of_file.entry(mutant.file).or_default().push(number);
    }
    let mut noise = Noise::new(seed);
    let mut chosen = Vec::new();
    // Small files give all they have; what they leave is shared by the larger ones.
    let mut files: Vec<Vec<usize>> = of_file.into_values().collect();
    files.sort_by_key(Vec::len);
    for (i, numbers) in files.iter().enumerate() {
        let share = (count - chosen.len()) / (files.len() - i);
        let taken = share.min(numbers.len());
        // One of each run of lines.
        let first = |k: usize| k * numbers.len() / taken;
        chosen.extend((0..taken).map(|k| numbers[first(k) + noise.below(first(k + 1) - first(k))]));
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use crate::variants::elem_variants;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn slips_change_code_and_nothing_else() {
        let lines =
            |line: &str| slips(line).into_iter().map(|(_, mutated)| mutated).collect::<Vec<_>>();
        assert_eq!(lines("    // a < b"), [""; 0]);
        assert_eq!(lines("fn f(a: u32) -> u32 {"), [""; 0]);
        assert_eq!(
            lines("    a = b < c; // d < e").first().map(String::as_str),
            Some("    a = b <= c; // d < e")
        );
        assert!(lines("    var v: vec4<f32>;").is_empty());
        assert!(
            lines("    y[params.y_base + i] = 1.5;").contains(&"    y[0u + i] = 1.5;".to_string())
        );
        assert!(lines("    workgroupBarrier();").contains(&String::new()));
        assert!(!lines("    x = 10u;").iter().any(|line| line.contains("11u")));
    }

    #[test]
    fn every_file_is_mutated_and_a_sample_reaches_all_of_them() {
        let all = all();
        let mutated: HashSet<&str> = all.iter().map(|mutant| mutant.file).collect();
        // Some of the files of element types have nothing but a declaration and a plain load.
        assert!(
            files().iter().all(|(file, text)| {
                mutated.contains(file) || file.starts_with("elem/") || !text.contains("fn ")
            }),
            "{mutated:?}"
        );
        let chosen = sample(&all, |_| true, 200, 1);
        assert_eq!(all.iter().map(Mutant::name).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(chosen.len(), 200);
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), 200);
        assert_eq!(
            chosen.iter().map(|&number| all[number].file).collect::<HashSet<_>>().len(),
            mutated.len()
        );
        assert_ne!(sample(&all, |_| true, 200, 2), chosen);
        assert_eq!(sample(&all, |_| true, all.len(), 2), (0..all.len()).collect::<Vec<_>>());
        let of_file = sample(&all, |mutant| mutant.file == "demodulate.wgsl", 10, 1);
        assert!(
            of_file.len() == 10
                && of_file.iter().all(|&number| all[number].file == "demodulate.wgsl")
        );
    }

    #[test]
    fn explanations_are_of_mutants_that_there_are() {
        let all = all();
        for explanation in explanations() {
            let explanation =
                explanation.expect("file | line as it is | line as it becomes | reason");
            assert!(all.iter().any(|mutant| is_of(&explanation, mutant)), "{explanation:?}");
        }
    }

    /// File, line as it is and line as it becomes, of a survivor in the table.
    fn survivor(line: &str) -> Option<[&str; 3]> {
        let (place, rest) = line.strip_prefix("* ")?.split_once(": `")?;
        let (original, rest) = rest.split_once("` becomes `")?;
        let (mutated, _) = rest.split_once("`: ")?;
        let (_, file) = place.split_once(", ")?;
        Some([file.rsplit_once(':')?.0, original, mutated])
    }

    #[test]
    fn the_table_is_of_shaders_that_there_are() {
        let table = include_str!("../MUTANTS.md");
        let all = all();
        let rows: HashSet<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
        let mutated: HashSet<&str> = all.iter().map(|mutant| mutant.file).collect();
        let missing: Vec<_> = mutated.iter().filter(|file| !rows.contains(*file)).collect();
        assert!(
            missing.is_empty(),
            "suite/MUTANTS.md lacks {missing:?}: run `dynconv mutants` again"
        );
        for line in table.lines().filter(|line| line.starts_with("* ")) {
            let [file, original, mutated] =
                survivor(line).unwrap_or_else(|| panic!("no survivor: {line}"));
            let is_it = |mutant: &Mutant| {
                mutant.file == file
                    && mutant.original.trim() == original
                    && mutant.mutated.trim() == mutated
            };
            assert!(
                all.iter().any(is_it),
                "suite/MUTANTS.md is out of date, run `dynconv mutants` again: {line}"
            );
        }
    }

    #[test]
    fn the_table_has_all_mutants_and_explains_every_survivor() {
        let table = include_str!("../MUTANTS.md");
        let tried = format!("{} of {} mutants tried", all().len(), all().len());
        assert!(
            table.contains(&tried),
            "suite/MUTANTS.md is of other shaders, run `dynconv mutants` again: no \"{tried}\""
        );
        for line in table.lines().filter(|line| line.starts_with("* ")) {
            let reason = line.rsplit_once("`: ").map(|(_, reason)| reason);
            let is_explained =
                reason.is_some_and(|reason| EXPLANATIONS.contains(&format!(" | {reason}\n")));
            assert!(is_explained, "no line of suite/explanations.txt explains {line}");
        }
    }

    #[test]
    fn a_mutant_changes_its_file_in_a_variant() {
        let all = all();
        let variant = &elem_variants()[0].variant;
        let file = variant.files().last().expect("has files").0;
        let mutant = all.iter().find(|mutant| mutant.file == file).expect("is mutated");
        let (healthy, mutated) = (variant.source(), mutant.apply(variant));
        let differ: Vec<_> = healthy.lines().zip(mutated.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(differ, [(mutant.original.as_str(), mutant.mutated.as_str())]);
    }
}
