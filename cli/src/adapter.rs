//! Which adapter runs things, and what to do where there is none.

use std::env;
use std::path::PathBuf;

use clap::Args;
use dynconv::device::{AdapterChoice, ContextOptions};
use dynconv::{Caps, Context, wgpu};

use crate::Usage;

/// Which adapter to use.
#[derive(Debug, Args)]
pub(crate) struct AdapterArgs {
    /// Adapter: its number in `dynconv info`, or part of its name
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) adapter: Option<String>,
    /// Turn on the adapter's cooperative matrices, which wgpu calls experimental
    #[arg(long)]
    pub(crate) matrices: bool,
}

impl AdapterArgs {
    pub(crate) fn options(&self) -> anyhow::Result<ContextOptions> {
        let adapter = match &self.adapter {
            None => AdapterChoice::Fastest,
            Some(text) => match text.parse() {
                // Names have numbers in them too; no machine has a hundred adapters.
                Ok(number) if number < 100 => AdapterChoice::Index(number),
                _ => AdapterChoice::Name(text.clone()),
            },
        };
        Ok(ContextOptions { adapter, backends: backends()? })
    }

    pub(crate) fn context(&self) -> anyhow::Result<Context> {
        let options = self.options()?;
        Ok(match self.matrices {
            true => pollster::block_on(dynconv_suite::matrices::request(&options)),
            false => pollster::block_on(Context::request(&options)),
        }?)
    }
}

/// The variable that names the backends to look at.
const VARIABLE: &str = "WGPU_BACKEND";

/// Names of backends; wgpu knows more for some of them.
const BACKENDS: [(&str, &[&str], wgpu::Backends); 4] = [
    ("vulkan", &["vk"], wgpu::Backends::VULKAN),
    ("metal", &["mtl"], wgpu::Backends::METAL),
    ("dx12", &["d3d12"], wgpu::Backends::DX12),
    ("gl", &["gles", "opengl"], wgpu::Backends::GL),
];

/// Vulkan, Metal and DX12, unless `WGPU_BACKEND` names others.
pub(crate) fn backends() -> Result<wgpu::Backends, Usage> {
    match env::var(VARIABLE) {
        Ok(words) if !words.trim().is_empty() => {
            named(&words, wgpu::Instance::enabled_backend_features())
        }
        _ => Ok(wgpu::Backends::PRIMARY),
    }
}

/// The backends of a list of names; each must be one that this program was built with.
fn named(words: &str, built: wgpu::Backends) -> Result<wgpu::Backends, Usage> {
    let mut backends = wgpu::Backends::empty();
    for word in words.split(',') {
        let lower = word.trim().to_lowercase();
        let found = BACKENDS
            .iter()
            .find(|(name, others, _)| *name == lower || others.contains(&lower.as_str()));
        let Some((name, _, backend)) = found else {
            let names = BACKENDS.map(|(name, ..)| name).join(", ");
            return Err(Usage(format!(
                "{VARIABLE}: no backend \"{}\"; there are {names}",
                word.trim()
            )));
        };
        if !built.contains(*backend) {
            let names: Vec<&str> = BACKENDS
                .iter()
                .filter(|(.., backend)| built.contains(*backend))
                .map(|(name, ..)| *name)
                .collect();
            let names = names.join(", ");
            return Err(Usage(format!(
                "{VARIABLE}: on this system there is no backend \"{name}\", only {names}"
            )));
        }
        backends |= *backend;
    }
    Ok(backends)
}

/// What to do where no adapter was found at all; nothing where the one that was wanted is not among
/// those that there are.
pub(crate) fn advice() -> Option<String> {
    let is_none = pollster::block_on(Context::adapters(backends().ok()?)).is_empty();
    is_none.then(|| {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut lines: Vec<String> = DRIVER_VARIABLES
            .iter()
            .filter_map(|name| missing_drivers(name, &variable(name)?))
            .collect();
        if let Some(value) = variable(VARIABLE) {
            lines.push(format!(
                "{VARIABLE}={value}: no other backend was looked at; unset it to look at all"
            ));
        }
        lines.push(DRIVERS.into());
        lines.join("\n")
    })
}

/// Variables with which the Vulkan loader is told its drivers.
const DRIVER_VARIABLES: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// Says which files of a variable do not exist, if any.
fn missing_drivers(name: &str, value: &str) -> Option<String> {
    let missing: Vec<PathBuf> = env::split_paths(value)
        .filter(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let names: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
    (!names.is_empty()).then(|| {
        format!("{name}: there is no {}; correct the variable or unset it", names.join(", "))
    })
}

/// Where drivers come from.
const DRIVERS: &str = if cfg!(target_os = "macos") {
    "Metal comes with macOS; this machine or this session has no GPU that it can use"
} else if cfg!(windows) {
    "install the driver of the GPU's vendor, which brings DX12 and Vulkan"
} else {
    "install a Vulkan driver: NVIDIA's own for its GPUs; for all others, and for any processor, \
     Mesa's:
  Debian, Ubuntu  apt-get install mesa-vulkan-drivers libvulkan1
  Fedora, RHEL    dnf install mesa-vulkan-drivers vulkan-loader
  Arch            pacman -S vulkan-swrast vulkan-icd-loader
  Alpine          apk add mesa-vulkan-swrast vulkan-loader
  openSUSE        zypper install libvulkan_lvp libvulkan1"
};

/// Adapter, driver and backend on one line.
pub(crate) fn adapter_line(caps: &Caps) -> String {
    format!("{} ({}), {:?}", caps.name, caps.driver, caps.backend)
}

/// Adapter, driver and backend for programs.
pub(crate) fn adapter_json(caps: &Caps) -> serde_json::Value {
    serde_json::json!({
        "name": caps.name, "driver": caps.driver, "backend": format!("{:?}", caps.backend),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_have_names() {
        use wgpu::Backends;
        let built = Backends::VULKAN | Backends::GL;
        let named = |words| named(words, built).map_err(|Usage(text)| text);
        assert_eq!(named(" Vulkan,gles"), Ok(built));
        assert_eq!(named("vk"), Ok(Backends::VULKAN));
        let unknown = "WGPU_BACKEND: no backend \"vulcan\"; there are vulkan, metal, dx12, gl";
        assert_eq!(named("gl,vulcan"), Err(unknown.into()));
        let absent = "WGPU_BACKEND: on this system there is no backend \"metal\", only vulkan, gl";
        assert_eq!(named("mtl"), Err(absent.into()));
    }
}
