//! A device with cooperative matrices, for the tools: the library itself never turns experimental
//! features on.

use dynconv::device::{ContextOptions, choose_adapter};
use dynconv::{Caps, Context, Error, Result, wgpu};

/// As [`Context::request`], and with the adapter's cooperative matrices
/// ([`Context::with_matrices`]).
///
/// # Errors
/// As of both.
pub async fn request(options: &ContextOptions) -> Result<Context> {
    let (context, adapter) = open(options).await?;
    context.with_matrices(&adapter)
}

/// A device with the adapter's cooperative matrices, if it has any, before they were tested; and
/// the adapter.
///
/// # Errors
/// As of [`Context::request`].
pub async fn open(options: &ContextOptions) -> Result<(Context, wgpu::Adapter)> {
    let descriptor = wgpu::InstanceDescriptor {
        backends: options.backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let mut adapters = wgpu::Instance::new(descriptor).enumerate_adapters(options.backends).await;
    let caps: Vec<Caps> = adapters.iter().map(Caps::of_adapter).collect();
    let adapter = adapters.swap_remove(choose_adapter(&caps, &options.adapter)?);
    let wanted = Context::FEATURES | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("dynconv with cooperative matrices"),
        required_features: adapter.features() & wanted,
        required_limits: adapter.limits(),
        experimental_features: experimental(),
        ..Default::default()
    };
    let device = adapter.request_device(&descriptor).await;
    let (device, queue) = device.map_err(|e| Error::DeviceLost { message: e.to_string() })?;
    Ok((Context::from_wgpu(device, queue), adapter))
}

#[expect(unsafe_code, reason = "wgpu has everyone say that experimental features may misbehave")]
pub(crate) fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: it is asked for by name, by people who test drivers.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
