//! `dynconv shader`: what a kernel's shader is made of.

use std::process::ExitCode;

use clap::Args;
use dynconv::Context;
use dynconv::kernels::{Kernel, Variant};
use dynconv_suite::catalogue;
use dynconv_suite::run::Prepared;
use dynconv_suite::spec::Spec;
use dynconv_suite::variants::{noop, with_lanes, with_matrices};

use crate::Usage;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The kernel, by the stem of its files; without it, all kernels are listed
    #[arg(value_name = "KERNEL")]
    kernel: Option<String>,
    /// The shader as it runs for this problem, as `check --case` takes it; otherwise for the first
    /// of the catalogue that runs the kernel
    #[arg(long, value_name = "PROBLEM", requires = "kernel")]
    case: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Some(name) = &options.kernel else {
        for kernel in Kernel::ALL {
            println!("{:<24}{}", kernel.name(), kernel.summary());
        }
        return Ok(ExitCode::SUCCESS);
    };
    let kernel = Kernel::ALL.iter().copied().find(|kernel| kernel.name() == name);
    let kernel = kernel.ok_or_else(|| {
        let all: Vec<_> = Kernel::names().collect();
        Usage(format!("no kernel \"{name}\"; there are {}", all.join(", ")))
    })?;
    let problems = match &options.case {
        Some(line) => vec![line.parse::<Spec>().map_err(|e| Usage(format!("--case: {e}")))?],
        None => catalogue::problems(false)?,
    };
    let found = problems.iter().find_map(|spec| Some((variant(kernel, spec)?, spec)));
    let (variant, spec) = found.ok_or_else(|| Usage(format!("the problem does not run {name}")))?;
    print!("{}", text(&variant, spec));
    Ok(ExitCode::SUCCESS)
}

/// The variant of the kernel that a problem runs, on the first kind of device on which one does.
fn variant(kernel: Kernel, spec: &Spec) -> Option<Variant> {
    let devices: [Context; 3] =
        [noop(), noop().with_caps(with_lanes()), noop().with_caps(with_matrices(16))];
    devices.iter().find_map(|context| {
        let prepared = Prepared::with_integers(context, spec).ok()?;
        let mut variants = prepared.bound.steps().iter().map(|step| &step.dispatch().variant);
        variants.find(|variant| variant.kernel == kernel).cloned()
    })
}

/// The joined text: what it is, what it is made of, constants, and the parts with their names.
fn text(variant: &Variant, spec: &Spec) -> String {
    let files = variant.files();
    let width = files.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let parts = files
        .iter()
        .map(|(name, text)| format!("//   {name:<width$} {:>4} lines\n", text.lines().count()));
    format!(
        "// {}: {}\n// as it runs for: {spec}\n//\n// constants, then\n{}\n{}",
        variant.kernel.name(),
        variant.kernel.summary(),
        parts.collect::<String>(),
        variant.source()
    )
}
