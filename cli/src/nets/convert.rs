//! `dynconv convert`: weights as safetensors, in another element type if one is asked for.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use dynconv::{Checkpoint, Error};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::weights;
use crate::Usage;
use crate::say::warn;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The weights: a file of PyTorch (.pth, .pt, .pth.tar), or safetensors
    #[arg(value_name = "WEIGHTS")]
    weights: PathBuf,
    /// The safetensors file to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Element type to round floats to; integers stay what they are
    #[arg(long, value_enum)]
    elem: Option<Elem>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Elem {
    F32,
    F16,
    Bf16,
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl Elem {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// Rounds to the nearest, to the even one of two: the bytes, and what they stand for.
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
    fn push(self, value: f64, bytes: &mut Vec<u8>) -> f64 {
        match self {
            Self::F32 => {
                let rounded = value as f32;
                bytes.extend(rounded.to_le_bytes());
                rounded.into()
            }
            Self::F16 => {
                let rounded = f16::from_f64(value);
                bytes.extend(rounded.to_le_bytes());
                rounded.into()
            }
            Self::Bf16 => {
                let rounded = bf16::from_f64(value);
                bytes.extend(rounded.to_le_bytes());
                rounded.into()
            }
        }
    }

    fn largest(self) -> f64 {
        match self {
            Self::F32 => f32::MAX.into(),
            Self::F16 => f16::MAX.into(),
            Self::Bf16 => bf16::MAX.into(),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (path, out) = (&options.weights, &options.out);
    Usage::unless(weights::is_safetensors(out), || {
        format!("OUT: expected a name that ends in .safetensors, found {}", out.display())
    })?;
    let name = |path: &Path| path.canonicalize().ok();
    let is_same = name(out).is_some_and(|out| Some(out) == name(path));
    Usage::unless(!is_same, || format!("{} would be written over itself", path.display()))?;

    let bytes = weights::read(path)?;
    let bytes = bytes.as_ref();
    // Its errors say more.
    Checkpoint::new(bytes).with_context(|| path.display().to_string())?;
    let file = SafeTensors::deserialize(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let [mut rounded, mut vanished] = [0; 2];
    let mut tensors = Vec::new();
    for (key, view) in file.iter() {
        let (dtype, data) = match options.elem {
            Some(elem) if needs_rounding(key, view.dtype(), elem)? => {
                let (data, zeros) = round(key, &view, elem)?;
                rounded += 1;
                vanished += zeros;
                (elem.dtype(), Cow::Owned(data))
            }
            _ => (view.dtype(), Cow::Borrowed(view.data())),
        };
        tensors.push((key, dtype, view.shape().to_vec(), data));
    }
    let views = tensors.iter().map(|(key, dtype, shape, data)| {
        Ok::<_, safetensors::SafeTensorError>((key, TensorView::new(*dtype, shape.clone(), data)?))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let count = views.len();
    let made = safetensors::serialize(views, header.metadata().clone())?;
    std::fs::write(out, &made).with_context(|| format!("cannot write {}", out.display()))?;
    if vanished > 0 {
        warn(format_args!("{vanished} numbers were too small, and are 0 now\n"));
    }
    let what = match options.elem {
        Some(elem) => format!(", {rounded} of them rounded to {elem}"),
        None => String::new(),
    };
    println!("{count} tensors{what}, {} bytes: {}", made.len(), out.display());
    Ok(ExitCode::SUCCESS)
}

/// Whether a tensor is of floats, and of others than asked for.
fn needs_rounding(key: &str, found: Dtype, elem: Elem) -> Result<bool> {
    match found {
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(found != elem.dtype()),
        Dtype::BOOL | Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 => Ok(false),
        Dtype::I32 | Dtype::U32 | Dtype::I64 | Dtype::U64 => Ok(false),
        _ => Err(Error::Checkpoint {
            message: format!("{key}: needs f64, f32, f16, bf16 or integers, found {found:?}"),
        }
        .into()),
    }
}

/// A tensor's bytes once rounded, and how many of its numbers became 0.
fn round(key: &str, view: &TensorView<'_>, elem: Elem) -> Result<(Vec<u8>, usize), Error> {
    let data = view.data();
    let mut bytes = Vec::with_capacity(data.len());
    let (mut number, mut zeros) = (0, 0);
    let mut push = |value: f64| {
        let rounded = elem.push(value, &mut bytes);
        if rounded.is_infinite() && value.is_finite() {
            return Err(Error::Value {
                what: format!("{key}, element {number}"),
                needed: format!("at most {} to be {elem}", elem.largest()),
                found: value.to_string(),
            });
        }
        number += 1;
        zeros += usize::from(rounded == 0.0 && value != 0.0);
        Ok(())
    };
    match view.dtype() {
        Dtype::F64 => each(data).try_for_each(|value| push(f64::from_le_bytes(value))),
        Dtype::F32 => each(data).try_for_each(|value| push(f32::from_le_bytes(value).into())),
        Dtype::F16 => each(data).try_for_each(|value| push(f16::from_le_bytes(value).into())),
        _ => each(data).try_for_each(|value| push(bf16::from_le_bytes(value).into())),
    }?;
    Ok((bytes, zeros))
}

fn each<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks().0.iter().copied()
}
