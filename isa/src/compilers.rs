//! Compilers in processes of their own: see `dynconv-isa-compiler`.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use dynconv_isa_compiler::{Device, MARK, Reply, Request};

use crate::cases::Case;
use crate::families::{Family, Origin};
use crate::spirv;

/// Where `cargo xtask isa` has put what it fetched and built.
#[derive(Debug)]
pub(crate) struct Compilers {
    /// The program for this processor.
    pub(crate) program: PathBuf,
    /// Mesa's drivers, unpacked in a folder for each processor, and the program for the other one.
    pub(crate) roots: Option<PathBuf>,
}

/// Mesa's drivers, unpacked for one processor.
struct Root {
    folder: &'static str,
    libraries: &'static str,
    loader: &'static str,
    /// The emulator that it needs here.
    emulator: Option<&'static str>,
}

const HERE: Root = Root {
    folder: "root-amd64",
    libraries: "usr/lib/x86_64-linux-gnu",
    loader: "usr/lib64/ld-linux-x86-64.so.2",
    emulator: None,
};

const EMULATED: Root = Root {
    folder: "root-arm64",
    libraries: "usr/lib/aarch64-linux-gnu",
    loader: "usr/lib/ld-linux-aarch64.so.1",
    emulator: Some("qemu-aarch64-static"),
};

/// The program for the emulated processor, in its root.
const PROGRAM: &str = "compiler";

impl Compilers {
    /// Those that the environment names: see `main.rs`.
    pub(crate) fn of_environment() -> Result<Self, String> {
        let program = env::var_os("ISA_COMPILER").ok_or("ISA_COMPILER is not set")?;
        let roots = env::var_os("ISA_ROOTS").map(PathBuf::from);
        Ok(Self { program: program.into(), roots })
    }

    /// Why a family's compiler is not there, if it is not.
    pub(crate) fn missing(&self, family: &Family) -> Option<String> {
        let root = match family.origin {
            Origin::System => return None,
            Origin::Unpacked => HERE,
            Origin::Emulated => EMULATED,
        };
        let Some(roots) = &self.roots else {
            return Some("its compiler was not fetched".into());
        };
        let folder = roots.join(root.folder);
        let is_there = shim(&folder.join(root.libraries), family).exists()
            && (root.emulator.is_none() || folder.join(PROGRAM).exists());
        (!is_there).then(|| "its compiler was not fetched or built".into())
    }

    /// What a family's compiler makes of the cases, in their order.
    pub(crate) fn compile(
        &self,
        family: &Family,
        cases: &[Case],
        folder: &Path,
    ) -> Result<(Device, Vec<Reply>), String> {
        let requests = requests(family, cases, folder)?;
        let mut command = self.command(family, folder)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|e| format!("could not start the compiler: {e}"))?;
        let mut input = child.stdin.take().ok_or("no input of the compiler")?;
        // Beside the reading of replies, lest both wait for each other.
        let writer = thread::spawn(move || input.write_all(requests.as_bytes()));
        let output =
            child.wait_with_output().map_err(|e| format!("could not read the compiler: {e}"))?;
        // A compiler that ends early stops reading; its status says so below.
        let _ = writer.join();
        replies(cases.len(), &output)
    }

    fn command(&self, family: &Family, folder: &Path) -> Result<Command, String> {
        let [variable, value] = family.gpu;
        let mut command = match family.origin {
            Origin::System => Command::new(&self.program),
            Origin::Unpacked => self.within(&HERE, family, folder)?,
            Origin::Emulated => self.within(&EMULATED, family, folder)?,
        };
        // Mesa tells nothing of what it finds in its cache.
        command.env(variable, value).env("MESA_SHADER_CACHE_DISABLE", "1");
        Ok(command)
    }

    /// The program with the libraries of an unpacked system, by the loader of that system.
    fn within(&self, root: &Root, family: &Family, folder: &Path) -> Result<Command, String> {
        let roots = self.roots.as_ref().ok_or("its compiler was not fetched")?;
        let system = roots.join(root.folder);
        let libraries = system.join(root.libraries);
        let loader = system.join(root.loader);
        let mut command = Command::new(root.emulator.map_or(loader.as_path(), Path::new));
        if root.emulator.is_some() {
            command.arg(&loader);
        }
        command.arg("--library-path").arg(&libraries);
        command.arg("--preload").arg(shim(&libraries, family));
        match root.emulator {
            Some(_) => command.arg(system.join(PROGRAM)),
            None => command.arg(&self.program),
        };
        command.env("VK_DRIVER_FILES", manifest(&libraries, family, folder)?);
        Ok(command)
    }
}

fn shim(libraries: &Path, family: &Family) -> PathBuf {
    libraries.join(format!("lib{}_noop_drm_shim.so", family.shim))
}

/// A file that names a driver to the Vulkan loader.
fn manifest(libraries: &Path, family: &Family, folder: &Path) -> Result<PathBuf, String> {
    let library = libraries.join(format!("libvulkan_{}.so", family.driver));
    let text = format!(
        "{{ \"file_format_version\": \"1.0.0\", \"ICD\": {{ \"library_path\": {library:?}, \
         \"api_version\": \"1.3.0\" }} }}\n"
    );
    let file = folder.join(format!("{}.json", family.driver));
    fs::write(&file, text).map_err(|e| format!("could not write {}: {e}", file.display()))?;
    Ok(file)
}

/// Requests as lines, their shaders in files of the folder.
fn requests(family: &Family, cases: &[Case], folder: &Path) -> Result<String, String> {
    let mut lines = String::new();
    for (number, case) in cases.iter().enumerate() {
        let kernel = case.dispatch.variant.kernel;
        let write = |is_checked: bool| {
            let words = spirv::translate(&case.source, kernel.name(), is_checked)
                .map_err(|e| format!("{}: {e}", case.name))?;
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            let file = folder.join(format!("{number}-{is_checked}.spv"));
            fs::write(&file, bytes)
                .map_err(|e| format!("could not write {}: {e}", file.display()))?;
            Ok::<_, String>(file)
        };
        let request = Request {
            unchecked: write(false)?,
            checked: write(true)?,
            entry_point: kernel.name().into(),
            storage: u32::try_from(kernel.def().storage.len()).map_err(|e| e.to_string())?,
            subgroup: family.subgroup,
            matrices: kernel.def().matrices,
        };
        lines.push_str(&serde_json::to_string(&request).map_err(|e| e.to_string())?);
        lines.push('\n');
    }
    Ok(lines)
}

/// The device, and what it replied. Some drivers print their listings and tell them nowhere else.
fn replies(count: usize, output: &Output) -> Result<(Device, Vec<Reply>), String> {
    let errors = || String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut device = None;
    let mut replies = Vec::new();
    let mut printed = String::new();
    for line in text.lines() {
        match line.strip_prefix(MARK) {
            None => {
                printed.push_str(line);
                printed.push('\n');
            }
            Some(message) if device.is_none() => {
                device = Some(serde_json::from_str(message).map_err(|e| e.to_string())?);
                printed.clear();
            }
            Some(message) => {
                let mut reply = serde_json::from_str(message).map_err(|e| e.to_string())?;
                if let Reply::Compiled(executable) = &mut reply
                    && executable.listing.is_empty()
                {
                    executable.listing = std::mem::take(&mut printed);
                }
                printed.clear();
                replies.push(reply);
            }
        }
    }
    match (device, replies.len()) {
        (Some(device), found) if found == count => Ok((device, replies)),
        (_, found) => Err(format!("{found} of {count} kernels were compiled; {}", errors())),
    }
}
