//! Reads the instructions that a driver made of a kernel: where its main loop is, and what one step
//! of it takes.
//!
//! Mesa prints machine code with LLVM, and where LLVM does not know a family, its own last form,
//! which writes results before an equals sign.

use std::collections::HashMap;
use std::ops::{AddAssign, Range};

/// What the instructions of a range do. A line that issues two operations counts as both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Multiply-adds of floats.
    pub(crate) multiply_adds: u64,
    /// Products of cooperative matrices.
    pub(crate) products: u64,
    /// Vector operations, multiply-adds and products included.
    pub(crate) vector: u64,
    /// Vector operations that were issued in pairs.
    pub(crate) paired: u64,
    /// Bytes that an invocation loads from workgroup memory.
    pub(crate) shared_bytes: u64,
    /// Loads from buffers.
    pub(crate) loads: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.multiply_adds += other.multiply_adds;
        self.products += other.products;
        self.vector += other.vector;
        self.paired += other.paired;
        self.shared_bytes += other.shared_bytes;
        self.loads += other.loads;
    }
}

impl Counts {
    fn of(line: &str) -> Self {
        let mut counts = Self::default();
        let text = line.split(';').next().unwrap_or_default();
        let text = text.split_once(" = ").map_or(text, |(_, instruction)| instruction);
        let names = text.split("::").filter_map(|part| part.split_whitespace().next());
        let is_pair = text.contains("::");
        for name in names {
            if name.starts_with("v_") {
                counts.vector += 1;
                counts.paired += u64::from(is_pair);
                counts.multiply_adds += u64::from(is_multiply_add(name));
                counts.products += u64::from(name.starts_with("v_wmma"));
            }
            counts.shared_bytes += shared_bytes(name);
            counts.loads +=
                u64::from(name.starts_with("buffer_load") || name.starts_with("global_load"));
        }
        counts
    }

    /// What a main loop is there for.
    fn work(self) -> u64 {
        self.multiply_adds + self.products
    }

    fn times(self, iterations: u64) -> Self {
        Self {
            multiply_adds: self.multiply_adds * iterations,
            products: self.products * iterations,
            vector: self.vector * iterations,
            paired: self.paired * iterations,
            shared_bytes: self.shared_bytes * iterations,
            loads: self.loads * iterations,
        }
    }
}

/// Those of mixed precision are conversions here: sums are in f32 on both sides.
fn is_multiply_add(name: &str) -> bool {
    let name = name.trim_start_matches("v_").trim_start_matches("dual_");
    name.contains("f32")
        && !name.contains("mix")
        && ["fma", "mac", "mad"].iter().any(|operation| name.starts_with(operation))
}

fn shared_bytes(name: &str) -> u64 {
    let Some(width) = name.strip_prefix("ds_read").or_else(|| name.strip_prefix("ds_load")) else {
        return 0;
    };
    // Two loads at once, from two places.
    let loads =
        if width.contains('2') && !width.contains("32") && !width.contains("128") { 2 } else { 1 };
    let loads = if width.starts_with("2") || width.starts_with("_2") { 2 } else { loads };
    let bits = ["128", "96", "64", "32", "16", "8"].into_iter().find(|bits| width.ends_with(bits));
    loads * bits.and_then(|bits| bits.parse::<u64>().ok()).unwrap_or(0) / 8
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
pub(crate) fn step(listing: &str, iterations: Iterations) -> Result<Counts, String> {
    let lines: Vec<Counts> = listing.lines().map(Counts::of).collect();
    let loops = loops(listing);
    let main = main_loop(&loops, &lines);
    let mut step = sum(&lines[main.clone()]);
    for range in inside(&loops, &main) {
        let body = sum(&lines[range.clone()]);
        let times = match body.work() {
            0 => iterations.staging,
            own => iterations.work / own,
        };
        step += body.times(times - 1);
    }
    match step.work() == iterations.work {
        true => Ok(step),
        false => Err(format!("a step has {} multiply-adds, not {}", step.work(), iterations.work)),
    }
}

/// The instructions of the main loop, without its labels, branches and comments: what a pipeline
/// simulator takes.
pub(crate) fn body(listing: &str) -> String {
    let lines: Vec<Counts> = listing.lines().map(Counts::of).collect();
    let main = main_loop(&loops(listing), &lines);
    let texts = listing
        .lines()
        .skip(main.start)
        .take(main.len())
        .map(|line| line.split(';').next().unwrap_or_default());
    let is_kept = |text: &&str| {
        !text.trim().is_empty() && !text.starts_with("BB") && !text.contains("branch")
    };
    texts.filter(is_kept).map(|text| format!("{}\n", text.trim_end())).collect()
}

/// The outermost loop with the most multiply-adds, or products of matrices, of those that nest no
/// deeper than two, as loops around them go over kernels; where none has any, all there is.
fn main_loop(loops: &[Range<usize>], lines: &[Counts]) -> Range<usize> {
    let is_shallow =
        |one: &Range<usize>| inside(loops, one).all(|inner| inside(loops, inner).next().is_none());
    let shallow: Vec<_> = loops.iter().filter(|one| is_shallow(one)).cloned().collect();
    let is_outermost = |one: &&Range<usize>| !shallow.iter().any(|other| is_inside(one, other));
    let work = |range: &&Range<usize>| sum(&lines[(*range).clone()]).work();
    let most = shallow.iter().filter(is_outermost).max_by_key(work);
    most.filter(|main| work(main) > 0).cloned().unwrap_or(0..lines.len())
}

fn is_inside(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    inner != outer && outer.start <= inner.start && inner.end <= outer.end
}

fn inside<'a>(
    loops: &'a [Range<usize>],
    outer: &'a Range<usize>,
) -> impl Iterator<Item = &'a Range<usize>> {
    loops.iter().filter(|one| is_inside(one, outer))
}

