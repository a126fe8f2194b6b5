//! Runs `spirv-val`, the validator of the SPIR-V tools.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// What wgpu asks of Vulkan at most.
const ENVIRONMENT: &str = "vulkan1.1";

/// Whether the validator is there. Where it must be, its absence is an error.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("spirv-val").arg("--version").stdout(Stdio::null()).status();
    match version {
        Ok(status) => {
            assert!(status.success(), "spirv-val --version: {status}");
            true
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let message = absent(is_ci()).unwrap_or_else(|message| panic!("{message}"));
            eprintln!("{message}");
            false
        }
        Err(error) => panic!("spirv-val does not start: {error}"),
    }
}

/// Whether this is a run of continuous integration.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// What to say of a missing validator: under continuous integration nothing is left out quietly.
fn absent(is_ci: bool) -> Result<&'static str, &'static str> {
    match is_ci {
        true => Err("spirv-val is missing: install the package spirv-tools"),
        false => Ok("NOT RUN: SPIR-V is not validated, since spirv-val (package spirv-tools) is not installed"),
    }
}

/// Validates one module.
pub(crate) fn validate(words: &[u32]) -> Result<(), String> {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", ENVIRONMENT, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spirv-val starts");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // It reads all before it writes anything.
    child.stdin.take().expect("is piped").write_all(&bytes).expect("spirv-val reads");
    let output = child.wait_with_output().expect("spirv-val ends");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
    }
}

#[test]
fn a_missing_validator_fails_where_nothing_may_be_left_out() {
    assert!(absent(true).is_err_and(|message| message.contains("spirv-tools")));
    assert!(absent(false).is_ok_and(|message| message.starts_with("NOT RUN")));
}
