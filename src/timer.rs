//! GPU time of compute passes.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::Home;

/// Timestamps around a fixed number of passes.
#[derive(Debug)]
pub struct PassTimer {
    home: Home,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    passes: u32,
}

impl PassTimer {
    /// A timer of `passes` passes, if the device can time.
    #[must_use]
    pub fn new(context: &Context, passes: u32) -> Option<Self> {
        if !context.caps().timestamps {
            return None;
        }
        let device = context.device();
        let size = u64::from(passes) * 16;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        Some(Self {
            home: context.home().clone(),
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * passes,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            passes,
        })
    }

    /// What to put in the descriptor of pass `number`.
    #[must_use]
    pub fn writes(&self, number: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * number),
            end_of_pass_write_index: Some(2 * number + 1),
        }
    }

    /// To be recorded after the last pass.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2 * self.passes, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, self.readable.size());
    }

    /// Milliseconds of each pass, once the work was submitted.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] if the context is of another device, [`Error::DeviceLost`] if the
    /// device is lost.
    pub fn read(&self, context: &Context) -> Result<Vec<f64>> {
        context.home().check("pass timer", &self.home)?;
        let (sender, receiver) = std::sync::mpsc::channel();
        self.readable.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver lives until the poll below has returned.
            let _ = sender.send(result);
        });
        context.wait()?;
        let device = |error: &dyn std::fmt::Display| Error::DeviceLost { message: error.to_string() };
        receiver.recv().map_err(|error| device(&error))?.map_err(|error| device(&error))?;
        let stamps: Vec<u64> = {
            let range = self.readable.get_mapped_range(..).map_err(|error| device(&error))?;
            bytemuck::pod_collect_to_vec(&range)
        };
        self.readable.unmap();
        let period = f64::from(context.queue().get_timestamp_period());
        Ok(stamps.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period * 1e-6).collect())
    }
}
