//! PanVK: assembly of Valhall. Branches tell how many instructions they skip, from the next one on.

use super::{Counts, Line};

/// What begins the names of instructions that compute nothing.
const OTHER: [&str; 14] = [
    "LD", "LEA", "STORE", "ST_", "BRANCH", "BARRIER", "NOP", "ATOM", "ATEST", "BLEND", "TEX",
    "WAIT", "END", "CLPER",
];

/// A line for each instruction.
pub(super) fn lines(listing: &str) -> Vec<Line> {
    let instructions = listing.lines().map(str::trim).filter(|line| !line.is_empty());
    let numbered = instructions.enumerate();
    numbered
        .flat_map(|(number, text)| [Line::label(&number.to_string()), line(number, text)])
        .collect()
}

fn line(number: usize, text: &str) -> Line {
    let name = text.split_whitespace().next().unwrap_or_default();
    if name.starts_with("BRANCH") {
        let offset = text.split("offset:").nth(1).and_then(|offset| offset.parse::<isize>().ok());
        let target = number.checked_add_signed(1 + offset.unwrap_or(0));
        let is_jump = text.contains(".eq.reconverge 0x0,");
        return Line::branch(&target.unwrap_or(0).to_string(), is_jump);
    }
    Line::counting(match name {
        // What each invocation keeps for itself is a spill.
        _ if text.contains("thread_local_pointer") => Counts::OTHER,
        _ if name.starts_with("LOAD") && text.contains("workgroup_local_pointer") => {
            Counts::shared_load(4 * words(name))
        }
        _ if name.starts_with("LOAD") || name.starts_with("LD_PKA") => Counts::load(words(name)),
        _ if OTHER.iter().any(|other| name.starts_with(other)) => Counts::OTHER,
        "FMA.f32" => Counts::MULTIPLY_ADD,
        _ => Counts::VECTOR,
    })
}

fn words(name: &str) -> u64 {
    let bits = name.split(".i").nth(1).and_then(|rest| rest.split('.').next());
    bits.and_then(|bits| bits.parse::<u64>().ok()).map_or(1, |bits| bits.div_ceil(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let cases = [
            ("FMA.f32 r7, r51, r54, r7^", Counts::MULTIPLY_ADD),
            ("IADD.s32 r0, r57^, u0", Counts::VECTOR),
            ("LD_PKA.i128.unsigned.slot1.wait1 @r4:r5:r6:r7, u9, 0x1000000", Counts::load(4)),
            ("LOAD.i32.unsigned.slot0 @r1, r2^, offset:4", Counts::load(1)),
            ("LOAD.i96.unsigned.slot0 @r1:r2:r3, thread_local_pointer.w0, offset:4", Counts::OTHER),
            ("STORE.i128.slot0 @r8:r9:r10:r11, thread_local_pointer.w0, offset:32", Counts::OTHER),
        ];
        for (text, expected) in cases {
            assert_eq!(line(0, text).counts, expected, "{text}");
        }
    }

    #[test]
    fn branches_count_from_the_next_instruction() {
        let branch = "BRANCHZ.eq.reconverge r1^.h0, offset:-2";
        assert_eq!(line(7, branch), Line::branch("6", false));
        assert_eq!(line(7, "BRANCHZ.eq.reconverge 0x0, offset:3"), Line::branch("11", true));
    }
}
