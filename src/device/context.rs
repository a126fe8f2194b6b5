//! A device to run on: the app's own, or one requested here.

use std::collections::{HashMap, HashSet};
use std::fmt;
#[cfg(not(target_arch = "wasm32"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(target_arch = "wasm32"))]
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::caps::Caps;
use crate::device::Home;
use crate::error::{Error, Result, Unit};
use crate::kernels::Variant;
use crate::problem::Problem;
use crate::program::Plan;
use crate::tuning::Tuning;

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

/// A device, its queue and what it can do. Cloning is cheap and shares the pipelines compiled so
/// far.
///
/// The context sets no callback on the device and keeps nothing alive elsewhere: dropping the last
/// clone, the layers and the tensors frees everything.
///
/// Tensors, layers and buffers of two devices do not mix ([`Error::OtherDevice`]). Contexts that
/// were made with [`Context::from_wgpu`] from clones of one device are the same device and do.
///
/// # Threads
///
/// Contexts, layers, tensors and what is bound are `Send` and `Sync` on native targets, as wgpu's
/// handles are. Threads share them or have clones, record into encoders of their own, and compile
/// different pipelines at the same time; of one pipeline the second thread waits for the first.
///
/// ```
/// # fn f(layer: &dynconv::OdConv2d, batches: &[Vec<f32>]) -> dynconv::Result<()> {
/// std::thread::scope(|scope| {
///     let runs = batches.iter().map(|images| scope.spawn(|| layer.run(1, [56, 56], images)));
///     let threads: Vec<_> = runs.collect();
///     for thread in threads {
///         let y = thread.join().expect("the thread has not panicked")?;
///         println!("{:?}", &y[..3]);
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// # Async
///
/// [`Context::request`] and [`Tensor::read`](crate::Tensor::read) are futures of no particular
/// executor, and sleep while they wait. `run`, `tune` and what is called blocking wait for the
/// device. All else returns at once, but for what compiles pipelines: binding a layer for the first
/// time, and its `forward`. Under an executor such as tokio's these are work for a thread that may
/// block; or compile ahead with [`Context::warm_up`].
///
/// ```
/// use dynconv::device::ContextOptions;
/// use dynconv::{Context, OdConv2d, Tensor};
///
/// async fn run(context: &Context, layer: &OdConv2d, image: &[f32]) -> dynconv::Result<Vec<f32>> {
///     let x = Tensor::upload(context, &[1, 3, 56, 56], image)?;
///     layer.forward(&x)?.read(context).await // the thread is free until the device is done
/// }
///
/// // Futures that a runtime of several threads may move among them.
/// fn spawns<F: Future + Send>(_: impl FnOnce() -> F) {}
/// spawns(|| async { Context::request(&ContextOptions::default()).await });
/// spawns(|| async { run(todo!(), todo!(), &[]).await });
/// ```
///
/// With tokio, for example, a task has clones of its own:
///
/// ```ignore
/// let (context, layer) = (context.clone(), layer.clone());
/// let task = tokio::spawn(async move { run(&context, &layer, &image).await });
/// ```
#[derive(Clone)]
pub struct Context {
    home: Home,
    queue: wgpu::Queue,
    caps: Arc<Caps>,
    pipelines: Arc<Pipelines>,
    edit: Option<Arc<ShaderEdit>>,
    tuning: Option<Arc<Tuning>>,
    pipeline_cache: Option<wgpu::PipelineCache>,
}

/// A change to shaders on their way to the device.
type ShaderEdit = dyn Fn(&Variant) -> String + Send + Sync;

