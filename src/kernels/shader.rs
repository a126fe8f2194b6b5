//! Shaders and what they are made of.
//!
//! A file of `shaders/` says in its first line which files it imports, by name: `lib/` holds what
//! several kernels share, `elem/` the bindings whose element type varies. The imports `x`, `y` and
//! `bank` stand for the file of the binding's element type; `x_wide` and `y_wide` for the same with
//! loads or stores of several elements at once. A kernel's text is never rewritten: constants are
//! joined in front of it.

use std::fmt::Write as _;

use super::Kernel;
use crate::elem::Elem;

/// A file of `shaders/`: name and text.
pub(super) type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($stem:literal)*) => {
        &[$((
            concat!($folder, "/", $stem, ".wgsl"),
            include_str!(concat!("../../shaders/", $folder, "/", $stem, ".wgsl")),
        )),*]
    };
}

/// A kernel's own file, by its stem.
macro_rules! own_file {
    ($stem:ident) => {
        (
            concat!(stringify!($stem), ".wgsl"),
            include_str!(concat!("../../shaders/", stringify!($stem), ".wgsl")),
        )
    };
}
pub(super) use own_file;

/// What kernels share.
const LIB: &[File] = files!["lib":
    "conv" "dispatch" "epilogue" "numbers" "patch_15x9" "patch_9x6" "patch_simd8" "register_tile"
    "simd8" "source" "store" "store_vec4" "taps_3x3" "tile_7x4" "tile_7x4_simd8" "vectors"
];

/// Bindings in each element type.
const ELEM: &[File] = files!["elem":
    "bank_bf16_storage" "bank_f16_storage" "bank_f32"
    "x_f16" "x_f16_storage" "x_f32" "x_f32_vec2" "x_f32_vec4" "x_scalar"
    "y_f16" "y_f16_storage" "y_f32" "y_f32_vec2" "y_f32_vec4" "y_scalar"
];

/// What a test holds all shaders to.
const IMPORTS: &str = "a shader imports files that there are";

/// Every file of `shaders/`.
pub fn shader_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kernels = Kernel::ALL.iter().map(|kernel| kernel.file());
    kernels.chain(LIB.iter().copied()).chain(ELEM.iter().copied())
}

/// What a file imports, by its first line.
pub fn imports(text: &str) -> impl Iterator<Item = &str> {
    let first = text.lines().next().and_then(|line| line.strip_prefix("// import "));
    first.into_iter().flat_map(|names| names.split(", "))
}

/// Whether a file of `lib/` is what an import names.
fn is_named(file: &str, import: &str) -> bool {
    let stem = file.strip_prefix("lib/").and_then(|name| name.strip_suffix(".wgsl"));
    stem == Some(import)
}

/// A binding whose element type varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Input of a convolution or pooling.
    X,
    /// Output of a convolution, and the residual that lies as it.
    Y,
    /// Kernel bank.
    Bank,
}

impl Slot {
    /// The slot that an import stands for, if it stands for one.
    #[must_use]
    pub fn of(import: &str) -> Option<Self> {
        match import {
            "x" | "x_wide" => Some(Self::X),
            "y" | "y_wide" => Some(Self::Y),
            "bank" => Some(Self::Bank),
            _ => None,
        }
    }
}

/// Elements of the input that one load takes, and of the output that one store takes: constants of
/// kernels that take several.
pub(crate) const X_WIDTH: &str = "X_WIDTH";
pub(crate) const Y_WIDTH: &str = "Y_WIDTH";

/// Value of a module constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Const {
    /// `u32`
    U32(u32),
    /// `bool`
    Bool(bool),
    /// The name of a type.
    Type(&'static str),
}

/// A kernel with values for its module constants: what one pipeline is compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: Kernel,
    /// Element type of each of the kernel's slots.
    pub elems: Vec<Elem>,
    /// Constants by name, in the order written.
    pub consts: Vec<(&'static str, Const)>,
}

impl Variant {
    /// The complete WGSL text.
    #[must_use]
    pub fn source(&self) -> String {
        let mut text = String::new();
        if self.knows_f16() {
            text.push_str("enable f16;\n");
        }
        if self.kernel.def().matrices {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for (name, value) in &self.consts {
            // Writing to a String cannot fail.
            let _ = match value {
                Const::U32(v) => writeln!(text, "const {name}: u32 = {v}u;"),
                Const::Bool(v) => writeln!(text, "const {name}: bool = {v};"),
                Const::Type(v) => writeln!(text, "alias {name} = {v};"),
            };
        }
        for (file, part) in self.files() {
            let _ = writeln!(text, "\n// ---- shaders/{file}\n{part}");
        }
        text
    }

    /// Whether the text has f16, for which a device must have `SHADER_F16`.
    #[must_use]
    pub fn knows_f16(&self) -> bool {
        self.elems.contains(&Elem::F16)
            || self.consts.iter().any(|(_, value)| *value == Const::Type("f16"))
    }

    /// The files of `shaders/` that the text is joined from, imports first: name and text.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &'static str)> {
        let mut files = Vec::new();
        self.gather(self.kernel.file(), &mut files);
        files
    }

