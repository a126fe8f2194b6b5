//! PyTorch's own files, as safetensors in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dynconv::{Error, Result};
use pytorch_reader::{DType, PickleValue, PytorchError, PytorchReader};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The tensors of a file that `torch.save` wrote: `.pth`, `.pt`, `.pth.tar`; a state dict, whatever
/// holds one, or a whole module. No code of the file is run.
///
/// ```no_run
/// use dynconv::Checkpoint;
/// use dynconv_nets::PytorchFile;
///
/// # fn f() -> dynconv::Result<()> {
/// let file = PytorchFile::read("od_resnet18.pth.tar".as_ref())?;
/// println!("read {} of it; left out {:?}", file.under.unwrap_or("all"), file.skipped);
/// let checkpoint = Checkpoint::new(&file.safetensors)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PytorchFile {
    /// The tensors as a safetensors file.
    pub safetensors: Vec<u8>,
    /// What was read: the first of `state_dict`, `model_ema` and `model` that there is, or `None`
    /// for the root.
    pub under: Option<&'static str>,
    /// What stands among the tensors and is none: name, and type in Python.
    pub skipped: Vec<String>,
}

/// Where training codes keep the weights, the first that there is.
const PLACES: [&str; 3] = ["state_dict", "model_ema", "model"];

/// Bytes of tensors that a file may ask for: views may show one number many times, and a small file
/// could ask for any memory.
fn most_bytes(file: u64) -> u64 {
    file.saturating_mul(4).saturating_add(1 << 20)
}

impl PytorchFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a file that is none of PyTorch's or is damaged, that has no
    /// tensors, or whose tensors would take more than four times the file and a mebibyte.
    pub fn read(path: &Path) -> Result<Self> {
        let fault = |error: PytorchError| Error::Checkpoint { message: error.to_string() };
        let root = PytorchReader::read_pickle_data(path, None).map_err(fault)?;
        let is_dict = |place: &&str| match &root {
            PickleValue::Dict(all) => matches!(all.get(*place), Some(PickleValue::Dict(_))),
            _ => false,
        };
        let under = PLACES.into_iter().find(is_dict);
        let reader = match under {
            Some(place) => PytorchReader::with_top_level_key(path, place),
            None => PytorchReader::new(path),
        };
        let reader = reader.map_err(fault)?;
        if reader.is_empty() {
            let place = under.map_or("the file".into(), |place| format!("its {place}"));
            return Err(Error::Checkpoint { message: format!("there are no tensors in {place}") });
        }
        let size = fs::metadata(path).map_err(|error| fault(error.into()))?.len();
        check_size(&reader, size)?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in reader.tensors() {
            let bytes = tensor.read().map_err(|error| fault(error.into()))?;
            tensors.insert(name.clone(), (dtype(tensor.dtype()), tensor.shape().to_vec(), bytes));
        }
        let held = match (&root, under) {
            (PickleValue::Dict(all), Some(place)) => all.get(place),
            _ => Some(&root),
        };
        let mut skipped = Vec::new();
        if let Some(held) = held {
            add_skipped(held, "", &reader, &mut skipped);
        }
        skipped.sort();
        Ok(Self { safetensors: serialized(&tensors)?, under, skipped })
    }
}

fn check_size(reader: &PytorchReader, file: u64) -> Result<()> {
    let mut total = 0_u64;
    for (name, tensor) in reader.tensors() {
        let size = tensor.dtype().size();
        let len = tensor.shape().iter().fold(size, |len, &axis| len.saturating_mul(axis));
        total = total.saturating_add(len as u64);
        if total > most_bytes(file) {
            return Err(Error::Checkpoint {
                message: format!(
                    "{name} {:?} would make more than {} bytes of a file of {file}",
                    tensor.shape(),
                    most_bytes(file)
                ),
            });
        }
    }
    Ok(())
}

/// Objects among the tensors that are neither tensors nor plain values.
fn add_skipped(value: &PickleValue, name: &str, reader: &PytorchReader, skipped: &mut Vec<String>) {
    match value {
        PickleValue::Dict(all) => {
            for (key, value) in all {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                add_skipped(value, &name, reader, skipped);
            }
        }
        PickleValue::Unsupported(kind) if !name.is_empty() && reader.get(name).is_none() => {
            skipped.push(format!("{name} ({kind})"));
        }
        _ => {}
    }
}

type Owned = (Dtype, Vec<usize>, Vec<u8>);

fn serialized(tensors: &BTreeMap<String, Owned>) -> Result<Vec<u8>> {
    let fault =
        |error: safetensors::SafeTensorError| Error::Checkpoint { message: error.to_string() };
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        Ok((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(fault)?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(fault)
}

fn dtype(found: DType) -> Dtype {
    match found {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
