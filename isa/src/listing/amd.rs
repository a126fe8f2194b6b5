//! RADV: machine code as LLVM prints it, and for families that LLVM does not know the driver's own
//! last form, which writes results before an equals sign.

use super::{Counts, Line};

pub(super) fn line(text: &str) -> Line {
    if text.starts_with("BB") {
        return Line::label(text.trim_end_matches(':'));
    }
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let is_jump = name.starts_with("s_branch");
    match words.next() {
        Some(target) if is_jump || name.starts_with("s_cbranch") => {
            Line::branch(target.trim_start_matches("block:"), is_jump)
        }
        _ => Line::counting(counts(text)),
    }
}

fn counts(line: &str) -> Counts {
    let mut counts = Counts::default();
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
        if name.starts_with("buffer_load") || name.starts_with("global_load") {
            counts += Counts::load(words(name));
        }
    }
    counts
}

/// Words of a load by its name: `dwordx4` and `b128` have four.
fn words(name: &str) -> u64 {
    let end = name.rsplit(['_', 'x']).next().unwrap_or_default();
    match end {
        "4" | "b128" => 4,
        "3" | "b96" => 3,
        "2" | "b64" => 2,
        _ => 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let counts = |multiply_adds, vector, paired, shared_bytes, words| Counts {
            multiply_adds,
            vector,
            paired,
            shared_bytes,
            loads: u64::from(words > 0),
            words,
            ..Counts::OTHER
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
            ("\tbuffer_load_dwordx4 v[0:3], v1, s[0:3], 0 offen", counts(0, 0, 0, 0, 4)),
            ("\tbuffer_load_b96 v[0:2], v1, s[0:3], 0 offen", counts(0, 0, 0, 0, 3)),
            ("\ts_buffer_load_dword s0, s[0:3], 0", counts(0, 0, 0, 0, 0)),
            ("\ts_add_u32 s0, s1, s2", counts(0, 0, 0, 0, 0)),
            (" v1: %7:v[17] = v_fmac_f32 %8:v[10], %9:v[94], %6:v[17]", counts(1, 1, 0, 0, 0)),
            (" v4: %7:v[92-95] = ds_read_b128 %8:v[88] storage:shared", counts(0, 0, 0, 16, 0)),
            ("BB1:", counts(0, 0, 0, 0, 0)),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text).counts, expected, "{text}");
        }
    }
}
