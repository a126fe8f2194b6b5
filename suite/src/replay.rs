//! What a layer makes the device do, as plain data: any implementation of WebGPU can do the same
//! and be held to the same result.

use bytemuck;
use dynconv::kernels::{Value, Variant};
use dynconv::{Bound, Context, Elem, Tensor, wgpu};
use serde::{Deserialize, Serialize};
use wgpu::BufferUsages;

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The layer could not be made, or a buffer could not be read.
    #[error(transparent)]
    Library(#[from] dynconv::Error),
    /// The output is in no buffer that a dispatch binds.
    #[error("no dispatch binds the buffer of the output")]
    NotBound,
}

/// Why a recorded run gives nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A part of the run refers to another that there is not.
    #[error("{what}: expected {expected}, found {found}")]
    Place {
        /// The part.
        what: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The device refuses a part of the run.
    #[error("{what}: {message}")]
    Refused {
        /// The part.
        what: String,
        /// What the device says.
        message: String,
    },
    /// The result could not be read.
    #[error(transparent)]
    Library(#[from] dynconv::Error),
}

/// A run: buffers as they are before it, and dispatches in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// What the dispatches compile, each text once.
    pub modules: Vec<Module>,
    /// All buffers that the dispatches bind.
    pub buffers: Vec<Buffer>,
    /// What runs.
    pub dispatches: Vec<Dispatch>,
    /// Where the result is afterwards.
    pub output: Output,
}

/// A shader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Module {
    /// Name in messages.
    pub label: String,
    /// WGSL text with one entry point. It writes workgroup memory before it reads any: a device
    /// need not clear that.
    pub source: String,
}

impl From<&Variant> for Module {
    fn from(variant: &Variant) -> Self {
        Self { label: variant.label(), source: variant.source() }
    }
}

/// A buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// What is in it before the run.
    #[serde(with = "in_base64")]
    pub bytes: Vec<u8>,
}

/// One dispatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Place in [`Replay::modules`].
    pub module: usize,
    /// All bindings of group 0.
    pub bindings: Vec<Binding>,
    /// Workgroups a dimension.
    pub grid: [u32; 3],
}

/// A range of a buffer that a shader sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Number in the shader.
    pub binding: u32,
    /// Place in [`Replay::buffers`].
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Where a result lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Place in [`Replay::buffers`].
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes, in whole words.
    pub size: u64,
    /// Whether values are f16 and not f32.
    pub is_half: bool,
}

