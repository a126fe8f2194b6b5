//! Mesa's compilers for other vendors' GPUs, and libraries that stand for those GPUs: Debian 13's
//! packages, unpacked into `target/`, and one library that is built from Mesa's source. The system
//! stays as it is but for the tools that this takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt;
use crate::apt_sources;
use crate::exec;
use crate::os_release::OsRelease;
use crate::privilege::Privilege;

/// A processor that Debian has drivers for.
#[derive(Clone, Copy, Debug)]
struct Processor {
    /// Its folder.
    root: &'static str,
    /// Debian's name of it.
    architecture: &'static str,
}

const HERE: Processor = Processor { root: "root-amd64", architecture: "amd64" };
const EMULATED: Processor = Processor { root: "root-arm64", architecture: "arm64" };

/// What unpacks, and what the library is built with.
const TOOLS: [&str; 12] = [
    "mmdebstrap",
    "meson",
    "ninja-build",
    "flex",
    "bison",
    "pkg-config",
    "libdrm-dev",
    "zlib1g-dev",
    "libexpat1-dev",
    "python3-mako",
    "python3-yaml",
    "python3-packaging",
];

/// What drivers for 64-bit Arm run in, and what links a program for them.
const EMULATOR: [&str; 3] = ["qemu-user-static", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The program that has drivers compile.
const PROGRAM: &str = "dynconv-isa-compiler";

/// The only one that Debian does not ship: of Intel's GPUs.
const SHIM: &str = "libintel_noop_drm_shim.so";
const SHIM_PLACE: &str = "usr/lib/x86_64-linux-gnu/libintel_noop_drm_shim.so";

/// What Mesa's build makes: that library alone.
const BUILD: &str = "-Dtools=drm-shim,intel -Dvulkan-drivers= -Dgallium-drivers= -Dplatforms= \
                     -Dglx=disabled -Degl=disabled -Dgbm=disabled -Dopengl=false \
                     -Dgles1=disabled -Dgles2=disabled -Dllvm=disabled -Dvideo-codecs= \
                     -Dbuildtype=release";

/// The folder of compilers that run on this processor, made first where that is allowed.
pub(crate) fn native(install: bool) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("isa");
    if folder.join(HERE.root).join(SHIM_PLACE).exists() {
        return Ok(folder);
    }
    let privilege = permission(install)?;
    apt::install_tools(&OsRelease::read(), privilege, &TOOLS)?;
    create(&folder)?;
    unpack(&folder, HERE, privilege)?;
    let built = build_shim(&folder)?;
    let place = folder.join(HERE.root).join(SHIM_PLACE);
    exec::run_quietly(privilege.command("cp").arg(built).arg(place))?;
    Ok(folder)
}