/// Compiled variants, each behind a lock of its own: whoever needs one that is being compiled
/// waits for that one alone.
type Pipelines = Mutex<HashMap<Variant, Arc<Mutex<Option<wgpu::ComputePipeline>>>>>;

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("home", &self.home)
            .field("backend", &self.caps.backend)
            .field("pipelines", &lock(&self.pipelines).len())
            .field("is_tuned", &self.tuning.is_some())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Features that the library makes use of where a device has them: timestamps, f16, on software
    /// adapters subgroup operations and 64-bit integers, and caches of pipelines that the app
    /// makes. It needs none of them.
    pub const FEATURES: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP)
        .union(wgpu::Features::SHADER_INT64)
        .union(wgpu::Features::PIPELINE_CACHE);

    /// Uses the app's own device and queue. Limits and features are read from the device; nothing
    /// is requested.
    #[must_use]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let caps = Arc::new(Caps::of_device(&device));
        let home = Home::new(device);
        Self {
            home,
            queue,
            caps,
            pipelines: Arc::default(),
            edit: None,
            tuning: None,
            pipeline_cache: None,
        }
    }

    /// What to ask an adapter for: all its limits, and what it has of [`Context::FEATURES`]. An
    /// app that makes its own device adds what it needs itself. A device of
    /// [`wgpu::DeviceDescriptor::default`] works too, and may be many times slower: a [`Plan`]
    /// says where ([`Plan::missing`]).
    #[must_use]
    pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
        wgpu::DeviceDescriptor {
            label: Some("dynconv"),
            required_features: adapter.features() & Self::FEATURES,
            required_limits: adapter.limits(),
            ..Default::default()
        }
    }

    /// Requests an adapter, and a device of it with [`Context::device_descriptor`].
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if no adapter fits, [`Error::DeviceLost`] if it gives no device.
    pub async fn request(options: &ContextOptions) -> Result<Self> {
        let adapter = find_adapter(options).await?;
        let device = request_device(&adapter, &Self::device_descriptor(&adapter)).await;
        let (device, queue) = device.map_err(|message| Error::DeviceLost { message })?;
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

    /// Plans as if the device had these caps, to see or test what a smaller one would run. They
    /// must not promise more than the device has.
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.caps = Arc::new(caps);
        self
    }

    /// Compiles what `edit` makes of a variant instead of [`Variant::source`]: to try a change to a
    /// shader without building the library, or to plant a fault that a test must find. The
    /// entry point keeps its name, which is the kernel's.
    #[must_use]
    pub fn with_shaders(
        mut self,
        edit: impl Fn(&Variant) -> String + Send + Sync + 'static,
    ) -> Self {
        self.edit = Some(Arc::new(edit));
        // What was compiled so far stays with the other clones.
        self.pipelines = Arc::default();
        self
    }

    /// The text that is compiled for a variant: [`Variant::source`], or what
    /// [`Context::with_shaders`] makes of it.
    #[must_use]
    pub fn shader(&self, variant: &Variant) -> String {
        self.edit.as_ref().map_or_else(|| variant.source(), |edit| edit(variant))
    }

    /// Lets layers whose kernel is left to the planner run the one that was measured to be the
    /// fastest: see [`tune`](crate::tune).
    ///
    /// # Errors
    /// [`Error::StaleTuning`] for a table of another adapter, driver or version of the kernels.
    pub fn with_tuning(mut self, tuning: Tuning) -> Result<Self> {
        tuning.check(&self.caps)?;
        self.tuning = Some(Arc::new(tuning));
        Ok(self)
    }

    /// Compiles pipelines through the app's own cache of them, which it may keep on disk. Making
    /// one (`wgpu::Device::create_pipeline_cache`) is unsafe, since nothing proves that what
    /// was read from a disk is what was written; so it is left to the app.
    #[must_use]
    pub fn with_pipeline_cache(mut self, cache: wgpu::PipelineCache) -> Self {
        self.pipeline_cache = Some(cache);
        self
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        self.home.device()
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
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
            Some(tuning) => tuning.plan(problem, &self.caps),
            None => Plan::new(problem, &self.caps),
        }
    }

    /// Waits until the device has done all that was submitted.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        poll(self.device(), wgpu::PollType::wait_indefinitely()).map_err(|fault| match fault {
            PollFault::Timeout => unreachable!("this wait has no end"),
            PollFault::Lost(message) => Error::DeviceLost { message },
        })
    }

    /// A buffer of `bytes` bytes, or the device's refusal as an error.
    pub(crate) fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        if bytes > self.caps.max_buffer {
            return Err(Error::Limit {
                limit: "max_buffer_size",
                unit: Unit::Bytes,
                what: what.into(),
                needed: bytes,
                available: self.caps.max_buffer,
                remedy: "use a smaller batch or a device with a larger limit".into(),
            });
        }
        let descriptor = wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes,
            usage,
            mapped_at_creation: false,
        };
        self.scoped(&format!("{what} of {}", Unit::Bytes.of(bytes)), || {
            self.device().create_buffer(&descriptor)
        })
    }

    /// The compiled pipeline of a kernel variant; compiled on first use. A variant that was
    /// refused is tried again.
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        let cell = Arc::clone(lock(&self.pipelines).entry(variant.clone()).or_default());
        let mut pipeline = lock(&cell);
        match &*pipeline {
            Some(pipeline) => Ok(pipeline.clone()),
            None => Ok(pipeline.insert(self.compile(variant)?).clone()),
        }
    }

    /// Compiles all that these plans run, so that binding their layers compiles nothing. On native
    /// targets several pipelines are compiled at a time, on as many threads as there are processor
    /// cores. `progress` is told how many are done, and of how many; first that none is. No tensor
    /// is needed, and neither batch nor input size matters much: most layers run the same
    /// pipelines for all of them.
    ///
    /// A tensor that begins in the middle of its buffer, or is of another element type than the
    /// plan says, may need another variant, which is compiled when it is bound. So are the small
    /// steps around the convolution in layers of several steps ([`PixelMix2d`](crate::PixelMix2d)
    /// and its like), which have no plan of their own.
    ///
    /// ```
    /// # fn f(context: &dynconv::Context, layers: &[dynconv::OdConv2d]) -> dynconv::Result<()> {
    /// let plans = layers.iter().map(|layer| layer.plan(1, [56, 56]));
    /// let plans = plans.collect::<dynconv::Result<Vec<_>>>()?;
    /// context.warm_up(&plans, |done, total| println!("{done} of {total} shaders"))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shader`] if a kernel is refused; the rest is then not compiled.
    pub fn warm_up(&self, plans: &[Plan], mut progress: impl FnMut(usize, usize)) -> Result<()> {
        let mut seen = HashSet::new();
        let all = plans.iter().flat_map(Plan::dispatches).map(|dispatch| &dispatch.variant);
        let variants: Vec<&Variant> = all.filter(|variant| seen.insert(*variant)).collect();
        progress(0, variants.len());
        self.pipelines(&variants, |done| progress(done, variants.len()))
    }

    /// Compiles variants on all cores, and tells how many are done.
    #[cfg(not(target_arch = "wasm32"))]
    fn pipelines(&self, variants: &[&Variant], mut progress: impl FnMut(usize)) -> Result<()> {
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(variants.len());
        let next = AtomicUsize::new(0);
        let (sender, compiled) = mpsc::channel();
        let compile = &|sender: mpsc::Sender<_>| {
            while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Nobody listens any more once one was refused.
                if sender.send(self.pipeline(variant)).is_err() {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            let start =
                |sender| std::thread::Builder::new().spawn_scoped(scope, move || compile(sender));
            let started = (0..threads).take_while(|_| start(sender.clone()).is_ok()).count();
            if started == 0 {
                // The system has no thread to spare.
                compile(sender.clone());
            }
            drop(sender);
            for (done, pipeline) in (1..).zip(compiled) {
                pipeline?;
                progress(done);
            }
            Ok(())
        })
    }

    #[cfg(target_arch = "wasm32")]
    fn pipelines(&self, variants: &[&Variant], mut progress: impl FnMut(usize)) -> Result<()> {
        for (done, variant) in (1..).zip(variants) {
            self.pipeline(variant)?;
            progress(done);
        }
        Ok(())
    }

    fn compile(&self, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        let label = variant.label();
        let source = self.shader(variant);
        let compiled = self.scoped(&label, || {
            let module = self.device().create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            self.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
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
        compiled.map_err(|error| match error {
            Error::Refused { what, message } => Error::Shader { kernel: what, message },
            other => other,
        })
    }

    /// Records and submits work of ours.
    pub(crate) fn submit(
        &self,
        what: &str,
        record: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        self.scoped(what, || {
            let mut encoder =
                self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder);
            self.queue.submit([encoder.finish()])
        })
    }

    /// Runs `create` and turns what the device reports meanwhile into an error. In the browser
    /// reports come later than this can wait for; there they reach the device's own error
    /// handler.
    pub(crate) fn scoped<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T> {
        #[cfg(target_arch = "wasm32")]
        {
            let _ = what;
            Ok(create())
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let filters = [
                wgpu::ErrorFilter::Validation,
                wgpu::ErrorFilter::OutOfMemory,
                wgpu::ErrorFilter::Internal,
            ];
            let scopes = filters.map(|filter| self.device().push_error_scope(filter));
            let value = create();
            let reports =
                scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
            match reports.last() {
                None => Ok(value),
                Some(wgpu::Error::OutOfMemory { .. }) => {
                    Err(Error::OutOfMemory { what: what.into() })
                }
                Some(report) => {
                    let message = one_line(&report.to_string());
                    // What is made on a device that is lost is not reported; what is done with it
                    // then is.
                    Err(match self.home.is_lost() {
                        true => Error::DeviceLost { message: format!("{what}: {message}") },
                        false => Error::Refused { what: what.into(), message },
                    })
                }
            }
        }
    }
}

