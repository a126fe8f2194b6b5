//! Faults, and where those of a compiler go in a SPIR-V module.

use std::fmt;

/// What a miscompiling driver makes of an instruction.
#[derive(Debug)]
enum Change {
    /// Another instruction with the same operands.
    Opcode(u16),
    /// Nothing.
    Drop,
}

/// A kind of fault.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    opcode: u16,
    change: Change,
}

const OP_ENTRY_POINT: u16 = 15;
const OP_FADD: u16 = 129;
const OP_FSUB: u16 = 131;
const OP_ULESS_THAN: u16 = 176;
const OP_ULESS_THAN_EQUAL: u16 = 178;
const OP_CONTROL_BARRIER: u16 = 224;

const KINDS: [Kind; 3] = [
    Kind { name: "add", opcode: OP_FADD, change: Change::Opcode(OP_FSUB) },
    Kind { name: "compare", opcode: OP_ULESS_THAN, change: Change::Opcode(OP_ULESS_THAN_EQUAL) },
    Kind { name: "barrier", opcode: OP_CONTROL_BARRIER, change: Change::Drop },
];

/// What a driver does wrong.
#[derive(Debug)]
pub(crate) enum Plan {
    /// It miscompiles a kernel.
    Miscompile(Fault),
    /// It has no memory for the object whose creation has this number, counted from 0, and then has
    /// some again.
    Refuse(usize),
    /// It loses the device at the submission of this number.
    Lose(usize),
    /// Timestamps that are to be written first are written last, and the other way round.
    Backwards,
}

impl Plan {
    /// Reads `refuse:CALL`, `lose:SUBMISSION`, `clock:backwards`, or a fault of a compiler.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.parse().map_err(|_| format!("expected a number, found \"{text}\""));
        match text.split_once(':') {
            Some(("refuse", call)) => Ok(Self::Refuse(number(call)?)),
            Some(("lose", submission)) => Ok(Self::Lose(number(submission)?)),
            Some(("clock", "backwards")) => Ok(Self::Backwards),
            _ => Fault::parse(text).map(Self::Miscompile),
        }
    }
}

/// A fault in a kernel.
#[derive(Debug)]
pub(crate) struct Fault {
    kernel: String,
    kind: &'static Kind,
    /// Which of the instructions that it could change, from 0 on; all of them if absent.
    place: Option<usize>,
}

/// A module with a fault in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) code: Vec<u32>,
    /// How many instructions were changed.
    pub(crate) changed: usize,
    /// How many there are of their kind.
    pub(crate) found: usize,
}

impl Fault {
    /// Reads `KERNEL:FAULT` or `KERNEL:FAULT:PLACE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(kernel), Some(name), place, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("expected KERNEL:FAULT or KERNEL:FAULT:PLACE, found \"{text}\""));
        };
        let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names = KINDS.map(|kind| kind.name).join(", ");
            format!("expected one of the faults {names}, found \"{name}\"")
        })?;
        let place = place.map(|place| {
            place.parse().map_err(|_| format!("expected a number, found \"{place}\""))
        });
        Ok(Self { kernel: kernel.to_owned(), kind, place: place.transpose()? })
    }

    /// The module with this fault, if its entry point is the kernel and there is an instruction to
    /// change.
    pub(crate) fn plant(&self, code: &[u32]) -> Option<Planted> {
        let (header, _) = code.split_at_checked(HEADER)?;
        if !instructions(code).any(|instruction| entry_point_is(instruction, &self.kernel)) {
            return None;
        }
        let mut planted = Planted { code: header.to_vec(), changed: 0, found: 0 };
        for instruction in instructions(code) {
            if opcode(instruction) != self.kind.opcode {
                planted.code.extend(instruction);
                continue;
            }
            if self.place.is_none_or(|place| place == planted.found) {
                planted.changed += 1;
                planted.code.extend(self.kind.change.apply(instruction));
            } else {
                planted.code.extend(instruction);
            }
            planted.found += 1;
        }
        (planted.changed > 0).then_some(planted)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kernel, self.kind.name)
    }
}

impl Change {
    fn apply(&self, instruction: &[u32]) -> Vec<u32> {
        match *self {
            Self::Drop => Vec::new(),
            Self::Opcode(opcode) => {
                let mut changed = instruction.to_vec();
                changed[0] = changed[0] & 0xffff_0000 | u32::from(opcode);
                changed
            }
        }
    }
}

/// Words before the first instruction: magic number, version, generator, bound, schema.
const HEADER: usize = 5;

/// The instructions of a module. The first word of each has its length in the upper half; one whose
/// length cannot be ends the walk.
fn instructions(code: &[u32]) -> impl Iterator<Item = &[u32]> {
    let mut rest = code.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = (rest.first()? >> 16) as usize;
        let (instruction, after) = rest.split_at_checked(length.max(1))?;
        rest = after;
        Some(instruction)
    })
}