    /// Adds a file after what it imports, unless it is there.
    fn gather(&self, file: File, files: &mut Vec<File>) {
        for import in imports(file.1) {
            let imported = self.resolve(import);
            if !files.contains(&imported) {
                self.gather(imported, files);
            }
        }
        files.push(file);
    }

    /// The file that an import names. Those of slots follow from the slot's element type, and from
    /// how many elements one load or store takes.
    fn resolve(&self, import: &str) -> File {
        let [x_width, y_width] = [X_WIDTH, Y_WIDTH].map(|name| self.find(name).unwrap_or(1));
        let name = match (import, self.elem(import)) {
            ("x", Elem::F16) => "elem/x_f16.wgsl",
            ("x", Elem::F16Storage | Elem::Bf16Storage) => "elem/x_f16_storage.wgsl",
            ("x" | "x_wide", Elem::F32) if x_width == 4 => "elem/x_f32_vec4.wgsl",
            ("x" | "x_wide", Elem::F32) if x_width == 2 => "elem/x_f32_vec2.wgsl",
            ("x", Elem::F32) => "elem/x_f32.wgsl",
            ("x_wide", _) => "elem/x_scalar.wgsl",
            ("y", Elem::F16) => "elem/y_f16.wgsl",
            ("y", Elem::F16Storage | Elem::Bf16Storage) => "elem/y_f16_storage.wgsl",
            ("y" | "y_wide", Elem::F32) if y_width == 4 => "elem/y_f32_vec4.wgsl",
            ("y" | "y_wide", Elem::F32) if y_width == 2 => "elem/y_f32_vec2.wgsl",
            ("y", Elem::F32) => "elem/y_f32.wgsl",
            ("y_wide", _) => "elem/y_scalar.wgsl",
            ("bank", Elem::F16 | Elem::F16Storage) => "elem/bank_f16_storage.wgsl",
            ("bank", Elem::Bf16Storage) => "elem/bank_bf16_storage.wgsl",
            ("bank", Elem::F32) => "elem/bank_f32.wgsl",
            _ => return *LIB.iter().find(|(name, _)| is_named(name, import)).expect(IMPORTS),
        };
        *ELEM.iter().find(|(file, _)| *file == name).expect(IMPORTS)
    }

    /// Element type of the slot that an import belongs to; a slot that the kernel does not list is
    /// scratch, in f32.
    fn elem(&self, import: &str) -> Elem {
        let slot = Slot::of(import);
        let slots = self.kernel.def().slots.iter().zip(&self.elems);
        slots.into_iter().find(|(s, _)| Some(**s) == slot).map_or(Elem::F32, |(_, elem)| *elem)
    }

    /// Label of the pipeline: the kernel and its constants.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = format!("dynconv.{}", self.kernel.name());
        for elem in &self.elems {
            let _ = write!(label, ".{elem:?}");
        }
        for (name, value) in &self.consts {
            let _ = match value {
                Const::U32(v) => write!(label, " {name}={v}"),
                Const::Bool(v) => write!(label, " {name}={}", u8::from(*v)),
                Const::Type(v) => write!(label, " {name}={v}"),
            };
        }
        label
    }

    /// For an operand that begins at element `base` of its binding: as many elements at once, by
    /// the constant of that name, as divide it.
    pub(crate) fn narrow(&mut self, name: &str, base: u32) {
        for (constant, value) in &mut self.consts {
            if let Const::U32(width) = value
                && *constant == name
            {
                while !base.is_multiple_of(*width) {
                    *width /= 2;
                }
            }
        }
    }

    /// Value of a `u32` constant; 0 if the variant has none of that name.
    pub(crate) fn number(&self, name: &str) -> u32 {
        self.find(name).unwrap_or(0)
    }

    /// Value of a `u32` constant, if the variant has one of that name.
    fn find(&self, name: &str) -> Option<u32> {
        self.consts.iter().find_map(|(n, v)| match v {
            Const::U32(v) if *n == name => Some(*v),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_takes_as_many_elements_as_divide_where_they_begin() {
        let widths = |base| {
            let consts = vec![(X_WIDTH, Const::U32(4)), (Y_WIDTH, Const::U32(2))];
            let mut variant =
                Variant { kernel: Kernel::ConvPointwiseSimd8, elems: vec![Elem::F32; 2], consts };
            variant.narrow(X_WIDTH, base);
            [X_WIDTH, Y_WIDTH].map(|name| variant.number(name))
        };
        assert_eq!([0, 4, 6, 7, 8].map(widths), [[4, 2], [4, 2], [2, 2], [1, 2], [4, 2]]);
    }
}