impl Replay {
    /// What `bound` is about to do: its buffers are read from the device, so it must not have run
    /// yet. `output` is what to look at afterwards, most often [`Bound::output`].
    ///
    /// The run fits any device with the caps of the context: for a browser that is
    /// [`dynconv::Caps::webgpu_default`].
    ///
    /// # Errors
    /// [`RecordError::Library`] for a buffer without `COPY_SRC` or a lost device,
    /// [`RecordError::NotBound`].
    pub fn record(context: &Context, bound: &Bound, output: &Tensor) -> Result<Self, RecordError> {
        let mut modules = Vec::new();
        let mut buffers = Vec::new();
        // Scratch memory that values share is taken apart: what one leaves behind, or reads past
        // its end, would otherwise be another's.
        let scratch: Vec<(Value, &Tensor)> = bound.scratch().collect();
        let scratch_of = |value: Value| scratch.iter().find(|(one, _)| *one == value);
        let mut handles: Vec<(usize, wgpu::Buffer)> = Vec::new();
        let mut apart: Vec<(usize, Value)> = Vec::new();
        let mut dispatches = Vec::new();
        for step in bound.steps() {
            let params = &step.dispatch().params;
            buffers.push(Buffer { bytes: params.clone() });
            let mut bindings = vec![Binding {
                binding: 0,
                buffer: buffers.len() - 1,
                offset: 0,
                size: params.len() as u64,
            }];
            let values = step.dispatch().slices.iter().map(|slice| slice.value);
            for ((binding, (handle, range)), value) in (1..).zip(step.bindings()).zip(values) {
                let held = scratch_of(value);
                let begin = held.map_or(0, |(_, tensor)| tensor.range().start);
                let known = match held {
                    Some(_) => apart.iter().find(|(_, one)| *one == value).map(|(place, _)| *place),
                    None => find(&handles, handle),
                };
                let buffer = known.map_or_else(
                    || {
                        let mut bytes = read(context, handle)?;
                        if let Some((_, tensor)) = held {
                            // A binding that is read in pairs holds one at least.
                            let size = (tensor.range().end - begin).max(8);
                            bytes = part(&bytes, begin..begin + size);
                            apart.push((buffers.len(), value));
                        } else {
                            handles.push((buffers.len(), handle.clone()));
                        }
                        buffers.push(Buffer { bytes });
                        Ok::<_, RecordError>(buffers.len() - 1)
                    },
                    Ok,
                )?;
                let (offset, size) = (range.start - begin, range.end - range.start);
                bindings.push(Binding { binding, buffer, offset, size });
            }
            let variant = &step.dispatch().variant;
            let module = Module { label: variant.label(), source: context.shader(variant) };
            let module = place_of(&mut modules, module);
            dispatches.push(Dispatch { module, bindings, grid: step.dispatch().grid });
        }
        let range = output.range();
        let held = scratch
            .iter()
            .find(|(_, tensor)| tensor.buffer() == output.buffer() && tensor.range() == range);
        let own = held.and_then(|(value, _)| apart.iter().find(|(_, one)| one == value));
        let (buffer, offset) = match own {
            Some((place, _)) => (Some(*place), 0),
            None => (find(&handles, output.buffer()), range.start),
        };
        let output = Output {
            buffer: buffer.ok_or(RecordError::NotBound)?,
            offset,
            size: range.end - range.start,
            is_half: matches!(output.elem(), Elem::F16 | Elem::F16Storage),
        };
        Ok(Self { modules, buffers, dispatches, output })
    }
}

fn part(bytes: &[u8], range: std::ops::Range<u64>) -> Vec<u8> {
    let [start, end] =
        [range.start, range.end].map(|byte| usize::try_from(byte).unwrap_or(usize::MAX));
    bytes[start..end].to_vec()
}

impl Replay {
    /// Refuses a run that refers to what there is not, as one from a file may.
    ///
    /// # Errors
    /// [`ReplayError::Place`].
    pub fn check(&self) -> Result<(), ReplayError> {
        for (number, buffer) in self.buffers.iter().enumerate() {
            let bytes = buffer.bytes.len();
            let is_whole = bytes > 0 && bytes.is_multiple_of(4);
            place(
                is_whole,
                || format!("buffer {number}"),
                || "whole words".into(),
                || format!("{bytes} bytes"),
            )?;
        }
        let modules = self.modules.len();
        for (number, dispatch) in self.dispatches.iter().enumerate() {
            let what = || format!("dispatch {number}");
            let found = || format!("module {}", dispatch.module);
            place(dispatch.module < modules, what, || format!("one of {modules} modules"), found)?;
            for binding in &dispatch.bindings {
                let what = || format!("dispatch {number}, binding {}", binding.binding);
                self.check_range(what, binding.buffer, binding.offset, binding.size)?;
            }
        }
        self.check_range(
            || "output".into(),
            self.output.buffer,
            self.output.offset,
            self.output.size,
        )
    }

    fn check_range(
        &self,
        what: impl Fn() -> String,
        buffer: usize,
        offset: u64,
        size: u64,
    ) -> Result<(), ReplayError> {
        let count = self.buffers.len();
        let found = || format!("buffer {buffer}");
        let bytes = self.buffers.get(buffer).map(|buffer| buffer.bytes.len() as u64);
        place(bytes.is_some(), &what, || format!("one of {count} buffers"), found)?;
        let bytes = bytes.unwrap_or(0);
        let is_within = size > 0
            && offset.is_multiple_of(4)
            && size.is_multiple_of(4)
            && offset.checked_add(size).is_some_and(|end| end <= bytes);
        let expected = || format!("words of {bytes} bytes of buffer {buffer}");
        place(is_within, &what, expected, || format!("{size} bytes from {offset} on"))
    }

