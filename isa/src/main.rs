//! Compiles dynconv's convolution kernels for GPUs without having one, and prints what came of
//! them: registers, spills, occupancy, and what a step of the main loop takes.
//!
//! ```sh
//! dynconv-isa                              # the table
//! dynconv-isa --markdown FILE              # the table into a file
//! dynconv-isa --budgets FILE               # fails where a kernel has become worse than its budget
//! dynconv-isa --source KERNEL              # the shader
//! dynconv-isa --try KERNEL FILE            # its rows of the table, with the shader of a file
//! dynconv-isa --listing KERNEL FAMILY      # instructions
//! dynconv-isa --body KERNEL FAMILY         # those of the main loop alone, for llvm-mca
//! ```
//!
//! `cargo xtask isa` brings the compilers that it can, and says where they are: `ISA_COMPILER` is
//! the program of `dynconv-isa-compiler`, `ISA_ROOTS` the folder of unpacked drivers.
//! `VK_DRIVER_FILES` names Mesa's driver for AMD GPUs. The numbers are what compilers say, not
//! timings.

mod cases;
mod compilers;
mod families;
mod listing;
mod report;
mod spirv;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use cases::Case;
use compilers::Compilers;
use dynconv_isa_compiler::{Device, Executable, Reply};
use families::Family;
use report::Row;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let first = &families::ALL[0];
    let outcome = match args[..] {
        [] => measure("").map(|text| print!("{text}")),
        ["--family", part] => measure(part).map(|text| print!("{text}")),
        ["--source", case] => case_of(case, first).map(|case| print!("{}", case.source)),
        ["--try", case, file] => attempt(case, file).map(|text| print!("{text}")),
        ["--markdown", file] => markdown(file),
        ["--budgets", file] => budgets(file),
        ["--listing", case, family] => listing_of(case, family).map(|text| print!("{text}")),
        ["--body", case, family] => {
            listing_of(case, family).map(|text| print!("{}", listing::body(&text)))
        }
        _ => Err("usage: dynconv-isa [--family PART | --markdown FILE | --budgets FILE | \
                  --source KERNEL | --try KERNEL FILE | --listing KERNEL FAMILY | \
                  --body KERNEL FAMILY]"
            .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured, and what was not.
struct Measured {
    rows: Vec<Row>,
    /// Lines on drivers, on what was left out, and on steps that were not found.
    notes: String,
}

/// The table, of families that `part` is part of the name of.
fn measure(part: &str) -> Result<String, String> {
    let measured = measured(|family| family.name.contains(part), cases::all)?;
    Ok(format!("{}\n{}", measured.notes, report::table(&measured.rows)))
}

fn markdown(file: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    let (before, _) =
        text.split_once(MARK).ok_or_else(|| format!("{file} has no line {MARK:?}"))?;
    fs::write(file, format!("{before}{MARK}\n\n{}", measure("")?))
        .map_err(|e| format!("could not write {file}: {e}"))
}

/// What follows this in the file is replaced.
const MARK: &str = "<!-- written by cargo xtask isa -->";

/// Compiles for families that have budgets.
fn budgets(file: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    let is_wanted = |family: &Family| text.contains(&format!("| {} |", family.name));
    let measured = measured(is_wanted, cases::all)?;
    println!("{}\n{}", measured.notes, report::table(&measured.rows));
    let broken = report::broken(&measured.rows, &text);
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("past their budgets:\n{}", broken.join("\n"))),
    }
}

/// A kernel's rows, with a shader of its user's.
fn attempt(name: &str, file: &str) -> Result<String, String> {
    let source = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    case_of(name, &families::ALL[0])?;
    let measured = measured(
        |_| true,
        |family| {
            // A family that compiles none of it has no rows.
            let cases = case_of(name, family).into_iter();
            Ok(cases.map(|case| Case { source: source.clone(), ..case }).collect())
        },
    )?;
    Ok(format!("{}\n{}", measured.notes, report::table(&measured.rows)))
}

