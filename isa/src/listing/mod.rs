//! Reads the instructions that a driver made of a kernel: where its main loop is, and what one step
//! of it takes. Each language of listings has a module that tells what a line does.

mod adreno;
mod amd;
mod apple;
mod intel;
mod mali;
mod nvidia;

use std::collections::{BTreeSet, HashMap};
use std::ops::AddAssign;

use crate::families::Language;

/// What the instructions of a range do. An instruction that issues two operations counts as both,
/// one that is repeated as often as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Multiply-adds of floats.
    pub(crate) multiply_adds: u64,
    /// Products of cooperative matrices.
    pub(crate) products: u64,
    /// Vector operations, multiply-adds and products included: those of every invocation. Loads
    /// and stores, synchronisation, branches and what a unit for scalars does are none.
    pub(crate) vector: u64,
    /// Vector operations that were issued in pairs.
    pub(crate) paired: u64,
    /// Bytes that an invocation loads from workgroup memory.
    pub(crate) shared_bytes: u64,
    /// Loads from buffers.
    pub(crate) loads: u64,
    /// Words of 4 bytes that these load.
    pub(crate) words: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = self.with(other, |own, other| own + other);
    }
}

impl Counts {
    const OTHER: Self = Self {
        multiply_adds: 0,
        products: 0,
        vector: 0,
        paired: 0,
        shared_bytes: 0,
        loads: 0,
        words: 0,
    };
    const VECTOR: Self = Self { vector: 1, ..Self::OTHER };
    const MULTIPLY_ADD: Self = Self { multiply_adds: 1, ..Self::VECTOR };
    const PRODUCT: Self = Self { products: 1, ..Self::VECTOR };

    const fn load(words: u64) -> Self {
        Self { loads: 1, words, ..Self::OTHER }
    }

    const fn shared_load(bytes: u64) -> Self {
        Self { shared_bytes: bytes, ..Self::OTHER }
    }

    /// What a main loop is there for.
    fn work(self) -> u64 {
        self.multiply_adds + self.products
    }

    fn times(self, times: u64) -> Self {
        self.with(self, |own, _| own * times)
    }

    fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            multiply_adds: f(self.multiply_adds, other.multiply_adds),
            products: f(self.products, other.products),
            vector: f(self.vector, other.vector),
            paired: f(self.paired, other.paired),
            shared_bytes: f(self.shared_bytes, other.shared_bytes),
            loads: f(self.loads, other.loads),
            words: f(self.words, other.words),
        }
    }
}

/// A line of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Line {
    counts: Counts,
    /// A place that branches name.
    label: Option<String>,
    /// Where it branches to.
    target: Option<String>,
    /// Whether it always branches, so that the next line does not follow it.
    is_jump: bool,
}

impl Line {
    fn counting(counts: Counts) -> Self {
        Self { counts, ..Self::default() }
    }

    fn label(name: &str) -> Self {
        Self { label: Some(name.into()), ..Self::default() }
    }

    fn branch(target: &str, is_jump: bool) -> Self {
        Self { target: Some(target.into()), is_jump, ..Self::default() }
    }
}

/// The lines of a listing, one for each of its own.
fn lines(language: Language, listing: &str) -> Vec<Line> {
    match language {
        Language::Amd => listing.lines().map(amd::line).collect(),
        Language::Intel => listing.lines().map(intel::line).collect(),
        Language::Nvidia => listing.lines().map(nvidia::line).collect(),
        Language::Adreno => listing.lines().map(adreno::line).collect(),
        Language::Apple => apple::lines(listing),
        Language::Mali => mali::lines(listing),
    }
}

/// How often the inner loops of a main loop run, where the driver has left any: those that load
/// from buffers stage operands, the others multiply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iterations {
    /// Iterations of a loop that stages.
    pub(crate) staging: u64,
    /// Multiply-adds of an invocation in one step, or products of matrices of a subgroup; tells
    /// the iterations of the loop that multiplies.
    pub(crate) work: u64,
}

