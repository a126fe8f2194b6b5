//! Waiting for the device.

use dynconv::{Context, wgpu};

use crate::error::{Error, Result};

/// Waits until the device has done all that was submitted.
pub(crate) fn wait(context: &Context) -> Result<()> {
    let done = context.device().poll(wgpu::PollType::wait_indefinitely());
    done.map(|_| ()).map_err(|error| Error::Device(error.to_string()))
}
