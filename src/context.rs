//! A device to run on: the app's own, or one requested here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::kernels::Variant;
use crate::plan::{Plan, Problem};
use crate::tune::Tuning;

/// Which adapter [`Context::request`] takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The fastest by its kind: discrete, integrated, virtual, unknown, software.
    #[default]
    Fastest,
    /// The one that uses least power: integrated first.
    LowPower,
    /// The first whose name contains this text, in any case.
    Name(String),
    /// The one at this place in [`Context::adapters`].
    Index(usize),
}

/// What [`Context::request`] asks for.
#[derive(Clone, Debug)]
pub struct ContextOptions {
    /// Which adapter.
    pub adapter: AdapterChoice,
    /// Backends to look at. By default Vulkan, Metal, DX12 and the browser's WebGPU.
    pub backends: wgpu::Backends,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self { adapter: AdapterChoice::default(), backends: wgpu::Backends::PRIMARY }
    }
}

/// A device, its queue and what it can do. Cloning is cheap and shares the pipelines compiled so far.
///
/// The context sets no callback on the device and keeps no global state: dropping the last clone, the layers and the
/// tensors frees everything.
#[derive(Clone, Debug)]
pub struct Context {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Arc<Caps>,
    pipelines: Arc<Mutex<HashMap<Variant, wgpu::ComputePipeline>>>,
    edit: Option<ShaderEdit>,
    tuning: Option<Arc<Tuning>>,
    pipeline_cache: Option<wgpu::PipelineCache>,
}

/// A change to shaders on their way to the device.
#[derive(Clone)]
struct ShaderEdit(Arc<dyn Fn(&Variant) -> String + Send + Sync>);

impl fmt::Debug for ShaderEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShaderEdit")
    }
}

