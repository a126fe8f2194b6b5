//! Compiles dynconv's convolution kernels for AMD GPUs without having one, and prints what came of
//! them: registers, spills, occupancy, and what a step of the main loop takes.
//!
//! ```sh
//! dynconv-isa                              # the table
//! dynconv-isa --markdown FILE              # the table into a file
//! dynconv-isa --budgets FILE               # fails where a kernel has become worse than its budget
//! dynconv-isa --listing KERNEL FAMILY      # instructions
//! dynconv-isa --body KERNEL FAMILY         # those of the main loop alone, for llvm-mca
//! ```
//!
//! It needs Mesa's driver RADV and the Vulkan loader. The numbers are what a compiler says, not
//! timings.

mod cases;
mod listing;
mod radv;
mod report;
mod spirv;

use std::fs;
use std::process::ExitCode;

use cases::Case;
use radv::{Compiler, Executable};
use report::Row;

/// GPU families: what the table calls them, what the driver does, and the subgroup size asked for,
/// if any. wgpu asks for none, and the driver then takes 64.
const FAMILIES: [(&str, &str, Option<u32>); 5] = [
    ("RDNA2", "navi21", None),
    ("RDNA3", "navi31", None),
    ("RDNA3, wave32", "navi31", Some(32)),
    ("RDNA4", "gfx1201", None),
    ("GCN5", "vega10", None),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => measure().map(|text| print!("{text}")),
        ["--markdown", file] => markdown(file),
        ["--budgets", file] => budgets(file),
        ["--listing", case, family] => listing_of(case, family).map(|text| print!("{text}")),
        ["--body", case, family] => {
            listing_of(case, family).map(|text| print!("{}", listing::body(&text)))
        }
        _ => {
            Err("usage: dynconv-isa [--markdown FILE | --budgets FILE | --listing KERNEL FAMILY | \
                 --body KERNEL FAMILY]"
                .into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<String, String> {
    let (rows, driver) = rows()?;
    Ok(format!("{driver}\n\n{}", report::table(&rows)))
}

fn markdown(file: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    let (before, _) =
        text.split_once(MARK).ok_or_else(|| format!("{file} has no line {MARK:?}"))?;
    fs::write(file, format!("{before}{MARK}\n\n{}", measure()?))
        .map_err(|e| format!("could not write {file}: {e}"))
}

/// What follows this in the file is replaced.
const MARK: &str = "<!-- written by cargo xtask isa -->";

fn budgets(file: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    let (rows, driver) = rows()?;
    println!("{driver}\n\n{}", report::table(&rows));
    let broken = report::broken(&rows, &text);
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("past their budgets:\n{}", broken.join("\n"))),
    }
}

fn listing_of(name: &str, family: &str) -> Result<String, String> {
    let cases = cases::all()?;
    let case = cases.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<_> = cases.iter().map(|case| case.name).collect();
        format!("no such kernel; there are {}", names.join("; "))
    })?;
    let found = FAMILIES.iter().find(|(own, ..)| *own == family);
    let (_, chip, subgroup) = found.ok_or("no such family")?;
    let compiler = Compiler::new(chip)?;
    if case.dispatch.variant.kernel.def().matrices && !compiler.has_matrices {
        return Err(format!("{family} has no cooperative matrices"));
    }
    Ok(compile(&compiler, case, *subgroup)?.listing)
}

/// All cases on all families, and the driver's name.
fn rows() -> Result<(Vec<Row>, String), String> {
    let cases = cases::all()?;
    let mut rows = Vec::new();
    let mut driver = String::new();
    for (family, chip, subgroup) in FAMILIES {
        let compiler = Compiler::new(chip)?;
        driver.clone_from(&compiler.driver);
        // A compiler that is given matrices for a family without them ends the process.
        let compiles =
            |case: &&Case| compiler.has_matrices || !case.dispatch.variant.kernel.def().matrices;
        for case in cases.iter().filter(compiles) {
            let executable =
                compile(&compiler, case, subgroup).map_err(|e| format!("{}: {e}", case.name))?;
            rows.push(
                row(case, family, &executable)
                    .map_err(|e| format!("{} on {family}: {e}", case.name))?,
            );
        }
    }
    rows.sort_by_key(|row| cases.iter().position(|case| case.name == row.case));
    Ok((rows, driver))
}

fn compile(compiler: &Compiler, case: &Case, subgroup: Option<u32>) -> Result<Executable, String> {
    let variant = &case.dispatch.variant;
    let spirv = spirv::translate(&variant.source(), variant.kernel.name())?;
    compiler.compile(&spirv, variant.kernel.name(), variant.kernel.def().storage.len(), subgroup)
}

fn row(case: &Case, family: &'static str, executable: &Executable) -> Result<Row, String> {
    let statistic = |name| executable.statistic(name);
    Ok(Row {
        case: case.name,
        family,
        vgprs: statistic("VGPRs")?,
        sgprs: statistic("SGPRs")?,
        spills: statistic("Spilled VGPRs")? + statistic("Spilled SGPRs")?,
        occupancy: statistic("Subgroups per SIMD")?,
        shared: statistic("LDS size")?,
        instructions: statistic("Instructions")?,
        step: listing::step(&executable.listing, case.iterations)?,
    })
}
