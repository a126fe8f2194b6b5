//! Tensors: typed views of GPU buffers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use crate::context::Context;
use crate::elem::Elem;
use crate::error::{Error, Result, check_len};

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
    /// A new f32 tensor on the device, filled with zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty axis, [`Error::Limit`] or [`Error::OutOfMemory`] if the device has no room.
    pub fn zeros(context: &Context, shape: &[usize]) -> Result<Self> {
        Self::zeros_in(context, shape, Elem::F32)
    }

    /// [`Tensor::zeros`] in another element type.
    ///
    /// # Errors
    /// As [`Tensor::zeros`]; [`Error::MissingFeature`] for [`Elem::F16`] on a device without `SHADER_F16`.
    pub fn zeros_in(context: &Context, shape: &[usize], elem: Elem) -> Result<Self> {
        if elem == Elem::F16 && !context.caps().f16 {
            return Err(Error::MissingFeature { feature: "SHADER_F16", needed_for: "a tensor of Elem::F16".into() });
        }
        let bytes = byte_count("tensor", shape, elem)?;
        Ok(Self { buffer: context.buffer("tensor", bytes.max(8), OWN_USAGE)?, offset: 0, shape: shape.into(), elem })
    }

    /// A new f32 tensor with these values. The copy to the device is queued, not waited for.
    ///
    /// # Errors
    /// As [`Tensor::zeros`]; [`Error::Shape`] if the values do not fill the shape.
    pub fn upload(context: &Context, shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::upload_in(context, shape, values, Elem::F32)
    }

    /// [`Tensor::upload`] into another element type; values are rounded to it.
    ///
    /// # Errors
    /// As [`Tensor::upload`] and [`Tensor::zeros_in`].
    pub fn upload_in(context: &Context, shape: &[usize], values: &[f32], elem: Elem) -> Result<Self> {
        // Refuses sizes that do not fit before they are multiplied.
        byte_count("tensor", shape, elem)?;
        check_len("tensor", values, shape.iter().product())?;
        let tensor = Self::zeros_in(context, shape, elem)?;
        tensor.write(context, values)?;
        Ok(tensor)
    }

    /// An f32 tensor in a buffer that the app owns, from byte `offset` on. The buffer needs [`TENSOR_USAGE`], and
    /// `COPY_DST` or `COPY_SRC` to be written or read through this type.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::BufferUsage`], [`Error::Misaligned`] (offsets are multiples of 4), [`Error::Shape`].
    pub fn wrap(buffer: &wgpu::Buffer, offset: u64, shape: &[usize]) -> Result<Self> {
        Self::wrap_in(buffer, offset, shape, Elem::F32)
    }

    /// [`Tensor::wrap`] for another element type. A tensor takes whole words: an odd number of 2-byte elements also takes the half
    /// after it. Whether the device can compute with [`Elem::F16`] shows when the tensor is bound.
    ///
    /// # Errors
    /// As [`Tensor::wrap`].
    pub fn wrap_in(buffer: &wgpu::Buffer, offset: u64, shape: &[usize], elem: Elem) -> Result<Self> {
        let what = || format!("tensor {shape:?}");
        if !offset.is_multiple_of(4) {
            return Err(Error::Misaligned { what: what(), offset, align: 4 });
        }
        let needed = offset.saturating_add(byte_count("tensor", shape, elem)?);
        if needed > buffer.size() {
            return Err(Error::BufferTooSmall { what: what(), needed, available: buffer.size() });
        }
        let tensor = Self { buffer: buffer.clone(), offset, shape: shape.into(), elem };
        tensor.require(TENSOR_USAGE)?;
        Ok(tensor)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let len = shape.iter().fold(1_usize, |n, &size| n.saturating_mul(size));
        if len != self.len() {
            return Err(Error::shape("elements of a reshaped tensor", &[self.len()], &[len]));
        }
        Ok(Self { shape: shape.into(), ..self.clone() })
    }

    /// Queues new values for the whole tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values do not fill the shape, [`Error::BufferUsage`] without `COPY_DST`.
    pub fn write(&self, context: &Context, values: &[f32]) -> Result<()> {
        check_len("tensor", values, self.len())?;
        self.require(wgpu::BufferUsages::COPY_DST)?;
        context.scoped("a write to a tensor", || {
            context.queue().write_buffer(&self.buffer, self.offset, &self.elem.encode(values));
        })
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

    /// Bytes of the buffer that the tensor covers, in whole words.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + (self.len() as u64 * self.elem.bytes()).next_multiple_of(4)
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
        context.wait()?;
        pollster::block_on(readback)
    }

    fn start_read(&self, context: &Context) -> Result<Readback> {
        self.require(wgpu::BufferUsages::COPY_SRC)?;
        let range = self.range();
        let size = range.end - range.start;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = context.buffer("readback", size, usage)?;
        context.scoped("a read of a tensor", || {
            let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&self.buffer, range.start, &staging, 0, size);
            context.queue().submit([encoder.finish()]);
        })?;

        let state = Arc::new(Mutex::new(ReadState::default()));
        let set = Arc::clone(&state);
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let mut state = set.lock().unwrap_or_else(PoisonError::into_inner);
            state.result = Some(result);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
        let (elem, len) = (self.elem, self.len());
        Ok(Readback { device: context.device().clone(), staging, state, elem, len })
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
    bytes.and_then(|bytes| bytes.checked_next_multiple_of(4)).ok_or_else(|| Error::Overflow {
        what: format!("size of tensor {shape:?}"),
        value: shape.iter().fold(u128::from(elem.bytes()), |n, &size| n.saturating_mul(size as u128)),
        limit: u128::from(u64::MAX),
    })
}

/// What the device has told of a copy, and whom to tell.
#[derive(Default)]
struct ReadState {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A copy on its way to host memory.
struct Readback {
    device: wgpu::Device,
    staging: wgpu::Buffer,
    state: Arc<Mutex<ReadState>>,
    elem: Elem,
    len: usize,
}

impl Future for Readback {
    type Output = Result<Vec<f32>>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let lost = |message: String| Poll::Ready(Err(Error::DeviceLost { message }));
        // In the browser callbacks come by themselves and this does nothing.
        if let Err(e) = self.device.poll(wgpu::PollType::Poll) {
            return lost(e.to_string());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.result.take() {
            None => {
                state.waker = Some(cx.waker().clone());
                // Native callbacks come only while somebody polls the device. In the browser, waking here would keep its event
                // loop from ever running the callback.
                #[cfg(not(target_arch = "wasm32"))]
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Err(e)) => lost(e.to_string()),
            Some(Ok(())) => match self.staging.get_mapped_range(..) {
                Ok(view) => Poll::Ready(Ok(self.elem.decode(&view, self.len))),
                Err(e) => lost(e.to_string()),
            },
        }
    }
}
