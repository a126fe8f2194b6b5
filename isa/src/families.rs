//! GPU families whose compilers run without a GPU.

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The system's own Mesa.
    System,
    /// A Mesa unpacked for this processor, its GPU stood for by a library.
    Unpacked,
    /// A Mesa unpacked for 64-bit Arm, in an emulator.
    Emulated,
}

/// The language of a compiler's listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Amd,
    Intel,
    Nvidia,
    Adreno,
    Apple,
    Mali,
}

/// What a driver calls the statistics that the table has.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) registers: &'static str,
    /// Added up.
    pub(crate) spills: &'static [&'static str],
    pub(crate) occupancy: Option<&'static str>,
    pub(crate) instructions: &'static str,
    /// Cycles of a subgroup, each instruction counted by the driver's own model.
    pub(crate) cycles: Option<&'static str>,
}

impl Language {
    /// The names in the language's driver.
    pub(crate) fn statistics(self) -> Statistics {
        let names = |registers, spills, occupancy, instructions, cycles| Statistics {
            registers,
            spills,
            occupancy,
            instructions,
            cycles,
        };
        match self {
            Self::Amd => names(
                "VGPRs",
                &["Spilled VGPRs", "Spilled SGPRs"],
                Some("Subgroups per SIMD"),
                "Instructions",
                Some("Inverse Throughput"),
            ),
            Self::Intel => {
                names("Max live registers", &["Spills"], None, "Instructions", Some("Cycles"))
            }
            Self::Nvidia => names(
                "Number of GPRs",
                &["Spills to memory"],
                Some("Max warps/SM"),
                "Instruction count",
                Some("Static cycle count"),
            ),
            Self::Adreno => names(
                "Registers used",
                &["STP Count"],
                Some("Max Waves Per Core"),
                "Instruction Count",
                None,
            ),
            Self::Apple => names("GPRs", &["Spills"], Some("Threads"), "Instructions", None),
            Self::Mali => names(
                "Registers used",
                &["Spills"],
                Some("Threads"),
                "Instructions",
                Some("Cycles"),
            ),
        }
    }
}

/// A family, and how to have its compiler stand for it.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    pub(crate) origin: Origin,
    /// The driver's library, without what all have in common.
    pub(crate) driver: &'static str,
    /// The library that stands for the GPU, if the driver needs one.
    pub(crate) shim: &'static str,
    /// The variable that names the GPU, and its value.
    pub(crate) gpu: [&'static str; 2],
    /// The subgroup size asked for, if any. wgpu asks for none.
    pub(crate) subgroup: Option<u32>,
}

const fn amd(name: &'static str, gpu: &'static str, subgroup: Option<u32>) -> Family {
    Family {
        name,
        language: Language::Amd,
        origin: Origin::System,
        driver: "radeon",
        shim: "",
        gpu: ["RADV_FORCE_FAMILY", gpu],
        subgroup,
    }
}

const fn unpacked(
    name: &'static str,
    language: Language,
    driver: &'static str,
    shim: &'static str,
    gpu: [&'static str; 2],
) -> Family {
    Family { name, language, origin: Origin::Unpacked, driver, shim, gpu, subgroup: None }
}

const fn intel(name: &'static str, gpu: &'static str) -> Family {
    unpacked(name, Language::Intel, "intel", "intel", ["INTEL_STUB_GPU_PLATFORM", gpu])
}

const fn nvidia(name: &'static str, gpu: &'static str) -> Family {
    unpacked(name, Language::Nvidia, "nouveau", "nouveau", ["NOUVEAU_CHIPSET", gpu])
}

const fn adreno(name: &'static str, gpu: &'static str) -> Family {
    unpacked(name, Language::Adreno, "freedreno", "freedreno", ["FD_GPU_ID", gpu])
}

const fn mali(name: &'static str, gpu: &'static str) -> Family {
    let family = unpacked(name, Language::Mali, "panfrost", "panfrost", ["PAN_GPU_ID", gpu]);
    Family { origin: Origin::Emulated, ..family }
}

/// All families.
pub(crate) const ALL: &[Family] = &[
    amd("RDNA2", "navi21", None),
    amd("RDNA3", "navi31", None),
    amd("RDNA3, wave32", "navi31", Some(32)),
    amd("RDNA4", "gfx1201", None),
    amd("GCN5", "vega10", None),
    intel("Intel TGL", "tgl"),
    intel("Intel DG2", "dg2"),
    intel("Intel BMG", "bmg"),
    intel("Intel PTL", "ptl"),
    nvidia("NVIDIA Turing", "164"),
    nvidia("NVIDIA Ampere", "172"),
    adreno("Adreno 660", "660"),
    adreno("Adreno 740", "740"),
    adreno("Adreno 830", "830"),
    unpacked("Apple M1", Language::Apple, "asahi", "asahi", ["AGX_MESA_DEBUG", "shaders"]),
    mali("Mali G610", "a867"),
    mali("Mali G310", "ac74"),
];
