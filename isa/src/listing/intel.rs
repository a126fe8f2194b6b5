//! ANV: assembly of Intel's execution units. A message to memory stands on a line of its own, after
//! the instruction that sends it.

use super::{Counts, Line};

/// What computes nothing.
const OTHER: [&str; 14] = [
    "send", "sendc", "sends", "sendsc", "sync", "nop", "if", "else", "endif", "break", "cont",
    "halt", "jmpi", "wait",
];

pub(super) fn line(text: &str) -> Line {
    if let Some((label, "")) = text.trim_end().split_once(':') {
        return Line::label(label);
    }
    if let Some((_, message)) = text.split_once("MsgDesc:") {
        return Line::counting(message_counts(text, message));
    }
    let text = match text.strip_prefix('(') {
        Some(rest) => rest.split_once(") ").map_or(rest, |(_, instruction)| instruction),
        None => text,
    };
    let Some((name, rest)) = text.trim_start().split_once('(') else {
        return Line::default();
    };
    let operation = name.split(['.', ' ']).next().unwrap_or_default();
    if operation == "while" {
        let target = rest.split("JIP:").nth(1).and_then(|rest| rest.split_whitespace().next());
        return Line::branch(target.unwrap_or_default(), false);
    }
    Line::counting(match operation {
        _ if OTHER.contains(&operation) => Counts::OTHER,
        "dpas" => Counts::PRODUCT,
        "mad" | "mac" if rest.contains(">F ") => Counts::MULTIPLY_ADD,
        _ => Counts::VECTOR,
    })
}

/// Loads of workgroup memory go to a unit of that name, or to a surface that stands for it.
fn message_counts(text: &str, message: &str) -> Counts {
    let is_load = message.contains("load,") || message.contains("surface read");
    let is_spill = message.contains(" ss )");
    if !is_load || is_spill {
        return Counts::OTHER;
    }
    let words = words(message);
    match text.contains("slm") || message.contains("Surface = 254") {
        true => Counts::shared_load(4 * words),
        false => Counts::load(words),
    }
}

/// `V4`, or four bits of which those are 0 that are loaded.
fn words(message: &str) -> u64 {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
        digits
    };
    if let Some((_, width)) = message.split_once(", V") {
        return number(width).parse().unwrap_or(1);
    }
    let mask = message.split_once("Mask = 0x").map(|(_, mask)| number(mask));
    let mask = mask.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    mask.map_or(1, |mask| u64::from(4 - (mask & 15).count_ones()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let cases = [
            (
                "mad(8)          g46<1>F         g46<8,8,1>F     g80.0<0,1,0>F   g40<1,1,1>F",
                Counts::MULTIPLY_ADD,
            ),
            ("mad(8)          g46<1>D         g46<8,8,1>D     g80.0<0,1,0>D", Counts::VECTOR),
            ("(+f0.0) sel(8)  g2<1>D          g3<8,8,1>D      g4<8,8,1>D", Counts::VECTOR),
            ("cmp.z.f0.1(8)   g81<1>D         g2.3<0,1,0>D    -1D", Counts::VECTOR),
            (
                "sync nop(1)                     null<0,1,0>UB   { align1 WE_all 1N F@4 };",
                Counts::OTHER,
            ),
            ("send(8)         g40UD           g39UD           nullUD", Counts::OTHER),
            ("dpas.8x8(8)     g16<1>F         g8<1,1,0>F      g40<1,1,0>HF", Counts::PRODUCT),
            ("    ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS bti )  BTI 2", Counts::load(4)),
            (
                "    slm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS src1_len = 0 flat )",
                Counts::shared_load(16),
            ),
            ("    ugm MsgDesc: ( load, a32, d32, V8, transpose, src1_len = 0 ss )", Counts::OTHER),
            ("    ugm MsgDesc: ( store, a32, d32, V1, L1STATE_L3MOCS bti )", Counts::OTHER),
            (
                "  dp data 1 MsgDesc: (untyped surface read, Surface = 3, SIMD8, Mask = 0xc)",
                Counts::load(2),
            ),
            (
                "  dp data 1 MsgDesc: (untyped surface read, Surface = 254, SIMD8, Mask = 0x0)",
                Counts::shared_load(16),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text).counts, expected, "{text}");
        }
    }

    #[test]
    fn a_loop_ends_with_its_label() {
        assert_eq!(line("LABEL5:"), Line::label("LABEL5"));
        let end = "(-f0.0) while(8) JIP:  LABEL5                     { align1 1Q };";
        assert_eq!(line(end), Line::branch("LABEL5", false));
    }
}
