//! Tensors: typed views of GPU buffers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use crate::device::{Context, Home, lock};
#[cfg(not(target_arch = "wasm32"))]
use crate::device::{PollFault, poll};
use crate::elem::Elem;
use crate::error::{Error, Result, check_len};

/// A dense tensor in a range of a GPU buffer, last axis contiguous. Cloning shares the buffer.
///
/// A tensor belongs to the device of the context that it was made with, and is refused by layers
/// and contexts of another ([`Error::OtherDevice`]). Its first axis, the batch, may be 0: it then
/// has no elements, and what is computed of it is empty too.
#[derive(Clone)]
pub struct Tensor {
    home: Home,
    buffer: wgpu::Buffer,
    offset: u64,
    shape: Vec<usize>,
    elem: Elem,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {:?} of {:?}, {}", self.shape, self.elem, self.home)
    }
}

/// Buffer usage that a tensor needs: kernels bind it as storage.
pub const TENSOR_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE;

const OWN_USAGE: wgpu::BufferUsages =
    TENSOR_USAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Tensor {
    /// A new f32 tensor on the device, filled with zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty axis other than the first, [`Error::Limit`] or
    /// [`Error::OutOfMemory`] if the device has no room.
    pub fn zeros(context: &Context, shape: &[usize]) -> Result<Self> {
        Self::zeros_in(context, shape, Elem::F32)
    }

    /// [`Tensor::zeros`] in another element type.
    ///
    /// # Errors
    /// As [`Tensor::zeros`]; [`Error::MissingFeature`] for [`Elem::F16`] on a device without
    /// `SHADER_F16`.
    pub fn zeros_in(context: &Context, shape: &[usize], elem: Elem) -> Result<Self> {
        Self::new(context, "tensor", shape, elem)
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
    pub fn upload_in(
        context: &Context,
        shape: &[usize],
        values: &[f32],
        elem: Elem,
    ) -> Result<Self> {
        Self::filled(context, "tensor", shape, values, elem)
    }

    /// A new tensor of zeros, called `what` in errors.
    pub(crate) fn new(context: &Context, what: &str, shape: &[usize], elem: Elem) -> Result<Self> {
        if elem == Elem::F16 && !context.caps().f16 {
            return Err(Error::MissingFeature {
                feature: "SHADER_F16",
                needed_for: format!("{what} of Elem::F16"),
            });
        }
        let bytes = byte_count(what, shape, elem)?;
        let buffer = Self::memory(context, what, bytes)?;
        Ok(Self::within(context, &buffer, 0, shape, elem))
    }

    /// Memory for tensors.
    pub(crate) fn memory(context: &Context, what: &str, bytes: u64) -> Result<wgpu::Buffer> {
        context.buffer(what, bytes.max(8), OWN_USAGE)
    }

    /// A tensor in a buffer of the library's own, which is large enough.
    pub(crate) fn within(
        context: &Context,
        buffer: &wgpu::Buffer,
        offset: u64,
        shape: &[usize],
        elem: Elem,
    ) -> Self {
        let (home, buffer) = (context.home().clone(), buffer.clone());
        Self { home, buffer, offset, shape: shape.into(), elem }
    }

    /// A new tensor of these values, called `what` in errors.
    pub(crate) fn filled(
        context: &Context,
        what: &str,
        shape: &[usize],
        values: &[f32],
        elem: Elem,
    ) -> Result<Self> {
        // Refuses sizes that do not fit before they are multiplied.
        byte_count(what, shape, elem)?;
        check_len(what, values, shape.iter().product())?;
        let tensor = Self::new(context, what, shape, elem)?;
        tensor.write(context, values)?;
        Ok(tensor)
    }

    /// An f32 tensor in a buffer that the app owns, from byte `offset` on. The buffer is of the
    /// context's device and needs [`TENSOR_USAGE`], and `COPY_DST` or `COPY_SRC` to be written or
    /// read through this type.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::BufferUsage`], [`Error::Misaligned`] (offsets are
    /// multiples of 4), [`Error::Shape`], [`Error::Refused`] if the buffer was destroyed, and
    /// [`Error::OtherDevice`] if it is of another device; wgpu then reports a mistake to that
    /// device's handler, too. Buffers that are mapped, or can be, are not asked for their device,
    /// since that is done by unmapping them.
    pub fn wrap(
        context: &Context,
        buffer: &wgpu::Buffer,
        offset: u64,
        shape: &[usize],
    ) -> Result<Self> {
        Self::wrap_in(context, buffer, offset, shape, Elem::F32)
    }

    /// [`Tensor::wrap`] for another element type. A tensor takes whole words: an odd number of
    /// 2-byte elements also takes the half after it. Whether the device can compute with
    /// [`Elem::F16`] shows when the tensor is bound.
    ///
    /// # Errors
    /// As [`Tensor::wrap`].
    pub fn wrap_in(
        context: &Context,
        buffer: &wgpu::Buffer,
        offset: u64,
        shape: &[usize],
        elem: Elem,
    ) -> Result<Self> {
        let what = format!("tensor {shape:?}");
        if !offset.is_multiple_of(4) {
            return Err(Error::Misaligned { what, offset, align: 4 });
        }
        let needed = offset.saturating_add(byte_count("tensor", shape, elem)?);
        if needed > buffer.size() {
            return Err(Error::BufferTooSmall { what, needed, available: buffer.size() });
        }
        let home = context.home().clone();
        home.check_buffer(&what, buffer)?;
        let tensor = Self { home, buffer: buffer.clone(), offset, shape: shape.into(), elem };
        tensor.require(TENSOR_USAGE)?;
        Ok(tensor)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs, or if another axis than the first is
    /// empty.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        byte_count("reshaped tensor", shape, self.elem)?;
        let len = shape.iter().fold(1_usize, |n, &size| n.saturating_mul(size));
        if len != self.len() {
            return Err(Error::shape("elements of a reshaped tensor", &[self.len()], &[len]));
        }
        Ok(Self { shape: shape.into(), ..self.clone() })
    }

    /// Queues new values for the whole tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values do not fill the shape, [`Error::OtherDevice`] if the tensor
    /// is of another device than the context, [`Error::BufferUsage`] without `COPY_DST`,
    /// [`Error::Refused`] if the buffer was destroyed.
    pub fn write(&self, context: &Context, values: &[f32]) -> Result<()> {
        check_len(&self.what(), values, self.len())?;
        context.home().check(&self.what(), &self.home)?;
        self.require(wgpu::BufferUsages::COPY_DST)?;
        if self.is_empty() {
            return Ok(());
        }
        context.scoped(&format!("a write to {}", self.what()), || {
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
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements: the batch is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is the same range of the same buffer, whatever its shape.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.buffer == other.buffer && self.range() == other.range() && self.elem == other.elem
    }

    /// Whether this and the other have bytes in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.range(), other.range());
        self.buffer == other.buffer && a.start < b.end && b.start < a.end
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
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

    /// Copies the tensor to host memory. Resolves once the device has finished all work submitted
    /// before.
    ///
    /// The future sleeps meanwhile, on any executor. On native targets wgpu needs somebody to wait
    /// for the device: a thread does, from the first time that the future is polled in vain until
    /// the copy is there, or until the future has been dropped for a moment.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] if the tensor is of another device than the context,
    /// [`Error::BufferUsage`] without `COPY_SRC`, [`Error::Refused`] if the buffer was destroyed,
    /// [`Error::DeviceLost`].
    pub async fn read(&self, context: &Context) -> Result<Vec<f32>> {
        match self.start_read(context)? {
            Some(readback) => readback.await,
            None => Ok(Vec::new()),
        }
    }

    /// [`Tensor::read`], blocking at most `timeout`.
    ///
    /// # Errors
    /// As [`Tensor::read`]; [`Error::Timeout`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking_for(&self, context: &Context, timeout: Duration) -> Result<Vec<f32>> {
        self.read_within(context, Some(timeout))
    }

    /// [`Tensor::read`], blocking until the device is done.
    ///
    /// # Errors
    /// As [`Tensor::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self, context: &Context) -> Result<Vec<f32>> {
        self.read_within(context, None)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn read_within(&self, context: &Context, timeout: Option<Duration>) -> Result<Vec<f32>> {
        let Some(readback) = self.start_read(context)? else { return Ok(Vec::new()) };
        let wait =
            wgpu::PollType::Wait { submission_index: Some(readback.copied.clone()), timeout };
        match poll(context.device(), wait) {
            Ok(()) => pollster::block_on(readback),
            Err(PollFault::Timeout) => Err(Error::Timeout(timeout.unwrap_or(Duration::MAX))),
            Err(PollFault::Lost(message)) => Err(Error::DeviceLost { message }),
        }
    }

    /// Starts a copy to host memory; there is nothing to copy of an empty tensor.
    fn start_read(&self, context: &Context) -> Result<Option<Readback>> {
        context.home().check(&self.what(), &self.home)?;
        self.require(wgpu::BufferUsages::COPY_SRC)?;
        if self.is_empty() {
            return Ok(None);
        }
        let range = self.range();
        let size = range.end - range.start;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = context.buffer("readback", size, usage)?;
        let copied = context.submit(&format!("a read of {}", self.what()), |encoder| {
            encoder.copy_buffer_to_buffer(&self.buffer, range.start, &staging, 0, size);
        })?;

        let state = Arc::new(Mutex::new(ReadState::default()));
        let set = Arc::clone(&state);
        // A device that is lost makes buffers that cannot be mapped.
        context
            .scoped("mapping", || {
                staging.map_async(wgpu::MapMode::Read, .., move |result| {
                    settle(&set, result.map_err(|error| error.to_string()));
                });
            })
            .map_err(|error| match error {
                Error::DeviceLost { .. } => error,
                other => Error::DeviceLost { message: other.to_string() },
            })?;
        Ok(Some(Readback {
            device: context.device().clone(),
            staging,
            copied,
            state,
            waited_for: None,
            elem: self.elem,
            len: self.len(),
        }))
    }

    fn what(&self) -> String {
        format!("tensor {:?}", self.shape)
    }

    fn require(&self, usage: wgpu::BufferUsages) -> Result<()> {
        let missing = usage - self.buffer.usage();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::BufferUsage { what: self.what(), missing })
    }
}

/// Bytes of a tensor; refuses empty axes but for the first, and sizes past 64 bits.
fn byte_count(what: &str, shape: &[usize], elem: Elem) -> Result<u64> {
    if shape.iter().skip(1).any(|&size| size == 0) {
        let expected = "no empty axis but the first".into();
        return Err(Error::Shape { what: what.into(), expected, found: format!("{shape:?}") });
    }
    let bytes = shape.iter().try_fold(elem.bytes(), |n, &size| n.checked_mul(size as u64));
    bytes.and_then(|bytes| bytes.checked_next_multiple_of(4)).ok_or_else(|| Error::Overflow {
        what: format!("size of {what} {shape:?}"),
        value: shape
            .iter()
            .fold(u128::from(elem.bytes()), |n, &size| n.saturating_mul(size as u128)),
        limit: u128::from(u64::MAX),
    })
}

/// What the device has told of a copy, and whom to tell.
#[derive(Default)]
struct ReadState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// Wakes the future of a copy whose thread ends without a result: wgpu panics where the driver says
/// that the device is lost.
#[cfg(not(target_arch = "wasm32"))]
struct Told(Arc<Mutex<ReadState>>);

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Told {
    fn drop(&mut self) {
        settle(&self.0, Err("the wait for the device failed".into()));
    }
}

/// Keeps what became of a copy, the first time that it is told, and wakes who waits for it.
fn settle(state: &Mutex<ReadState>, result: Result<(), String>) {
    let waker = {
        let mut state = lock(state);
        state.result.get_or_insert(result);
        state.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A copy on its way to host memory.
#[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "the browser waits by itself"))]
struct Readback {
    device: wgpu::Device,
    staging: wgpu::Buffer,
    copied: wgpu::SubmissionIndex,
    state: Arc<Mutex<ReadState>>,
    /// Once a thread waits for the copy; it ends when this is gone.
    waited_for: Option<Arc<()>>,
    elem: Elem,
    len: usize,
}

impl Future for Readback {
    type Output = Result<Vec<f32>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let lost = |message: String| Poll::Ready(Err(Error::DeviceLost { message }));
        let result = {
            let mut state = lock(&self.state);
            state.waker = Some(cx.waker().clone());
            state.result.take()
        };
        match result {
            None => match self.wait() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            Some(Err(message)) => lost(message),
            Some(Ok(())) => match self.staging.get_mapped_range(..) {
                Ok(view) => Poll::Ready(Ok(self.elem.decode(&view, self.len))),
                Err(e) => lost(e.to_string()),
            },
        }
    }
}

impl Readback {
    /// Has a thread wait for the copy: native callbacks come only while somebody polls the device.
    #[cfg(not(target_arch = "wasm32"))]
    fn wait(&mut self) -> Result<()> {
        /// How long a future may have been dropped before its thread takes notice.
        const PATIENCE: Duration = Duration::from_millis(20);
        if self.waited_for.is_some() {
            return Ok(());
        }
        let waited_for = Arc::new(());
        let is_waited_for = Arc::downgrade(&waited_for);
        let (device, state) = (self.device.clone(), Arc::clone(&self.state));
        let wait = wgpu::PollType::Wait {
            submission_index: Some(self.copied.clone()),
            timeout: Some(PATIENCE),
        };
        let thread = std::thread::Builder::new().name("dynconv read".into()).spawn(move || {
            let _told = Told(Arc::clone(&state));
            while is_waited_for.strong_count() > 0 && lock(&state).result.is_none() {
                match poll(&device, wait.clone()) {
                    // Another thread that polled may have yet to call back.
                    Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                    Err(PollFault::Timeout) => {}
                    Err(PollFault::Lost(message)) => settle(&state, Err(message)),
                }
            }
        });
        self.waited_for = Some(waited_for);
        let what = "a thread that waits for the device".into();
        thread.map(drop).map_err(|_| Error::OutOfMemory { what })
    }

    /// In the browser callbacks come by themselves.
    #[cfg(target_arch = "wasm32")]
    fn wait(&mut self) -> Result<()> {
        Ok(())
    }
}
