//! NVK: assembly of NVIDIA's multiprocessors, results before an equals sign. Registers that begin
//! with `u` belong to the unit for what is the same in all invocations.

use super::{Counts, Line};

/// What computes nothing.
const OTHER: [&str; 19] = [
    "st", "stg", "sts", "ldc", "ldcu", "ldsm", "bar", "membar", "bra", "bssy", "bsync", "bclear",
    "break", "nop", "exit", "ccctl", "warpsync", "out", "depbar",
];

pub(super) fn line(text: &str) -> Line {
    let text = text.split("//").next().unwrap_or_default().trim();
    if text.starts_with("block") {
        return Line::label(text.split_whitespace().nth(2).unwrap_or_default());
    }
    if text.is_empty() || text.starts_with('}') {
        return Line::default();
    }
    let is_conditional = text.starts_with('@');
    let text = match is_conditional {
        true => text.split_once(' ').map_or("", |(_, instruction)| instruction.trim_start()),
        false => text,
    };
    let (result, instruction) = text.split_once('=').unwrap_or(("", text));
    let name = instruction.split_whitespace().next().unwrap_or_default();
    let operation = name.split('.').next().unwrap_or_default();
    if operation == "bra" {
        let target = text.split_whitespace().next_back().unwrap_or_default();
        return Line::branch(target, !is_conditional && text.contains(" pT "));
    }
    Line::counting(match operation {
        "ld" if name.contains(".shared") => Counts::shared_load(4 * words(name)),
        "ld" if name.contains(".global") => Counts::load(words(name)),
        "ld" => Counts::OTHER,
        _ if OTHER.contains(&operation) || result.starts_with('u') => Counts::OTHER,
        "ffma" => Counts::MULTIPLY_ADD,
        "hmma" => Counts::PRODUCT,
        _ => Counts::VECTOR,
    })
}

fn words(name: &str) -> u64 {
    let bits = name.rsplit(".b").next().and_then(|bits| bits.parse::<u64>().ok());
    bits.map_or(1, |bits| bits / 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let cases = [
            (
                "      r36      = ffma.ftz r40 r44 r36     // delay=1 wt=100010",
                Counts::MULTIPLY_ADD,
            ),
            ("      r8       = sel p1 r10 r8            // delay=1", Counts::VECTOR),
            ("@!p0  r8       = iadd3 r9 0x1 rZ          // delay=4", Counts::VECTOR),
            ("      ur13     = iadd3 ur17 0x1 rZ        // delay=4", Counts::OTHER),
            ("      ur3      = ldc.b32 c[0x0][+0x0]     // delay=2 wr:3", Counts::OTHER),
            ("      r4..8    = ld.shared.strong.cta.b128 [r3+0x10]", Counts::shared_load(16)),
            ("      r4       = ld.global.a64.constant.b32 [r2..4+0x10]", Counts::load(1)),
            ("                 bar.sync                 // delay=5", Counts::OTHER),
            ("      r68..72  = hmma.m16n8k16.f32 r56..60 r64..66 r68..72", Counts::PRODUCT),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text).counts, expected, "{text}");
        }
    }

    #[test]
    fn branches_and_blocks_have_names() {
        assert_eq!(line("block.u 37 L55 [36] -> {"), Line::label("L55"));
        assert_eq!(line("   bra pT L5       // delay=1"), Line::branch("L5", true));
        assert_eq!(line("@!p0     bra pT L61    // delay=1"), Line::branch("L61", false));
        assert_eq!(line("   bra !up0 L84    // delay=1"), Line::branch("L84", false));
    }
}