    /// Does the same on a device: all buffers afterwards.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn run(&self, context: &Context) -> Result<Vec<Vec<u8>>, ReplayError> {
        self.check()?;
        let device = context.device();
        let pipelines = self
            .modules
            .iter()
            .map(|module| scoped(device, &module.label, || pipeline(device, module)));
        self.run_with(context, &pipelines.collect::<Result<Vec<_>, _>>()?)
    }

    /// The same with pipelines that are compiled already, one a module.
    pub(crate) fn run_with(
        &self,
        context: &Context,
        pipelines: &[wgpu::ComputePipeline],
    ) -> Result<Vec<Vec<u8>>, ReplayError> {
        let device = context.device();
        let usage = BufferUsages::STORAGE
            | BufferUsages::UNIFORM
            | BufferUsages::COPY_SRC
            | BufferUsages::COPY_DST;
        let filled = |(number, buffer): (usize, &Buffer)| {
            let label = format!("buffer {number}");
            let size = buffer.bytes.len() as u64;
            let descriptor = wgpu::BufferDescriptor {
                label: Some(&label),
                size,
                usage,
                mapped_at_creation: false,
            };
            scoped(device, &label, || {
                let handle = device.create_buffer(&descriptor);
                context.queue().write_buffer(&handle, 0, &buffer.bytes);
                handle
            })
        };
        let buffers = self.buffers.iter().enumerate().map(filled).collect::<Result<Vec<_>, _>>()?;
        for (number, dispatch) in self.dispatches.iter().enumerate() {
            let what = format!("dispatch {number}, {}", self.modules[dispatch.module].label);
            scoped(device, &what, || {
                context.queue().submit([dispatch.encode(device, pipelines, &buffers)])
            })?;
        }
        buffers.iter().map(|buffer| Ok(read(context, buffer)?)).collect()
    }

    /// The bytes of the output among those of all buffers.
    #[must_use]
    pub fn output_of<'a>(&self, buffers: &'a [Vec<u8>]) -> &'a [u8] {
        let Output { buffer, offset, size, .. } = self.output;
        let [first, last] =
            [offset, offset + size].map(|byte| usize::try_from(byte).unwrap_or(usize::MAX));
        &buffers[buffer][first..last]
    }
}

impl Dispatch {
    fn encode(
        &self,
        device: &wgpu::Device,
        pipelines: &[wgpu::ComputePipeline],
        buffers: &[wgpu::Buffer],
    ) -> wgpu::CommandBuffer {
        let pipeline = &pipelines[self.module];
        let entry = |bound: &Binding| {
            let size = std::num::NonZeroU64::new(bound.size);
            let binding =
                wgpu::BufferBinding { buffer: &buffers[bound.buffer], offset: bound.offset, size };
            wgpu::BindGroupEntry {
                binding: bound.binding,
                resource: wgpu::BindingResource::Buffer(binding),
            }
        };
        let entries: Vec<_> = self.bindings.iter().map(entry).collect();
        let layout = &pipeline.get_bind_group_layout(0);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &entries,
        });
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = self.grid;
            pass.dispatch_workgroups(x, y, z);
        }
        encoder.finish()
    }
}

fn place(
    is_right: bool,
    what: impl Fn() -> String,
    expected: impl Fn() -> String,
    found: impl Fn() -> String,
) -> Result<(), ReplayError> {
    if is_right {
        Ok(())
    } else {
        Err(ReplayError::Place { what: what(), expected: expected(), found: found() })
    }
}