fn case_of(name: &str, family: &Family) -> Result<Case, String> {
    let cases = cases::all(family)?;
    let names: Vec<_> = cases.iter().map(|case| case.name).collect();
    let missing = format!("no such kernel; there are {}", names.join("; "));
    cases.into_iter().find(|case| case.name == name).ok_or(missing)
}

fn listing_of(name: &str, family: &str) -> Result<String, String> {
    let families = families::ALL.iter();
    let family = families.clone().find(|own| own.name == family).ok_or_else(|| {
        let names: Vec<_> = families.map(|family| family.name).collect();
        format!("no such family; there are {}", names.join("; "))
    })?;
    let cases = [case_of(name, family)?];
    let (_, replies) = compile(&Compilers::of_environment()?, family, &cases)?;
    match replies.into_iter().next().ok_or("no reply")? {
        Reply::Compiled(executable) => Ok(executable.listing),
        Reply::Refused(reason) => Err(reason),
        Reply::NoMatrices => Err(format!("{} has no cooperative matrices", family.name)),
    }
}

fn compile(
    compilers: &Compilers,
    family: &Family,
    cases: &[Case],
) -> Result<(Device, Vec<Reply>), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    compilers.compile(family, cases, folder.path()).map_err(|e| format!("{}: {e}", family.name))
}

/// All cases on the families that are wanted and whose compilers are there.
fn measured(
    is_wanted: impl Fn(&Family) -> bool,
    cases_of: impl Fn(&Family) -> Result<Vec<Case>, String>,
) -> Result<Measured, String> {
    let compilers = Compilers::of_environment()?;
    let mut rows = Vec::new();
    let mut notes = String::new();
    for family in families::ALL.iter().filter(|family| is_wanted(family)) {
        if let Some(why) = compilers.missing(family) {
            let _ = writeln!(notes, "* {}: left out, {why}", family.name);
            continue;
        }
        let cases = cases_of(family)?;
        let (device, replies) = compile(&compilers, family, &cases)?;
        let _ = writeln!(notes, "* {}: {}, {}", family.name, device.name, device.driver);
        for (case, reply) in cases.iter().zip(replies) {
            match reply {
                Reply::NoMatrices => (),
                Reply::Refused(why) => {
                    let _ = writeln!(notes, "* {} on {}: {why}", case.name, family.name);
                }
                Reply::Compiled(executable) => {
                    let row = row(case, family, &executable)
                        .map_err(|e| format!("{} on {}: {e}", case.name, family.name))?;
                    if let Err(why) = &row.step {
                        let _ = writeln!(notes, "* {} on {}: {why}", case.name, family.name);
                    }
                    rows.push(row);
                }
            }
        }
    }
    let mut order: Vec<&str> = Vec::new();
    rows.iter().for_each(|row: &Row| {
        if !order.contains(&row.case) {
            order.push(row.case);
        }
    });
    rows.sort_by_key(|row| order.iter().position(|case| *case == row.case));
    Ok(Measured { rows, notes })
}

#[allow(clippy::cast_possible_truncation, reason = "drivers count things, some of them in floats")]
fn row(case: &Case, family: &'static Family, executable: &Executable) -> Result<Row, String> {
    let statistic = |name: &str| {
        let found = executable.statistics.get(name);
        found.map(|value| *value as u64).ok_or_else(|| format!("the driver tells no `{name}`"))
    };
    let names = family.language.statistics();
    let spills: Result<Vec<u64>, String> =
        names.spills.iter().map(|name| statistic(name)).collect();
    Ok(Row {
        case: case.name,
        family: family.name,
        subgroup: executable.subgroup,
        registers: statistic(names.registers)?,
        spills: spills?.into_iter().sum(),
        occupancy: names.occupancy.map(statistic).transpose()?,
        shared: u64::from(case.dispatch.workgroup_memory),
        instructions: statistic(names.instructions)?,
        cycles: names.cycles.map(statistic).transpose()?,
        step: listing::step(family.language, &executable.listing, case.iterations),
    })
}
