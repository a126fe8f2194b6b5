//! Tensors: typed views of GPU buffers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result, check_len};

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Elem {
    /// IEEE 754 single precision, 4 bytes.
    F32,
}

impl Elem {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
        }
    }
}

/// A dense tensor in a range of a GPU buffer, last axis contiguous. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    shape: Vec<usize>,
    elem: Elem,
}

/// Buffer usage that a tensor needs: kernels bind it as storage.
pub const TENSOR_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE;

const OWN_USAGE: wgpu::BufferUsages =
    TENSOR_USAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Tensor {
    /// A new tensor on the device, filled with zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty axis, [`Error::Limit`] or [`Error::OutOfMemory`] if the device has no room.
    pub fn zeros(context: &Context, shape: &[usize]) -> Result<Self> {
        let elem = Elem::F32;
        let bytes = byte_count("tensor", shape, elem)?;
        Ok(Self { buffer: context.buffer("tensor", bytes, OWN_USAGE)?, offset: 0, shape: shape.into(), elem })
    }

    /// A new tensor with these values. The copy to the device is queued, not waited for.
    ///
    /// # Errors
    /// As [`Tensor::zeros`]; [`Error::Shape`] if the values do not fill the shape.
    pub fn upload(context: &Context, shape: &[usize], values: &[f32]) -> Result<Self> {
        check_len("tensor", values, shape.iter().product())?;
        let tensor = Self::zeros(context, shape)?;
        tensor.write(context, values)?;
        Ok(tensor)
    }

    /// A tensor in a buffer that the app owns, from byte `offset` on. The buffer needs [`TENSOR_USAGE`], and
    /// `COPY_DST` or `COPY_SRC` to be written or read through this type.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::BufferUsage`], [`Error::Misaligned`] (offsets are multiples of 4), [`Error::Shape`].
    pub fn wrap(buffer: &wgpu::Buffer, offset: u64, shape: &[usize]) -> Result<Self> {
        let elem = Elem::F32;
        let what = || format!("tensor {shape:?}");
        if !offset.is_multiple_of(elem.bytes()) {
            return Err(Error::Misaligned { what: what(), offset, align: elem.bytes() });
        }
        let needed = offset.saturating_add(byte_count("tensor", shape, elem)?);
        if needed > buffer.size() {
            return Err(Error::BufferTooSmall { what: what(), needed, available: buffer.size() });
        }
        let tensor = Self { buffer: buffer.clone(), offset, shape: shape.into(), elem };
        tensor.require(TENSOR_USAGE)?;
        Ok(tensor)
    }

    /// Queues new values for the whole tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values do not fill the shape, [`Error::BufferUsage`] without `COPY_DST`.
    pub fn write(&self, context: &Context, values: &[f32]) -> Result<()> {
        check_len("tensor", values, self.len())?;
        self.require(wgpu::BufferUsages::COPY_DST)?;
        context.queue().write_buffer(&self.buffer, self.offset, bytemuck::cast_slice(values));
        Ok(())
    }

    /// Axis sizes, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a tensor is never empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Element type.
    #[must_use]
    pub fn elem(&self) -> Elem {
        self.elem
    }

    /// The buffer that holds the tensor.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Bytes of the buffer that the tensor covers.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.len() as u64 * self.elem.bytes()
    }

    /// Copies the tensor to host memory. Resolves once the device has finished all work submitted before.
    ///
    /// On native targets the future polls the device whenever it is polled itself; an app that would rather sleep calls
    /// [`Tensor::read_blocking`].
    ///
    /// # Errors
    /// [`Error::BufferUsage`] without `COPY_SRC`, [`Error::DeviceLost`].
    pub async fn read(&self, context: &Context) -> Result<Vec<f32>> {
        self.start_read(context)?.await
    }

    /// [`Tensor::read`], blocking at most `timeout`.
    ///
    /// # Errors
    /// As [`Tensor::read`]; [`Error::Timeout`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking_for(&self, context: &Context, timeout: Duration) -> Result<Vec<f32>> {
        let readback = self.start_read(context)?;
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(timeout) };
        match context.device().poll(wait) {
            Ok(_) => pollster::block_on(readback),
            Err(wgpu::PollError::Timeout) => Err(Error::Timeout(timeout)),
            Err(e) => Err(Error::DeviceLost { message: e.to_string() }),
        }
    }

    /// [`Tensor::read`], blocking until the device is done.
    ///
    /// # Errors
    /// As [`Tensor::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self, context: &Context) -> Result<Vec<f32>> {
        let readback = self.start_read(context)?;
        context
            .device()
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| Error::DeviceLost { message: e.to_string() })?;
        pollster::block_on(readback)
    }

    fn start_read(&self, context: &Context) -> Result<Readback> {
        self.require(wgpu::BufferUsages::COPY_SRC)?;
        let range = self.range();
        let size = range.end - range.start;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = context.buffer("readback", size, usage)?;
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.buffer, range.start, &staging, 0, size);
        context.queue().submit([encoder.finish()]);

        let done = Arc::new(Mutex::new(None));
        let set = Arc::clone(&done);
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            *set.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        Ok(Readback { device: context.device().clone(), staging, done })
    }

    fn require(&self, usage: wgpu::BufferUsages) -> Result<()> {
        let missing = usage - self.buffer.usage();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::BufferUsage { what: format!("tensor {:?}", self.shape), missing })
    }
}

/// Bytes of a tensor; refuses empty axes and sizes past 64 bits.
fn byte_count(what: &str, shape: &[usize], elem: Elem) -> Result<u64> {
    if shape.contains(&0) {
        return Err(Error::Shape { what: what.into(), expected: "no empty axis".into(), found: format!("{shape:?}") });
    }
    let bytes = shape.iter().try_fold(elem.bytes(), |n, &size| n.checked_mul(size as u64));
    bytes.ok_or_else(|| Error::Overflow {
        what: format!("size of tensor {shape:?}"),
        value: shape.iter().fold(u128::from(elem.bytes()), |n, &size| n.saturating_mul(size as u128)),
        limit: u128::from(u64::MAX),
    })
}

/// A copy on its way to host memory.
struct Readback {
    device: wgpu::Device,
    staging: wgpu::Buffer,
    done: Arc<Mutex<Option<Result<(), wgpu::BufferAsyncError>>>>,
}

impl Future for Readback {
    type Output = Result<Vec<f32>>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let lost = |message: String| Poll::Ready(Err(Error::DeviceLost { message }));
        // In the browser callbacks come by themselves and this does nothing.
        if let Err(e) = self.device.poll(wgpu::PollType::Poll) {
            return lost(e.to_string());
        }
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        match done {
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Err(e)) => lost(e.to_string()),
            Some(Ok(())) => match self.staging.get_mapped_range(..) {
                // Bytes are copied, not cast: a mapped range need not be aligned to f32.
                Ok(view) => Poll::Ready(Ok(bytemuck::pod_collect_to_vec(&view))),
                Err(e) => lost(e.to_string()),
            },
        }
    }
}
