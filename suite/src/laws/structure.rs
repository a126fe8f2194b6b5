//! Laws about the shape of a convolution.

use dynconv::Algorithm;
use dynconv::Error;
use dynconv::problem::Layout;
use dynconv::problem::{AttentionSource, Geometry, MapAxis, Problem};

use super::{Trial, is_exact, is_linear, keeps_order, same_bits};
use crate::cases::able;
use crate::data::{Data, Numbers};
use crate::noise::Noise;
use crate::run::Fault;
use crate::spec::{Family, Spec};

pub(super) fn can_translate(spec: &Spec) -> bool {
    let given = matches!(spec.family, Family::Static | Family::Bank | Family::PerSample);
    // Tiles do not move with the input.
    let moves = spec.transposed.is_none() && spec.winograd.is_none() && spec.conv.sums_plainly();
    given && moves && !spec.residual && keeps_order(spec) && interior(spec).is_some()
}

/// An axis, and the outputs along it whose windows lie inside the input before and after a shift by
/// one stride.
fn interior(spec: &Spec) -> Option<(usize, std::ops::Range<usize>)> {
    let axes = spec.input.len();
    (0..axes).rev().find_map(|axis| {
        let (stride, [before, _]) = (spec.stride[axis], spec.padding[axis]);
        let extent = spec.dilation[axis] * (spec.kernel[axis] - 1) + 1;
        let first = before.div_ceil(stride);
        let last = (spec.input[axis] + before).checked_sub(extent)? / stride;
        (first < last).then_some((axis, first..last))
    })
}

/// Elements of a tensor with these sizes along its axes, as (index along `axis`, element).
fn along(sizes: &[usize], axis: usize) -> (usize, usize) {
    (sizes[axis], sizes[axis + 1..].iter().product())
}

/// Sizes of a tensor in its layout, and where the spatial axes begin.
fn sizes(layout: Layout, batch: usize, channels: usize, spatial: &[usize]) -> (Vec<usize>, usize) {
    match layout {
        Layout::ChannelsFirst => ([&[batch, channels], spatial].concat(), 2),
        Layout::ChannelsLast => ([&[batch], spatial, &[channels]].concat(), 1),
    }
}

pub(super) fn translate(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let Some((axis, outputs)) = interior(spec) else { return Ok(()) };
    let data = trial.data(Numbers::Floats)?;
    let (x_sizes, first) = sizes(spec.layouts[0], spec.batch, spec.channels[0], &spec.input);
    let (len, inner) = along(&x_sizes, first + axis);
    let mut shifted = data.clone();
    // What comes in from the edge is new.
    shifted.x = Noise::new(spec.seed + 7).floats(data.x.len());
    crate::data::round(&mut shifted.x, spec.elems[0]);
    for i in 0..data.x.len() {
        if i / inner % len + spec.stride[axis] < len {
            shifted.x[i + spec.stride[axis] * inner] = data.x[i];
        }
    }
    let (before, after) = (trial.y(&data)?, trial.y(&shifted)?);
    let g = spec.geometry()?;
    let size = g.output_size(spec.input3())?;
    let (y_sizes, first) =
        sizes(spec.layouts[1], spec.batch, g.c_out, &size[3 - spec.input.len()..]);
    let (len, inner) = along(&y_sizes, first + axis);
    let inside = (0..before.len()).filter(|i| outputs.contains(&(i / inner % len)));
    let pairs: Vec<(f32, f32)> = inside.map(|i| (after[i + inner], before[i])).collect();
    let (after, before): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    same_bits("the shifted interior", &after, &before)
}

pub(super) fn has_blocks(spec: &Spec) -> bool {
    let has_bank = matches!(spec.family, Family::Static | Family::Bank);
    has_bank && spec.groups > 1 && spec.transposed.is_none() && is_exact(spec)
}

pub(super) fn blocks(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let g = spec.geometry()?;
    let data = trial.data(Numbers::Integers)?;
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let mut bank = vec![0.0; g.kernels * g.c_out * g.c_in * g.taps()];
    for (i, &weight) in data.bank.iter().enumerate() {
        let (tap, ci, channel) = (i % g.taps(), i / g.taps() % c_in, i / (g.taps() * c_in));
        // `channel` counts over the kernels of the bank too.
        let group = channel % g.c_out / c_out;
        bank[(channel * g.c_in + group * c_in + ci) * g.taps() + tap] = weight;
    }
    let mut dense = Spec { groups: 1, ..spec.clone() };
    if !choices(&dense).contains(&dense.conv) && dense.conv != Algorithm::Auto {
        dense.conv = Algorithm::ConvDirect;
    }
    let expected = trial.run(&dense, &Data { bank, ..data.clone() })?.y;
    same_bits("the block-diagonal convolution", &trial.y(&data)?, &expected)
}

