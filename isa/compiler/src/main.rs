//! Compiles the kernels that standard input asks for with the Vulkan driver that the environment
//! chooses: see `lib.rs`.

mod vulkan;

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use dynconv_isa_compiler::{MARK, Request};
use vulkan::Compiler;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    let compiler = Compiler::new()?;
    write(&compiler.info)?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let request: Request = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        write(&compiler.compile(&request))?;
    }
    Ok(())
}

fn write(message: &impl serde::Serialize) -> Result<(), String> {
    let line = serde_json::to_string(message).map_err(|e| e.to_string())?;
    vulkan::print_what_is_buffered();
    writeln!(io::stdout(), "{MARK}{line}").map_err(|e| e.to_string())
}