/// A lock whose holder cannot leave a thing half-changed, so that a poisoned one is as good as
/// another.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a wait for the device ended too early.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) enum PollFault {
    /// Its time was over.
    Timeout,
    /// The device is lost, for this reason.
    Lost(String),
}

/// Waits for the device. wgpu panics where a driver loses the device meanwhile.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn poll(
    device: &wgpu::Device,
    how: wgpu::PollType,
) -> std::result::Result<(), PollFault> {
    match caught(|| device.poll(how)).map_err(PollFault::Lost)? {
        Ok(_) => Ok(()),
        Err(wgpu::PollError::Timeout) => Err(PollFault::Timeout),
        Err(error) => Err(PollFault::Lost(error.to_string())),
    }
}

/// A device of an adapter, or why there is none. wgpu panics where there is memory for a part of
/// the device only.
#[cfg(not(target_arch = "wasm32"))]
async fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> std::result::Result<(wgpu::Device, wgpu::Queue), String> {
    // Natively the request is done before the future is there.
    caught(|| pollster::block_on(adapter.request_device(descriptor)))?
        .map_err(|error| error.to_string())
}

#[cfg(target_arch = "wasm32")]
async fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> std::result::Result<(wgpu::Device, wgpu::Queue), String> {
    adapter.request_device(descriptor).await.map_err(|error| error.to_string())
}