/// As the library compiles it.
fn pipeline(device: &wgpu::Device, module: &Module) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderSource::Wgsl(module.source.as_str().into());
    let shader = wgpu::ShaderModuleDescriptor { label: Some(&module.label), source };
    let compilation_options = wgpu::PipelineCompilationOptions {
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&module.label),
        layout: None,
        module: &device.create_shader_module(shader),
        entry_point: None,
        compilation_options,
        cache: None,
    })
}

/// What the device says meanwhile is an error.
fn scoped<T>(
    device: &wgpu::Device,
    what: &str,
    work: impl FnOnce() -> T,
) -> Result<T, ReplayError> {
    let filters = [
        wgpu::ErrorFilter::Validation,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
    ];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let value = work();
    let reports = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
    match reports.last() {
        None => Ok(value),
        Some(report) => {
            Err(ReplayError::Refused { what: what.into(), message: report.to_string() })
        }
    }
}

impl Output {
    /// The values in the bytes of the output, in f64. An odd number of halves is followed by one
    /// that means nothing.
    #[must_use]
    pub fn values(&self, bytes: &[u8]) -> Vec<f64> {
        if self.is_half {
            let halves = bytes.as_chunks().0.iter().map(|half| half::f16::from_le_bytes(*half));
            return halves.map(f64::from).collect();
        }
        bytes.as_chunks().0.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect()
    }
}

fn find(handles: &[(usize, wgpu::Buffer)], handle: &wgpu::Buffer) -> Option<usize> {
    handles.iter().find(|(_, own)| own == handle).map(|(place, _)| *place)
}

/// The place of `module`, which is added if it is new.
fn place_of(modules: &mut Vec<Module>, module: Module) -> usize {
    modules.iter().position(|own| *own == module).unwrap_or_else(|| {
        modules.push(module);
        modules.len() - 1
    })
}

/// A whole buffer. Reading words as f32 moves their bits as they are.
fn read(context: &Context, buffer: &wgpu::Buffer) -> Result<Vec<u8>, dynconv::Error> {
    let words = usize::try_from(buffer.size() / 4).unwrap_or(usize::MAX);
    let values = Tensor::wrap(context, buffer, 0, &[words])?.read_blocking(context)?;
    Ok(bytemuck::cast_slice(&values).to_vec())
}

/// Bytes in JSON.
pub(crate) mod in_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Numbers of 64 bits in JSON, little-endian, where NaN and infinities have no other form.
pub(crate) mod numbers_in_base64 {
    use serde::{Deserializer, Serializer, de};

    use super::in_base64;

