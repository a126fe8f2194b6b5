//! What a layer makes the device do, as plain data: any implementation of WebGPU can do the same and be held to the same result.

use dynconv::{Bound, Context, Elem, Tensor, Variant, bytemuck, wgpu};
use serde::{Deserialize, Serialize};

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
    /// WGSL text; its entry point is `main`.
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
    /// What `bound` is about to do: its buffers are read from the device, so it must not have run yet. `output` is what to look at
    /// afterwards, most often [`Bound::output`].
    ///
    /// The run fits any device with the caps of the context: for a browser that is [`dynconv::Caps::webgpu_default`].
    ///
    /// # Errors
    /// [`RecordError::Library`] for a buffer without `COPY_SRC` or a lost device, [`RecordError::NotBound`].
    pub fn record(context: &Context, bound: &Bound, output: &Tensor) -> Result<Self, RecordError> {
        let mut modules = Vec::new();
        let mut buffers = Vec::new();
        let mut handles: Vec<(usize, wgpu::Buffer)> = Vec::new();
        let mut dispatches = Vec::new();
        for step in bound.steps() {
            let params = &step.dispatch().params;
            buffers.push(Buffer { bytes: params.clone() });
            let mut bindings =
                vec![Binding { binding: 0, buffer: buffers.len() - 1, offset: 0, size: params.len() as u64 }];
            for (binding, (handle, range)) in (1..).zip(step.bindings()) {
                let buffer = match find(&handles, handle) {
                    Some(place) => place,
                    None => {
                        buffers.push(Buffer { bytes: read(context, handle)? });
                        handles.push((buffers.len() - 1, handle.clone()));
                        buffers.len() - 1
                    }
                };
                bindings.push(Binding { binding, buffer, offset: range.start, size: range.end - range.start });
            }
            let module = place_of(&mut modules, Module::from(&step.dispatch().variant));
            dispatches.push(Dispatch { module, bindings, grid: step.dispatch().grid });
        }
        let range = output.range();
        let output = Output {
            buffer: find(&handles, output.buffer()).ok_or(RecordError::NotBound)?,
            offset: range.start,
            size: range.end - range.start,
            is_half: matches!(output.elem(), Elem::F16 | Elem::F16Storage),
        };
        Ok(Self { modules, buffers, dispatches, output })
    }
}

impl Output {
    /// The values in the bytes of the output, in f64. An odd number of halves is followed by one that means nothing.
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

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
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
                assert!(binding.offset + binding.size <= replay.buffers[binding.buffer].bytes.len() as u64);
            }
        }
        // What the first dispatch writes, a later one reads: scratch is one buffer, not two.
        let first = replay.dispatches[0].bindings.last().expect("has bindings").buffer;
        assert!(replay.dispatches[1].bindings.iter().any(|binding| binding.buffer == first));
        assert_eq!(replay.output.size, 2 * 5 * 16 * 4);
        assert_eq!(replay.dispatches[3].bindings.iter().filter(|b| b.buffer == replay.output.buffer).count(), 1);

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
}