/// Kernels that can compute a problem on some device.
#[must_use]
pub fn choices(spec: &Spec) -> Vec<Algorithm> {
    let Ok(geometry) = spec.geometry() else { return Vec::new() };
    let mut all = able(&geometry, spec.input3());
    if spec.family.mixes_positions() {
        all.retain(|algorithm| algorithm.accepts(&mixed(&geometry, spec.input3())).is_ok());
    }
    all
}

/// The same convolution with a map of mixing weights.
fn mixed(geometry: &Geometry, input: [usize; 3]) -> Problem {
    let attention = AttentionSource::Map(MapAxis::All);
    Problem { attention, ..Problem::new(*geometry, 1, input) }
}

pub(super) fn has_choices(spec: &Spec) -> bool {
    is_exact(spec) && !spec.family.has_no_kernel()
}

pub(super) fn kernels(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Integers)?;
    let expected = trial.y(&data)?;
    let is_other = |conv: &Algorithm| *conv != trial.spec.conv && conv.sums_plainly();
    let mut others: Vec<Algorithm> = choices(trial.spec).into_iter().filter(is_other).collect();
    // Every kernel is compiled anew for every problem: two of the others a problem, all in turn
    // over the problems.
    let turn = usize::try_from(trial.spec.seed).unwrap_or(0) % others.len().max(1);
    others.rotate_left(turn);
    let mut held = 0;
    for conv in others {
        match trial.run(&Spec { conv, ..trial.spec.clone() }, &data) {
            // A kernel that this device cannot run, or not in this layout and order.
            Err(Fault::Refused(Error::MissingFeature { .. } | Error::Unsupported { .. })) => {
                continue;
            }
            other => same_bits(&format!("by {conv:?}"), &other?.y, &expected)?,
        }
        held += 1;
        if held == 2 {
            break;
        }
    }
    Ok(())
}

pub(super) fn has_adjoint(spec: &Spec) -> bool {
    let is_plain = !spec.bias && !spec.affine && !spec.residual;
    // Output padding past the stride, which a dilation allows, is read by more windows than there
    // were inputs.
    let is_whole = |padding: &Vec<usize>| {
        padding.iter().zip(&spec.stride).all(|(padding, stride)| padding < stride)
    };
    spec.family == Family::Static
        && spec.transposed.as_ref().is_some_and(is_whole)
        && is_plain
        && is_linear(spec)
}

/// A transposed convolution is published with the very kernel of the convolution that it
/// transposes.
pub(super) fn adjoint(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let g = spec.geometry()?;
    let data = trial.data(Numbers::Integers)?;
    let size = g.output_size(spec.input3())?;
    let forward = Spec {
        channels: [g.c_out, g.c_in],
        input: size[3 - spec.input.len()..].to_vec(),
        transposed: None,
        conv: Algorithm::ConvDirect,
        layouts: [spec.layouts[1], spec.layouts[0]],
        elems: [spec.elems[1], spec.elems[0], spec.elems[2]],
        ..spec.clone()
    };
    let there = Data { bank: data.bank.clone(), ..Data::new(&forward, Numbers::Integers)? };
    let [y, x] = [trial.y(&data)?, trial.run(&forward, &there)?.y];
    if x.len() != data.x.len() {
        return Err(Fault::Wrong(format!(
            "the convolution back gives {} elements, not {}",
            x.len(),
            data.x.len()
        )));
    }
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    let (left, right) = (dot(&y, &there.x), dot(&x, &data.x));
    if left.to_bits() == right.to_bits() {
        return Ok(());
    }
    Err(Fault::Wrong(format!("<A x, y> is {left}, <x, A' y> is {right}")))
}

/// An empty batch gives an empty output. What else is empty is refused by name, on every device.
pub(super) fn empty(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let emptied = |size: &[usize]| [&[0], &size[1..]].concat();
    let all = [
        Spec { channels: [0, spec.channels[1]], ..spec.clone() },
        Spec { channels: [spec.channels[0], 0], ..spec.clone() },
        Spec { input: emptied(&spec.input), ..spec.clone() },
        Spec { kernel: emptied(&spec.kernel), ..spec.clone() },
        Spec { stride: emptied(&spec.stride), ..spec.clone() },
        Spec { groups: 0, ..spec.clone() },
    ];
    let data = Data::none();
    for empty in all {
        match trial.run(&empty, &data) {
            Err(Fault::Failed(Error::Shape { .. }) | Fault::Refused(_)) => {}
            Err(other) => return Err(Fault::Wrong(format!("{empty}: {other}"))),
            Ok(_) => return Err(Fault::Wrong(format!("{empty}: was not refused"))),
        }
    }
    let none = Spec { batch: 0, ..spec.clone() };
    let output = trial.run(&none, &Data::new(&none, Numbers::Integers)?)?;
    match output.y.len() + output.attention.map_or(0, |rows| rows.len()) {
        0 => Ok(()),
        elements => Err(Fault::Wrong(format!("{none}: gave {elements} elements"))),
    }
}
