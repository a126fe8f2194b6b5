//! Element types.

/// Element type of a tensor or of a kernel bank. Kernels compute in f32 whatever they load and
/// store; `conv_gemm_coopmat` alone, where it is turned on, multiplies in f16 what it loads from an
/// input in f16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Elem {
    /// IEEE 754 single precision, 4 bytes.
    #[default]
    F32,
    /// IEEE 754 half precision, 2 bytes, read and written in pairs: possible on every device.
    /// Stored values saturate at 65,504.
    F16Storage,
    /// The same bytes, read and written by shaders that know f16: needs a device with `SHADER_F16`.
    F16,
    /// The upper half of an f32, 2 bytes; for kernel banks only.
    Bf16Storage,
}

impl Elem {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16Storage | Self::F16 | Self::Bf16Storage => 2,
        }
    }

    /// The bytes of `values`, padded to whole words.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16Storage | Self::F16 => {
                values.iter().flat_map(|&v| half::f16::from_f32(v).to_ne_bytes()).collect()
            }
            Self::Bf16Storage => {
                values.iter().flat_map(|&v| half::bf16::from_f32(v).to_ne_bytes()).collect()
            }
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The first `len` values of these bytes.
    pub(crate) fn decode(self, bytes: &[u8], len: usize) -> Vec<f32> {
        match self {
            // Bytes are copied, not cast: a mapped range need not be aligned to f32.
            Self::F32 => bytemuck::pod_collect_to_vec(bytes),
            Self::F16Storage | Self::F16 => bytes.as_chunks().0[..len]
                .iter()
                .map(|&b| half::f16::from_ne_bytes(b).to_f32())
                .collect(),
            Self::Bf16Storage => bytes.as_chunks().0[..len]
                .iter()
                .map(|&b| half::bf16::from_ne_bytes(b).to_f32())
                .collect(),
        }
    }
}