impl Context {
    /// Features that the library makes use of where a device has them: timestamps, f16, on software adapters subgroup operations and
    /// 64-bit integers, and caches of pipelines that the app makes. It needs none of them.
    pub const FEATURES: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP)
        .union(wgpu::Features::SHADER_INT64)
        .union(wgpu::Features::PIPELINE_CACHE);

    /// Uses the app's own device and queue. Limits and features are read from the device; nothing is requested.
    #[must_use]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let caps = Arc::new(Caps::of_device(&device));
        Self { device, queue, caps, pipelines: Arc::default(), edit: None, tuning: None, pipeline_cache: None }
    }

    /// Requests a device with all limits of the adapter, and with what of [`Context::FEATURES`] it has.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if no adapter fits, [`Error::DeviceLost`] if it gives no device.
    pub async fn request(options: &ContextOptions) -> Result<Self> {
        let adapter = find_adapter(options).await?;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("dynconv"),
                required_features: adapter.features() & Self::FEATURES,
                required_limits: adapter.limits(),
                ..Default::default()
            })
            .await
            .map_err(|e| Error::DeviceLost { message: e.to_string() })?;
        Ok(Self::from_wgpu(device, queue))
    }

    /// [`Context::request`] with default options, blocking.
    ///
    /// # Errors
    /// As [`Context::request`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_blocking() -> Result<Self> {
        pollster::block_on(Self::request(&ContextOptions::default()))
    }

    /// Caps of all adapters of these backends, in the order of [`AdapterChoice::Index`].
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn adapters(backends: wgpu::Backends) -> Vec<Caps> {
        instance(backends).enumerate_adapters(backends).await.iter().map(Caps::of_adapter).collect()
    }

    /// Plans as if the device had these caps, to see or test what a smaller one would run. They must not promise more than the
    /// device has.
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.caps = Arc::new(caps);
        self
    }

    /// Compiles what `edit` makes of a variant instead of [`Variant::source`]: to try a change to a shader without building the
    /// library, or to plant a fault that a test must find. The entry point keeps its name, which is the kernel's.
    #[must_use]
    pub fn with_shaders(mut self, edit: impl Fn(&Variant) -> String + Send + Sync + 'static) -> Self {
        self.edit = Some(ShaderEdit(Arc::new(edit)));
        // What was compiled so far stays with the other clones.
        self.pipelines = Arc::default();
        self
    }

    /// Lets layers whose kernel is left to the planner run the one that was measured to be the fastest: see [`tune`](crate::tune).
    ///
    /// # Errors
    /// [`Error::StaleTuning`] for a table of another adapter, driver or version of the kernels.
    pub fn with_tuning(mut self, tuning: Tuning) -> Result<Self> {
        tuning.check(&self.caps)?;
        self.tuning = Some(Arc::new(tuning));
        Ok(self)
    }

    /// Compiles pipelines through the app's own cache of them, which it may keep on disk. Making one (`wgpu::Device::create_pipeline_cache`)
    /// is unsafe, since nothing proves that what was read from a disk is what was written; so it is left to the app.
    #[must_use]
    pub fn with_pipeline_cache(mut self, cache: wgpu::PipelineCache) -> Self {
        self.pipeline_cache = Some(cache);
        self
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// What the device can do.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Plans a problem, tuned if the app has asked for it.
    pub(crate) fn plan(&self, problem: &Problem) -> Result<Plan> {
        match &self.tuning {
            Some(tuning) => Plan::tuned(problem, tuning, &self.caps),
            None => Plan::new(problem, &self.caps),
        }
    }

    /// Waits until the device has done all that was submitted.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wait(&self) -> Result<()> {
        let done = self.device.poll(wgpu::PollType::wait_indefinitely());
        done.map(|_| ()).map_err(|error| Error::DeviceLost { message: error.to_string() })
    }

    /// A buffer of `bytes` bytes, or the device's refusal as an error.
    pub(crate) fn buffer(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        if bytes > self.caps.max_buffer {
            return Err(Error::Limit {
                limit: "max_buffer_size",
                what: what.into(),
                needed: bytes,
                available: self.caps.max_buffer,
                remedy: "use a smaller batch or a device with a larger limit".into(),
            });
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size: bytes, usage, mapped_at_creation: false };
        self.scoped(&format!("{what} of {bytes} bytes"), || self.device.create_buffer(&descriptor))
    }

    /// The compiled pipeline of a kernel variant; compiled on first use.
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        // A panic while the lock was held cannot leave the map half-changed, so a poisoned lock is as good as another.
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(variant) {
            return Ok(pipeline.clone());
        }
        let label = variant.label();
        let source = self.edit.as_ref().map_or_else(|| variant.source(), |edit| (edit.0)(variant));
        let compiled = self.scoped(&label, || {
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: None,
                module: &module,
                entry_point: Some(variant.kernel.name()),
                // Kernels write workgroup memory before they read it.
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.pipeline_cache.as_ref(),
            })
        });
        let pipeline = compiled.map_err(|error| match error {
            Error::Refused { what, message } => Error::Shader { kernel: what, message },
            other => other,
        })?;
        pipelines.insert(variant.clone(), pipeline.clone());
        Ok(pipeline)
    }

    /// Runs `create` and turns what the device reports meanwhile into an error. In the browser reports come later than
    /// this can wait for; there they reach the device's own error handler.
    pub(crate) fn scoped<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T> {
        #[cfg(target_arch = "wasm32")]
        {
            let _ = what;
            Ok(create())
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let filters = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal];
            let scopes = filters.map(|filter| self.device.push_error_scope(filter));
            let value = create();
            let reports = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
            match reports.last() {
                None => Ok(value),
                Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { what: what.into() }),
                Some(report) => Err(Error::Refused { what: what.into(), message: one_line(&report.to_string()) }),
            }
        }
    }
}

/// wgpu's reports have several lines; errors have one.
#[cfg(not(target_arch = "wasm32"))]
fn one_line(report: &str) -> String {
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() })
}

