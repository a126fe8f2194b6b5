//! GPU time of compute passes.

use crate::device::{Context, Home};
use crate::error::{Error, Result};

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
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Refused`] for more passes than a set of queries has room
    /// for.
    pub fn new(context: &Context, passes: u32) -> Result<Option<Self>> {
        if !context.caps().timestamps {
            return Ok(None);
        }
        let buffer = |usage| context.buffer("timestamps", u64::from(passes) * 16, usage);
        let queries = context.scoped("timestamps", || {
            context.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: passes.saturating_mul(2),
            })
        });
        Ok(Some(Self {
            home: context.home().clone(),
            queries: queries?,
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC)?,
            readable: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ)?,
            passes,
        }))
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

    /// Milliseconds of each pass, once the work was submitted: 0 where the device's clock stands
    /// still, runs backwards or counts in no time that there is, since nothing was timed then.
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
        let device =
            |error: &dyn std::fmt::Display| Error::DeviceLost { message: error.to_string() };
        receiver.recv().map_err(|error| device(&error))?.map_err(|error| device(&error))?;
        let stamps: Vec<u64> = {
            let range = self.readable.get_mapped_range(..).map_err(|error| device(&error))?;
            bytemuck::pod_collect_to_vec(&range)
        };
        self.readable.unmap();
        let period = f64::from(context.queue().get_timestamp_period());
        Ok(stamps.chunks_exact(2).map(|pair| elapsed_ms([pair[0], pair[1]], period)).collect())
    }
}

/// Milliseconds between two timestamps that count in `period` nanoseconds.
fn elapsed_ms([begin, end]: [u64; 2], period: f64) -> f64 {
    let ms = end.saturating_sub(begin) as f64 * period * 1e-6;
    if ms > 0.0 && ms.is_finite() { ms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "powers of two")]
    fn a_clock_that_lies_times_nothing() {
        assert_eq!(elapsed_ms([1_000_000, 3_000_000], 0.5), 1.0);
        for (stamps, period) in [
            ([3, 1], 1.0),
            ([7, 7], 1.0),
            ([0, u64::MAX], f64::INFINITY),
            ([1, 9], f64::NAN),
            ([1, 9], -1.0),
        ] {
            assert_eq!(elapsed_ms(stamps, period), 0.0, "{stamps:?} {period}");
        }
    }
}