fn sum(lines: &[Counts]) -> Counts {
    let mut all = Counts::default();
    lines.iter().for_each(|line| all += *line);
    all
}

/// Loops, as lines: from a block to the last branch back to it.
fn loops(listing: &str) -> Vec<Range<usize>> {
    let mut labels = HashMap::new();
    let mut loops: HashMap<usize, usize> = HashMap::new();
    for (number, line) in listing.lines().enumerate() {
        if line.starts_with("BB") {
            labels.insert(line.trim_end_matches(':'), number);
        }
        let mut words = line.split_whitespace();
        let is_branch = words
            .next()
            .is_some_and(|name| name.starts_with("s_branch") || name.starts_with("s_cbranch"));
        let target =
            words.next().filter(|_| is_branch).map(|target| target.trim_start_matches("block:"));
        if let Some(&start) = target.and_then(|target| labels.get(target)) {
            loops.insert(start, number + 1);
        }
    }
    loops.into_iter().map(|(start, end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let counts = |multiply_adds, vector, paired, shared_bytes, loads| Counts {
            multiply_adds,
            products: 0,
            vector,
            paired,
            shared_bytes,
            loads,
        };
        let cases = [
            ("\tv_fmac_f32_e32 v1, v2, v3    ; 56020702", counts(1, 1, 0, 0, 0)),
            ("\tv_mac_f32_e32 v1, v2, v3", counts(1, 1, 0, 0, 0)),
            ("\tv_fma_mix_f32 v1, v2, 1.0, v3", counts(0, 1, 0, 0, 0)),
            ("\tv_mad_u32_u24 v1, v2, v3, v4", counts(0, 1, 0, 0, 0)),
            ("\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_mov_b32 v3, v4", counts(1, 2, 2, 0, 0)),
            ("\tds_read_b128 v[0:3], v4 offset:16", counts(0, 0, 0, 16, 0)),
            ("\tds_load_b32 v0, v4", counts(0, 0, 0, 4, 0)),
            ("\tds_read2_b32 v[0:1], v4 offset1:1", counts(0, 0, 0, 8, 0)),
            ("\tds_load_2addr_stride64_b64 v[0:3], v4", counts(0, 0, 0, 16, 0)),
            ("\tds_write_b128 v4, v[0:3]", counts(0, 0, 0, 0, 0)),
            ("\tbuffer_load_dword v0, v1, s[0:3], 0 offen", counts(0, 0, 0, 0, 1)),
            ("\ts_add_u32 s0, s1, s2", counts(0, 0, 0, 0, 0)),
            (" v1: %7:v[17] = v_fmac_f32 %8:v[10], %9:v[94], %6:v[17]", counts(1, 1, 0, 0, 0)),
            (" v4: %7:v[92-95] = ds_read_b128 %8:v[88] storage:shared", counts(0, 0, 0, 16, 0)),
            ("BB1:", counts(0, 0, 0, 0, 0)),
        ];
        for (line, expected) in cases {
            assert_eq!(Counts::of(line), expected, "{line}");
        }
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
                Counts::of(line),
                Counts { products: 1, vector: 1, ..Counts::default() },
                "{line}"
            );
        }
        let products = NESTED.replace("v_fmac_f32", "v_wmma_f32_16x16x16_f16");
        assert_eq!(
            step(&products, Iterations { staging: 3, work: 8 }).map(|step| step.products),
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
        let step = step(NESTED, Iterations { staging: 3, work: 32 }).expect("has a loop");
        let expected = Counts {
            multiply_adds: 32,
            products: 0,
            vector: 1 + 3 + 32,
            paired: 0,
            shared_bytes: 16 * 16,
            loads: 3,
        };
        assert_eq!(step, expected);
    }

    #[test]
    fn both_ways_to_write_a_loop_are_read() {
        let own = NESTED.replace(":\n", "\n").replace(" BB", " block:BB");
        assert_eq!(loops(&own).len(), 4);
        let iterations = Iterations { staging: 3, work: 32 };
        assert_eq!(step(&own, iterations), step(NESTED, iterations));
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
        assert_eq!(loops(&around).len(), 5);
        assert_eq!(step(&around, iterations), step(NESTED, iterations));
    }

    #[test]
    fn a_step_of_another_size_is_refused() {
        let refused = step(NESTED, Iterations { staging: 3, work: 33 });
        assert_eq!(refused, Err("a step has 32 multiply-adds, not 33".into()));
    }

    #[test]
    fn without_a_main_loop_everything_is_a_step() {
        let text =
            "BB0:\n\tv_fmac_f32 v6, v0, v1\nBB1:\n\tv_add_u32 v1, v2, v3\n\ts_cbranch_scc0 BB1\n";
        let expected = Counts { multiply_adds: 1, vector: 1 + 4, ..Counts::default() };
        assert_eq!(step(text, Iterations { staging: 4, work: 1 }), Ok(expected));
    }
}