fn opcode(instruction: &[u32]) -> u16 {
    let [low, high, ..] = instruction[0].to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// An entry point's words: length and opcode, stage, function, then its name, ended by a zero byte.
fn entry_point_is(instruction: &[u32], name: &str) -> bool {
    let Some(words) = instruction.get(3..) else { return false };
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0);
    opcode(instruction) == OP_ENTRY_POINT && bytes.eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPIR-V of a kernel `sum` with two additions, one comparison and one barrier.
    fn module() -> Vec<u32> {
        let source = "
            @group(0) @binding(0) var<storage, read_write> y: array<f32>;
            var<workgroup> copies: array<f32, 8>;
            @compute @workgroup_size(8)
            fn sum(@builtin(local_invocation_index) lane: u32) {
                copies[lane] = y[lane] + 1.0;
                workgroupBarrier();
                if lane < 7u { y[lane] = copies[lane] + copies[lane + 1u]; }
            }";
        let module = naga::front::wgsl::parse_str(source).expect("parses");
        let (flags, capabilities) =
            (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
        let info =
            naga::valid::Validator::new(flags, capabilities).validate(&module).expect("is valid");
        // As wgpu does for dynconv, whose kernels write workgroup memory before they read it.
        let zero_initialize_workgroup_memory =
            naga::back::spv::ZeroInitializeWorkgroupMemoryMode::None;
        let options =
            naga::back::spv::Options { zero_initialize_workgroup_memory, ..Default::default() };
        naga::back::spv::write_vec(&module, &info, &options, None).expect("is written")
    }

    fn plant(fault: &str) -> Option<Planted> {
        Fault::parse(fault).expect("is a fault").plant(&module())
    }

    fn count(code: &[u32], wanted: u16) -> usize {
        instructions(code).filter(|instruction| opcode(instruction) == wanted).count()
    }

    #[test]
    fn each_fault_changes_its_instructions_and_no_other() {
        for (fault, found, opcode, other) in [
            ("sum:add", 2, OP_FADD, Some(OP_FSUB)),
            ("sum:compare", 1, OP_ULESS_THAN, Some(OP_ULESS_THAN_EQUAL)),
            ("sum:barrier", 1, OP_CONTROL_BARRIER, None),
        ] {
            let planted = plant(fault).expect("is planted");
            assert_eq!((planted.changed, planted.found), (found, found), "{fault}");
            assert_eq!(count(&planted.code, opcode), 0, "{fault}");
            let dropped = if other.is_none() { found } else { 0 };
            assert_eq!(
                instructions(&planted.code).count(),
                instructions(&module()).count() - dropped,
                "{fault}"
            );
            if let Some(other) = other {
                assert_eq!(count(&planted.code, other), found, "{fault}");
                let differ = planted.code.iter().zip(&module()).filter(|(a, b)| a != b).count();
                assert_eq!(differ, found, "{fault}");
            }
        }
    }

    #[test]
    fn a_place_is_changed_alone() {
        let planted = [0, 1].map(|place| plant(&format!("sum:add:{place}")).expect("is planted"));
        assert_ne!(planted[0], planted[1]);
        for Planted { code, changed, found } in planted {
            assert_eq!((changed, found), (1, 2));
            assert_eq!((count(&code, OP_FADD), count(&code, OP_FSUB)), (1, 1));
        }
        assert_eq!(plant("sum:add:2"), None);
    }

    #[test]
    fn other_modules_are_left_alone() {
        assert_eq!(plant("su:add"), None);
        assert_eq!(plant("summary:add"), None);
        let fault = Fault::parse("sum:add").expect("is a fault");
        // Cut short, or with lengths that cannot be.
        for code in [&[][..], &module()[..4], &module()[..5], &[0; 9], &[u32::MAX; 9]] {
            assert_eq!(fault.plant(code), None);
        }
    }

    #[test]
    fn faults_that_are_no_compilers_are_read() {
        assert!(matches!(Plan::parse("refuse:12"), Ok(Plan::Refuse(12))));
        assert!(matches!(Plan::parse("lose:0"), Ok(Plan::Lose(0))));
        assert!(matches!(Plan::parse("clock:backwards"), Ok(Plan::Backwards)));
        assert!(matches!(Plan::parse("sum:add"), Ok(Plan::Miscompile(_))));
        assert_eq!(Plan::parse("lose:x").expect_err("is wrong"), "expected a number, found \"x\"");
        assert!(Plan::parse("clock:slow").is_err());
    }

    #[test]
    fn wrong_faults_are_refused() {
        let refused = |text| Fault::parse(text).expect_err("is wrong");
        assert_eq!(
            refused("conv_tiled"),
            "expected KERNEL:FAULT or KERNEL:FAULT:PLACE, found \"conv_tiled\""
        );
        assert_eq!(
            refused("a:add:1:2"),
            "expected KERNEL:FAULT or KERNEL:FAULT:PLACE, found \"a:add:1:2\""
        );
        assert_eq!(
            refused("a:multiply"),
            "expected one of the faults add, compare, barrier, found \"multiply\""
        );
        assert_eq!(refused("a:add:x"), "expected a number, found \"x\"");
    }
}
