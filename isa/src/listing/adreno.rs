//! Turnip: assembly of Adreno's shader processors. One instruction may be repeated for neighbouring
//! registers.

use super::{Counts, Line};

/// What begins the names of instructions that compute nothing.
const OTHER: [&str; 22] = [
    "ld", "st", "isam", "sam", "resinfo", "bar", "fence", "br", "jump", "end", "sleep", "getone",
    "pred", "shps", "shpe", "kill", "nop", "atomic", "alias", "getlast", "ray", "@",
];

pub(super) fn line(text: &str) -> Line {
    let text = text.trim();
    if let Some((label, "")) = text.split_once(':') {
        return Line::label(label);
    }
    let mut rest = text;
    let mut times = 1;
    while let Some((flag, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        if let Some(repeats) = flag.strip_prefix("rpt") {
            times = 1 + repeats.parse::<u64>().unwrap_or(0);
        }
        rest = after;
    }
    if let Some((_, target)) = rest.split_once('#')
        && target.starts_with('l')
    {
        return Line::branch(target, rest.starts_with("jump"));
    }
    let name = rest.split_whitespace().next().unwrap_or_default();
    // What is no instruction has no small letter in front.
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Line::default();
    }
    let counts = match name {
        _ if name.starts_with("ldl") => Counts::shared_load(4 * words(rest)),
        _ if name.starts_with("ldib") || name.starts_with("isam") || name.starts_with("ldg") => {
            Counts::load(words(rest))
        }
        _ if OTHER.iter().any(|other| name.starts_with(other)) => Counts::OTHER,
        "mad.f32" => Counts::MULTIPLY_ADD,
        _ => Counts::VECTOR,
    };
    Line::counting(counts.times(times))
}

/// Of an image, components by letters; of memory, the last operand.
fn words(text: &str) -> u64 {
    let components = text
        .split('(')
        .filter_map(|part| part.split_once(')'))
        .find(|(part, _)| !part.is_empty() && part.chars().all(|c| "xyzw".contains(c)));
    if let Some((components, _)) = components {
        return components.len() as u64;
    }
    text.rsplit(',').next().and_then(|last| last.trim().parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let cases = [
            ("(sy)mad.f32 r12.z, r1.w, r3.z, (last)r12.z", Counts::MULTIPLY_ADD),
            ("(rpt3)mad.f32 r1.x, r2.x, r3.x, (r)r1.x", Counts::MULTIPLY_ADD.times(4)),
            ("(ss)(rpt1)add.u r1.x, (r)r2.x, r3.x", Counts::VECTOR.times(2)),
            ("(rpt5)nop", Counts::OTHER),
            ("ldl.u32 r1.x, l[r2.x], 4", Counts::shared_load(16)),
            ("isam.v.base0 (u32)(x)r20.x, r19.w, s#0, t#1", Counts::load(1)),
            ("isam.v.base0 (u32)(xyzw)r20.x, r19.w, s#0, t#1", Counts::load(4)),
            ("stib.b.untyped.1d.u32.1.imm.base0 r1.x, r2.x, 1", Counts::OTHER),
            ("; num_ubos:           0", Counts::OTHER),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text).counts, expected, "{text}");
        }
    }

    #[test]
    fn branches_and_labels_have_names() {
        assert_eq!(line("l1509:"), Line::label("l1509"));
        assert_eq!(line("jump #l1509"), Line::branch("l1509", true));
        assert_eq!(line("(ss)br !p0.y, #l2495"), Line::branch("l2495", false));
    }
}