/// Adds those for 64-bit Arm to a folder of compilers.
pub(crate) fn add_emulated(folder: &Path, install: bool) -> Result<(), String> {
    let program = folder.join(EMULATED.root).join("compiler");
    if program.exists() {
        return Ok(());
    }
    let privilege = permission(install)?;
    apt::install_tools(&OsRelease::read(), privilege, &EMULATOR)?;
    unpack(folder, EMULATED, privilege)?;
    exec::run_quietly(Command::new("rustup").args(["target", "add", TARGET]))?;
    let mut build = exec::cargo(&format!("build --release -p {PROGRAM} --target {TARGET}"));
    build.arg("--target-dir").arg(folder.join("build"));
    exec::run(build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"))?;
    let built = folder.join("build").join(TARGET).join("release").join(PROGRAM);
    exec::run_quietly(privilege.command("cp").arg(built).arg(program))
}

/// The same program for this processor.
pub(crate) fn program(folder: &Path) -> Result<PathBuf, String> {
    let mut build = exec::cargo(&format!("build --quiet --release -p {PROGRAM}"));
    exec::run(build.arg("--target-dir").arg(folder))?;
    Ok(folder.join("release").join(PROGRAM))
}

fn permission(install: bool) -> Result<Privilege, String> {
    if !OsRelease::read().is_debian_12() || cfg!(not(target_arch = "x86_64")) {
        return Err("compilers for other GPUs are unpacked on Debian 12 for x86-64 only".into());
    }
    let privilege = Privilege::detect().filter(|_| install);
    privilege.ok_or_else(|| "compilers for other GPUs are not there, and not to be fetched".into())
}

/// Unpacks Debian 13's drivers; nothing of theirs is run.
fn unpack(folder: &Path, processor: Processor, privilege: Privilege) -> Result<(), String> {
    println!("unpacking Mesa's compilers for {} ...", processor.architecture);
    let mirror = mirror()?;
    let root = folder.join(processor.root);
    // What an earlier run left half done.
    exec::run_quietly(privilege.command("rm").arg("-rf").arg(&root))?;
    let mut command = privilege.command("mmdebstrap");
    command.args(["--mode=root", "--variant=extract", "--skip=check/qemu"]);
    command.arg(format!("--architectures={}", processor.architecture));
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    command.arg(
        "--include=mesa-vulkan-drivers/trixie-backports,mesa-drm-shim/trixie-backports,libvulkan1",
    );
    command.arg("trixie").arg(root);
    command
        .args([format!("deb {mirror} trixie main"), format!("deb {mirror} trixie-backports main")]);
    exec::run_quietly(&mut command)
}

/// Builds the library that stands for Intel's GPUs, of the source of this system's Mesa.
fn build_shim(folder: &Path) -> Result<PathBuf, String> {
    println!("building {SHIM} from Mesa's source ...");
    let source = folder.join("source");
    fetch_source(&source)?;
    let archive = entry(&source, |name| name.starts_with("mesa_") && name.contains(".orig.tar."))?;
    let unpacked = source.join("mesa");
    create(&unpacked)?;
    exec::run_quietly(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("--strip-components=1")
            .arg("-C")
            .arg(&unpacked),
    )?;
    let build = source.join("build");
    // The system's Python has the modules that were installed.
    let path = "/usr/bin:/bin";
    exec::run_quietly(
        Command::new("meson")
            .arg("setup")
            .args([&build, &unpacked])
            .args(BUILD.split_whitespace())
            .env("PATH", path),
    )?;
    let target = format!("src/intel/tools/{SHIM}");
    exec::run_quietly(Command::new("ninja").arg("-C").arg(&build).arg(&target).env("PATH", path))?;
    Ok(build.join(target))
}

/// Mesa's source of backports, by apt, which checks it. Sources are not among apt's own lists.
fn fetch_source(folder: &Path) -> Result<(), String> {
    let lists = folder.join("lists");
    create(&lists.join("partial"))?;
    let list = folder.join("sources.list");
    let line = format!("deb-src {} {} main\n", mirror()?, apt_sources::BACKPORTS);
    fs::write(&list, line).map_err(|e| format!("could not write {}: {e}", list.display()))?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", lists.display()),
            "APT::Sandbox::User=".to_owned(),
        ];
        options.into_iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
        command.arg("-q").current_dir(folder);
        command
    };
    exec::run_quietly(apt_get().arg("update"))?;
    exec::run_quietly(apt_get().args(["source", "--download-only", "--tar-only", "mesa"]))
}

fn mirror() -> Result<String, String> {
    apt_sources::mirror(&apt_sources::configured())
        .ok_or_else(|| "apt's sources name no mirror of Debian".to_owned())
}

fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("could not create {}: {e}", folder.display()))
}

/// A file of a folder, by its name.
fn entry(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries =
        fs::read_dir(folder).map_err(|e| format!("could not read {}: {e}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let is_wanted = |path: &PathBuf| {
        path.extension().is_some_and(|end| end != "asc")
            && path.file_name().is_some_and(|name| is_it(&name.to_string_lossy()))
    };
    paths.find(is_wanted).ok_or_else(|| format!("{} lacks Mesa's source", folder.display()))
}
