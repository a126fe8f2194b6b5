//! Honeykrisp: what it prints of a shader, several forms and programs one after another. In the
//! last ones, instructions follow their addresses; the longest program is the kernel, others
//! prepare it.

use super::{Counts, Line};

/// What begins the names of instructions that compute nothing.
const OTHER: [&str; 21] = [
    "load",
    "store",
    "lload",
    "lstore",
    "stack",
    "wait",
    "barrier",
    "jmp",
    "pop_exec",
    "push_exec",
    "if",
    "else",
    "while",
    "stop",
    "trap",
    "nop",
    "device",
    "local",
    "uniform",
    "get_sr",
    "begin",
];

/// A line for each instruction of the kernel.
pub(super) fn lines(listing: &str) -> Vec<Line> {
    let mut programs: Vec<Vec<Line>> = Vec::new();
    for (address, instruction) in listing.lines().filter_map(instruction) {
        if address == 0 || programs.is_empty() {
            programs.push(Vec::new());
        }
        let program = programs.last_mut().expect("was added");
        program.push(Line::label(&address.to_string()));
        program.push(line(address, instruction));
    }
    programs.into_iter().max_by_key(Vec::len).unwrap_or_default()
}

/// Address, and what follows the instruction's bytes.
fn instruction(text: &str) -> Option<(i64, &str)> {
    let (address, rest) = text.trim_start().split_once(": ")?;
    let (bytes, instruction) = rest.split_once(' ')?;
    let is_code = bytes.len() >= 4 && bytes.chars().all(|c| c.is_ascii_hexdigit());
    is_code.then(|| i64::from_str_radix(address, 16).ok()).flatten().map(|a| (a, instruction))
}

fn line(address: i64, instruction: &str) -> Line {
    let mut words = instruction.split_whitespace();
    let name = words.next().unwrap_or_default();
    if name.starts_with("jmp") {
        let distance = words.next().and_then(|distance| distance.parse::<i64>().ok());
        return Line::branch(&(address + distance.unwrap_or(0)).to_string(), false);
    }
    Line::counting(match name {
        "lload" => Counts::shared_load(4 * loaded(instruction)),
        "load" => Counts::load(loaded(instruction)),
        "ffma" => Counts::MULTIPLY_ADD,
        "simd_matmul" => Counts::PRODUCT,
        _ if OTHER.iter().any(|other| name.starts_with(other)) => Counts::OTHER,
        _ => Counts::VECTOR,
    })
}

/// Components, which are named.
fn loaded(instruction: &str) -> u64 {
    let mut fields = instruction.split(',').map(str::trim);
    let is_mask = |field: &&str| !field.is_empty() && "xyzw".starts_with(*field);
    fields.find(is_mask).map_or(1, |mask| mask.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_program_counts() {
        let text = "\
shader: MESA_SHADER_COMPUTE
    32 %0 = @load_preamble (base=8)
   0: f2050100               mov      $r1, u5
   0: 8e05c2a658000000       ffma     r1, r2, r3, r1
   8: 8e05c2a658000000       load     r0_r1_r2, dr0, 0, i32, xyz, b
  10: 8e05c2a658000000       lload    r100_r101_r102_r103, r72l, 0, i32, xyzw
  18: 8e05c2a658000000       wait     0
  1a: 8e05c2a658000000       jmp_any -26
";
        let lines = lines(text);
        let mut all = Counts::OTHER;
        lines.iter().for_each(|line| all += line.counts);
        let load = Counts { loads: 1, words: 3, shared_bytes: 16, ..Counts::MULTIPLY_ADD };
        assert_eq!(all, load);
        assert_eq!(lines.first(), Some(&Line::label("0")));
        assert_eq!(lines.last(), Some(&Line::branch("0", false)));
    }
}
