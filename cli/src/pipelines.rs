//! Compiled pipelines that outlive the program, where the backend lets them.
#![expect(
    unsafe_code,
    reason = "wgpu cannot prove that what a disk gives is what was written to it"
)]

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dynconv::{Context, wgpu};

/// A cache of pipelines and its file.
#[derive(Debug)]
pub(crate) struct Pipelines {
    cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl Pipelines {
    /// The pipelines of a file, or none if there is no such file; a context that compiles through
    /// them. Devices that cannot keep pipelines compile as ever.
    pub(crate) fn open(context: Context, path: PathBuf) -> anyhow::Result<(Context, Option<Self>)> {
        if !context.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok((context, None));
        }
        let data = match std::fs::read(&path) {
            Ok(data) => Some(data),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("dynconv"),
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: the data must be what `get_data` gave. `save` writes nothing else, and to a name
        // of its own first, so that no file is cut short; the folder belongs to the user,
        // like the program itself. wgpu checks the header, and drops data of other devices.
        let cache = unsafe { context.device().create_pipeline_cache(&descriptor) };
        Ok((context.with_pipeline_cache(cache.clone()), Some(Self { cache, path })))
    }

    /// Writes what has been compiled.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        write_whole(&self.path, &data)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn write_whole(path: &Path, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("pipelines.{}", std::process::id()));
    std::fs::write(&unfinished, data)?;
    std::fs::rename(&unfinished, path)
}