    pub(crate) fn serialize<S: Serializer>(
        numbers: &[f64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        in_base64::serialize(&bytes, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f64>, D::Error> {
        let bytes = in_base64::deserialize(deserializer)?;
        let (numbers, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(de::Error::custom(format_args!(
                "expected numbers of 8 bytes, found {} bytes",
                bytes.len()
            )));
        }
        Ok(numbers.iter().map(|number| f64::from_le_bytes(*number)).collect())
    }
}

#[cfg(test)]
mod tests {
    use dynconv::{ConvDesc, DynConv2d};

    use super::*;
    use crate::noise::Noise;
    use crate::variants::noop;
    use crate::weights;

    #[test]
    fn a_layer_of_four_dispatches_is_recorded_with_its_data() {
        let context = noop();
        let desc = ConvDesc::new(3, 5, [3, 3]).kernels(2).padding([1, 1]);
        let mut noise = Noise::new(1);
        let weights = weights::dy_cnn(&mut noise, &desc.geometry().expect("valid"), [true; 2]);
        let layer = DynConv2d::new(&context, &desc, &weights, 1.0).expect("valid");
        let values = noise.floats(2 * 3 * 16);
        let x = Tensor::upload(&context, &[2, 3, 4, 4], &values).expect("fits");
        let y = Tensor::zeros(&context, &[2, 5, 4, 4]).expect("fits");
        let bound = layer.bind(&x, &y).expect("binds");
        let replay = Replay::record(&context, &bound, &y).expect("records");

        assert_eq!(replay.dispatches.len(), 4);
        assert_eq!(replay.modules.len(), 4);
        let bytes: &[u8] = bytemuck::cast_slice(&values);
        assert!(replay.buffers.iter().any(|buffer| buffer.bytes == bytes), "the input is there");
        for dispatch in &replay.dispatches {
            for (number, binding) in (0..).zip(&dispatch.bindings) {
                assert_eq!(binding.binding, number);
                assert!(
                    binding.offset + binding.size
                        <= replay.buffers[binding.buffer].bytes.len() as u64
                );
            }
        }
        // What the first dispatch writes, a later one reads: scratch is one buffer, not two.
        let first = replay.dispatches[0].bindings.last().expect("has bindings").buffer;
        assert!(replay.dispatches[1].bindings.iter().any(|binding| binding.buffer == first));
        assert_eq!(replay.output.size, 2 * 5 * 16 * 4);
        assert_eq!(
            replay.dispatches[3]
                .bindings
                .iter()
                .filter(|b| b.buffer == replay.output.buffer)
                .count(),
            1
        );

        let text = serde_json::to_string(&replay).expect("is JSON");
        assert_eq!(serde_json::from_str::<Replay>(&text).expect("is a replay"), replay);

        let foreign = Tensor::zeros(&context, &[4]).expect("fits");
        assert!(matches!(Replay::record(&context, &bound, &foreign), Err(RecordError::NotBound)));
    }

    #[test]
    fn outputs_are_decoded_by_their_type() {
        let output = |is_half| Output { buffer: 0, offset: 0, size: 4, is_half };
        assert_eq!(output(false).values(&1.5_f32.to_le_bytes()), [1.5]);
        assert_eq!(output(true).values(&[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
    }

    #[test]
    fn a_run_that_refers_to_what_there_is_not_is_refused() {
        let module = Module { label: "m".into(), source: String::new() };
        let binding = Binding { binding: 0, buffer: 0, offset: 0, size: 8 };
        let sound = Replay {
            modules: vec![module],
            buffers: vec![Buffer { bytes: vec![0; 8] }],
            dispatches: vec![Dispatch { module: 0, bindings: vec![binding], grid: [1; 3] }],
            output: Output { buffer: 0, offset: 4, size: 4, is_half: false },
        };
        sound.check().expect("refers to what there is");
        let refused = |spoil: fn(&mut Replay)| {
            let mut spoilt = sound.clone();
            spoil(&mut spoilt);
            let told = spoilt.check().expect_err("refers to what there is not").to_string();
            assert_eq!(spoilt.run(&noop()).expect_err("is not run").to_string(), told);
            told
        };
        assert_eq!(
            refused(|r| r.buffers[0].bytes.clear()),
            "buffer 0: expected whole words, found 0 bytes"
        );
        assert_eq!(
            refused(|r| r.buffers[0].bytes.push(0)),
            "buffer 0: expected whole words, found 9 bytes"
        );
        assert_eq!(
            refused(|r| r.dispatches[0].module = 3),
            "dispatch 0: expected one of 1 modules, found module 3"
        );
        assert_eq!(
            refused(|r| r.output.buffer = 1),
            "output: expected one of 1 buffers, found buffer 1"
        );
        let words = "output: expected words of 8 bytes of buffer 0, found ";
        assert_eq!(
            refused(|r| r.output.offset = u64::MAX - 3),
            format!("{words}4 bytes from 18446744073709551612 on")
        );
        assert_eq!(refused(|r| r.output.size = 0), format!("{words}0 bytes from 4 on"));
        assert_eq!(refused(|r| r.output.size = 6), format!("{words}6 bytes from 4 on"));
        let told = refused(|r| r.dispatches[0].bindings[0].size = 12);
        assert_eq!(
            told,
            "dispatch 0, binding 0: expected words of 8 bytes of buffer 0, found 12 bytes from 0 on"
        );
        // What only the device can tell.
        let told = sound.run(&noop()).expect_err("the module is empty").to_string();
        assert!(told.starts_with("m: "), "{told}");
    }
}
