//! Runs `spirv-val`, the validator of the SPIR-V tools.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// What wgpu asks of Vulkan at most; of cooperative matrices, which it has on newer devices alone.
const ENVIRONMENTS: [&str; 2] = ["vulkan1.1", "vulkan1.3"];
/// The version of SPIR-V that the first of them knows.
const SPIRV: u32 = 0x0001_0300;

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
        false => Ok("NOT RUN: SPIR-V is not validated, \
                     since spirv-val (package spirv-tools) is not installed"),
    }
}

/// Whether the validator is of 2023.3 or later, the first that knows cooperative matrices.
pub(crate) fn knows_matrices() -> bool {
    static KNOWS: LazyLock<bool> = LazyLock::new(find_out_matrices);
    *KNOWS
}

fn find_out_matrices() -> bool {
    let Ok(output) = Command::new("spirv-val").arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_new = version(&text).is_some_and(|version| version >= [2023, 3]);
    if !is_new {
        eprintln!(
            "NOT RUN: SPIR-V with cooperative matrices is not validated, \
             since this spirv-val does not know them: {text}"
        );
    }
    is_new
}

/// Year and number of a release.
fn version(text: &str) -> Option<[u32; 2]> {
    let (_, after) = text.split_once("SPIRV-Tools v")?;
    let (year, rest) = after.split_once('.')?;
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some([year.parse().ok()?, number.parse().ok()?])
}

#[test]
fn versions_of_the_validator_are_told_apart() {
    assert_eq!(
        version("SPIRV-Tools v2023.1 unknown hash, 2023-02-15\nTargets:\n  SPIR-V 1.0"),
        Some([2023, 1])
    );
    assert_eq!(version("SPIRV-Tools v2025.1-rc1"), Some([2025, 1]));
    assert_eq!(version("glslang 11"), None);
}

/// Validates one module.
pub(crate) fn validate(words: &[u32]) -> Result<(), String> {
    let environment = ENVIRONMENTS[usize::from(words[1] > SPIRV)];
    let mut child = Command::new("spirv-val")
        .args(["--target-env", environment, "-"])
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
        false => {
            Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        }
    }
}

#[test]
fn a_missing_validator_fails_where_nothing_may_be_left_out() {
    assert!(absent(true).is_err_and(|message| message.contains("spirv-tools")));
    assert!(absent(false).is_ok_and(|message| message.starts_with("NOT RUN")));
}