/// One step of the main loop. Its branches count as taken.
pub(crate) fn step(
    language: Language,
    listing: &str,
    iterations: Iterations,
) -> Result<Counts, String> {
    let lines = lines(language, listing);
    let loops = loops(&lines);
    let main = main_loop(&loops, &lines);
    let mut step = sum(&lines, &main);
    for inner in inside(&loops, &main) {
        let body = sum(&lines, inner);
        let times = match body.work() {
            0 => iterations.staging,
            own => iterations.work / own,
        };
        step += body.times(times.max(1) - 1);
    }
    match step.work() == iterations.work {
        true => Ok(step),
        false => Err(format!("a step has {} multiply-adds, not {}", step.work(), iterations.work)),
    }
}

/// The instructions of the main loop of a listing of AMD's, without its labels, branches and
/// comments: what a pipeline simulator takes.
pub(crate) fn body(listing: &str) -> String {
    let lines = lines(Language::Amd, listing);
    let main = main_loop(&loops(&lines), &lines);
    let texts = listing.lines().enumerate().filter(|(number, _)| main.contains(number));
    let texts = texts.map(|(_, line)| line.split(';').next().unwrap_or_default());
    let is_kept = |text: &&str| {
        !text.trim().is_empty() && !text.starts_with("BB") && !text.contains("branch")
    };
    texts.filter(is_kept).map(|text| format!("{}\n", text.trim_end())).collect()
}

/// The numbers of a loop's lines.
type Loop = BTreeSet<usize>;

/// The outermost loop with the most multiply-adds, or products of matrices, of those that nest no
/// deeper than two, as loops around them go over kernels; where none has any, all there is.
fn main_loop(loops: &[Loop], lines: &[Line]) -> Loop {
    let is_shallow =
        |one: &&Loop| inside(loops, one).all(|inner| inside(loops, inner).next().is_none());
    let shallow: Vec<_> = loops.iter().filter(is_shallow).cloned().collect();
    let is_outermost = |one: &&Loop| !shallow.iter().any(|other| is_inside(one, other));
    let most = shallow.iter().filter(is_outermost).max_by_key(|one| sum(lines, one).work());
    let most = most.filter(|main| sum(lines, main).work() > 0);
    most.cloned().unwrap_or_else(|| (0..lines.len()).collect())
}

fn is_inside(inner: &Loop, outer: &Loop) -> bool {
    inner != outer && inner.is_subset(outer)
}

fn inside<'a>(loops: &'a [Loop], outer: &'a Loop) -> impl Iterator<Item = &'a Loop> {
    loops.iter().filter(|one| is_inside(one, outer))
}

fn sum(lines: &[Line], range: &Loop) -> Counts {
    let mut all = Counts::default();
    range.iter().for_each(|&number| all += lines[number].counts);
    all
}