#[cfg(target_arch = "wasm32")]
async fn find_adapter(options: &ContextOptions) -> Result<wgpu::Adapter> {
    let power_preference = match &options.adapter {
        AdapterChoice::LowPower => wgpu::PowerPreference::LowPower,
        AdapterChoice::Fastest => wgpu::PowerPreference::HighPerformance,
        choice => {
            let found = "the browser does not let a page choose among adapters".into();
            return Err(Error::NoAdapter { wanted: format!("wanted {choice:?}"), found });
        }
    };
    let request = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    instance(options.backends)
        .request_adapter(&request)
        .await
        .map_err(|e| Error::NoAdapter { wanted: format!("{:?}", options.adapter), found: e.to_string() })
}

#[cfg(not(target_arch = "wasm32"))]
async fn find_adapter(options: &ContextOptions) -> Result<wgpu::Adapter> {
    let mut adapters = instance(options.backends).enumerate_adapters(options.backends).await;
    let caps: Vec<Caps> = adapters.iter().map(Caps::of_adapter).collect();
    let index = choose_adapter(&caps, &options.adapter)?;
    Ok(adapters.swap_remove(index))
}

/// Index of the adapter that a choice takes among `caps`.
///
/// # Errors
/// [`Error::NoAdapter`], naming what was wanted and what there is.
pub fn choose_adapter(caps: &[Caps], choice: &AdapterChoice) -> Result<usize> {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
    let best = |order: [wgpu::DeviceType; 5]| {
        let rank = |c: &Caps| order.iter().position(|t| *t == c.device_type);
        // The first among equals, so that the order of the list decides.
        (0..caps.len()).min_by_key(|&i| rank(&caps[i]))
    };
    let (index, wanted) = match choice {
        AdapterChoice::Fastest => {
            (best([DiscreteGpu, IntegratedGpu, VirtualGpu, Other, Cpu]), "any Vulkan, Metal or DX12 adapter".into())
        }
        AdapterChoice::LowPower => (
            best([IntegratedGpu, DiscreteGpu, VirtualGpu, Other, Cpu]),
            "any Vulkan, Metal or DX12 adapter, low power first".into(),
        ),
        AdapterChoice::Name(name) => {
            let lower = name.to_lowercase();
            (caps.iter().position(|c| c.name.to_lowercase().contains(&lower)), format!("wanted a name with \"{name}\""))
        }
        AdapterChoice::Index(i) => ((*i < caps.len()).then_some(*i), format!("wanted number {i}")),
    };
    index.ok_or_else(|| Error::NoAdapter { wanted, found: describe(caps) })
}

fn describe(caps: &[Caps]) -> String {
    if caps.is_empty() {
        return "found none".into();
    }
    let names: Vec<String> = caps.iter().enumerate().map(|(i, c)| format!("{i}: {}", c.name)).collect();
    format!("found {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, device_type: wgpu::DeviceType) -> Caps {
        Caps { name: name.into(), device_type, ..Caps::webgpu_default() }
    }

    #[test]
    fn adapters_are_chosen_by_kind_name_and_index() {
        let all = [
            adapter("llvmpipe", wgpu::DeviceType::Cpu),
            adapter("Iris Xe", wgpu::DeviceType::IntegratedGpu),
            adapter("GeForce", wgpu::DeviceType::DiscreteGpu),
        ];
        let choose = |choice| choose_adapter(&all, &choice);
        assert_eq!(choose(AdapterChoice::Fastest).expect("found"), 2);
        assert_eq!(choose(AdapterChoice::LowPower).expect("found"), 1);
        assert_eq!(choose(AdapterChoice::Name("LLVM".into())).expect("found"), 0);
        assert_eq!(choose(AdapterChoice::Index(1)).expect("found"), 1);

        let message = choose(AdapterChoice::Name("Radeon".into())).expect_err("absent").to_string();
        assert_eq!(message, "no adapter: wanted a name with \"Radeon\"; found 0: llvmpipe, 1: Iris Xe, 2: GeForce");
        assert!(choose(AdapterChoice::Index(3)).is_err());
        assert!(choose_adapter(&[], &AdapterChoice::Fastest).is_err());
    }
}
