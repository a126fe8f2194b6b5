//! `dynconv check`: holds an adapter to the laws.

use std::process::ExitCode;

use clap::Args;
use dynconv_suite::check::{check_law, laws_of};
use dynconv_suite::spec::Spec;

use crate::{AdapterArgs, JsonArgs};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this problem, as a failure prints it
    #[arg(long, value_name = "PROBLEM")]
    case: Option<String>,
    /// Only this law
    #[arg(long, value_name = "NAME")]
    law: Option<String>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let context = options.adapter.context()?;
    let spec: Spec = options.case.as_deref().unwrap_or("").parse()?;
    for law in laws_of(&spec).filter(|law| options.law.as_deref().is_none_or(|name| name == law.name)) {
        let o = check_law(&context, &spec, law);
        println!("{} {:?} {:?} {:?}", law.name, o.verdict, o.kernels, o.time);
    }
    Ok(ExitCode::SUCCESS)
}