/// Loops: a label to which a later line branches back, and every line from which that branch is
/// reached. What a driver lays between them and leaves the loop with is none of it.
fn loops(lines: &[Line]) -> Vec<Loop> {
    let mut labels = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        if let Some(label) = &line.label {
            labels.insert(label.as_str(), number);
        }
    }
    let target = |line: &Line| line.target.as_deref().and_then(|label| labels.get(label)).copied();
    let mut before: HashMap<usize, Vec<usize>> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        let next = (!line.is_jump).then_some(number + 1);
        for follower in next.into_iter().chain(target(line)) {
            before.entry(follower).or_default().push(number);
        }
    }
    let mut loops: HashMap<usize, Loop> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(start) = target(line).filter(|&start| start <= number) else {
            continue;
        };
        let found = loops.entry(start).or_insert_with(|| Loop::from([start]));
        let mut open = vec![number];
        while let Some(line) = open.pop() {
            if found.insert(line) {
                open.extend(before.get(&line).into_iter().flatten());
            }
        }
    }
    loops.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd_step(listing: &str, iterations: Iterations) -> Result<Counts, String> {
        step(Language::Amd, listing, iterations)
    }

    fn amd_loops(listing: &str) -> Vec<Loop> {
        loops(&lines(Language::Amd, listing))
    }

    #[test]
    fn products_of_matrices_are_counted() {
        let lines = [
            "\tv_wmma_f32_16x16x16_f16 v[6:9], v[46:53], v[72:79], v[6:9]",
            " v4: %588:v[6-9] = v_wmma_f32_16x16x16_f16 (latekill)%586:v[47-54], \
             (latekill)%563:v[72-79], %587:v[6-9]",
        ];
        for line in lines {
            assert_eq!(
                amd::line(line).counts,
                Counts { products: 1, vector: 1, ..Counts::default() },
                "{line}"
            );
        }
        let products = NESTED.replace("v_fmac_f32", "v_wmma_f32_16x16x16_f16");
        assert_eq!(
            amd_step(&products, Iterations { staging: 3, work: 8 }).map(|step| step.products),
            Ok(8)
        );
    }

    const NESTED: &str = "\
BB0:
\tv_mov_b32 v0, 0
BB1:
\tv_add_u32 v1, v2, v3
BB2:
\tbuffer_load_dword v4, v5, s[0:3], 0 offen
\tv_and_b32 v4, v4, v5
\ts_cbranch_scc0 BB2
BB3:
\tds_read_b128 v[0:3], v4
\tv_fmac_f32 v6, v0, v1
\tv_fmac_f32 v7, v0, v1
\ts_cbranch_scc0 BB3
\ts_branch BB1
BB4:
\tv_fmac_f32 v6, v0, v1
\ts_cbranch_scc0 BB4
";

    #[test]
    fn inner_loops_count_with_their_iterations() {
        let step = amd_step(NESTED, Iterations { staging: 3, work: 32 }).expect("has a loop");
        let expected = Counts {
            multiply_adds: 32,
            products: 0,
            vector: 1 + 3 + 32,
            paired: 0,
            shared_bytes: 16 * 16,
            loads: 3,
            words: 3,
        };
        assert_eq!(step, expected);
    }

    #[test]
    fn both_ways_to_write_a_loop_are_read() {
        let own = NESTED.replace(":\n", "\n").replace(" BB", " block:BB");
        assert_eq!(amd_loops(&own).len(), 4);
        let iterations = Iterations { staging: 3, work: 32 };
        assert_eq!(amd_step(&own, iterations), amd_step(NESTED, iterations));
    }

    #[test]
    fn the_body_of_the_main_loop_is_bare() {
        let body = body(&NESTED.replace("v_add_u32 v1, v2, v3", "v_add_u32 v1, v2, v3  ; 1234"));
        assert!(body.starts_with("\tv_add_u32 v1, v2, v3\n\tbuffer_load_dword"), "{body}");
        assert!(body.ends_with("\tv_fmac_f32 v7, v0, v1\n"), "{body}");
        assert!(!body.contains("BB"), "{body}");
    }

    #[test]
    fn a_loop_around_the_main_loop_is_left_out() {
        let around = NESTED.replacen(
            "BB0:\n\tv_mov_b32 v0, 0\n",
            "BB0:\n\tv_mov_b32 v0, 0\nBB9:\n\tv_mov_b32 v0, 0\n",
            1,
        );
        let around =
            around.replacen("\ts_branch BB1\n", "\ts_branch BB1\n\ts_cbranch_scc0 BB9\n", 1);
        let iterations = Iterations { staging: 3, work: 32 };
        assert_eq!(amd_loops(&around).len(), 5);
        assert_eq!(amd_step(&around, iterations), amd_step(NESTED, iterations));
    }

    #[test]
    fn what_a_loop_leaves_to_is_none_of_it() {
        let text = "\
BB1:
\ts_cbranch_scc0 BB2
\ts_branch BB3
BB2:
\tv_add_u32 v1, v2, v3
\ts_branch BB9
BB3:
\tv_fmac_f32 v6, v0, v1
\ts_branch BB1
BB9:
";
        let expected = Counts { multiply_adds: 1, vector: 1, ..Counts::default() };
        assert_eq!(amd_step(text, Iterations { staging: 1, work: 1 }), Ok(expected));
    }

    #[test]
    fn a_step_of_another_size_is_refused() {
        let refused = amd_step(NESTED, Iterations { staging: 3, work: 33 });
        assert_eq!(refused, Err("a step has 32 multiply-adds, not 33".into()));
    }

    #[test]
    fn without_a_main_loop_everything_is_a_step() {
        let text =
            "BB0:\n\tv_fmac_f32 v6, v0, v1\nBB1:\n\tv_add_u32 v1, v2, v3\n\ts_cbranch_scc0 BB1\n";
        let expected = Counts { multiply_adds: 1, vector: 1 + 4, ..Counts::default() };
        assert_eq!(amd_step(text, Iterations { staging: 4, work: 1 }), Ok(expected));
    }
}