/// What `work` gives, or what it panicked with: a driver that fails is no end for a program that
/// has other work, or another device. wgpu holds no lock where this is called.
#[cfg(not(target_arch = "wasm32"))]
fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        one_line(
            text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("wgpu panicked"),
        )
    })
}

/// wgpu's reports have several lines; errors have one.
#[cfg(not(target_arch = "wasm32"))]
fn one_line(report: &str) -> String {
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
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
    instance(options.backends).request_adapter(&request).await.map_err(|e| Error::NoAdapter {
        wanted: format!("{:?}", options.adapter),
        found: e.to_string(),
    })
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
        AdapterChoice::Fastest => (
            best([DiscreteGpu, IntegratedGpu, VirtualGpu, Other, Cpu]),
            "any Vulkan, Metal or DX12 adapter".into(),
        ),
        AdapterChoice::LowPower => (
            best([IntegratedGpu, DiscreteGpu, VirtualGpu, Other, Cpu]),
            "any Vulkan, Metal or DX12 adapter, low power first".into(),
        ),
        AdapterChoice::Name(name) => {
            let lower = name.to_lowercase();
            (
                caps.iter().position(|c| c.name.to_lowercase().contains(&lower)),
                format!("wanted a name with \"{name}\""),
            )
        }
        AdapterChoice::Index(i) => ((*i < caps.len()).then_some(*i), format!("wanted number {i}")),
    };
    index.ok_or_else(|| Error::NoAdapter { wanted, found: describe(caps) })
}

fn describe(caps: &[Caps]) -> String {
    if caps.is_empty() {
        return "found none".into();
    }
    let names: Vec<String> =
        caps.iter().enumerate().map(|(i, c)| format!("{i}: {}", c.name)).collect();
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
        assert_eq!(
            message,
            "no adapter: wanted a name with \"Radeon\"; found 0: llvmpipe, 1: Iris Xe, 2: GeForce"
        );
        assert!(choose(AdapterChoice::Index(3)).is_err());
        assert!(choose_adapter(&[], &AdapterChoice::Fastest).is_err());
    }
}
