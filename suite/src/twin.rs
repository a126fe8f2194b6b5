//! The same convolution in f32, in the plainest order: what rounding costs a program that does
//! nothing clever.

use dynconv::problem::Geometry;
use dynconv::problem::Layout;
use dynconv::reference::narrow;

use crate::data::Data;
use crate::spec::{Family, Spec};
use crate::truth::bank_rows;

/// The output of a static or given-attention convolution without scale, residual or activation.
///
/// # Errors
/// As [`Spec::geometry`].
pub fn twin(spec: &Spec, data: &Data) -> dynconv::Result<Vec<f32>> {
    let g = spec.geometry()?;
    let input = spec.input3();
    let output = g.output_size(input)?;
    let rows = narrow(&bank_rows(&g, &data.bank));
    let positions: usize = output.iter().product();
    let mut y = vec![0.0; spec.batch * g.c_out * positions];
    for b in 0..spec.batch {
        let weights = mixed(spec, data, b, &rows, g.weights());
        let bias = data.bias.as_deref().map(|bias| mixed(spec, data, b, bias, g.c_out));
        for co in 0..g.c_out {
            for p in 0..positions {
                let place = [p / (output[1] * output[2]), p / output[2] % output[1], p % output[2]];
                let sum = sum(spec, &g, data, &weights, [b, co], place);
                let at = match spec.layouts[1] {
                    Layout::ChannelsFirst => (b * g.c_out + co) * positions + p,
                    Layout::ChannelsLast => (b * positions + p) * g.c_out + co,
                };
                y[at] = sum + bias.as_ref().map_or(0.0, |bias| bias[co]);
            }
        }
    }
    Ok(y)
}

/// A sample's kernel or bias.
fn mixed(spec: &Spec, data: &Data, b: usize, bank: &[f32], len: usize) -> Vec<f32> {
    if spec.family == Family::Static {
        return bank.to_vec();
    }
    let attention = &data.given[b * spec.kernels..(b + 1) * spec.kernels];
    (0..len)
        .map(|i| {
            attention.iter().zip(bank.chunks_exact(len)).fold(0.0, |sum, (a, k)| sum + a * k[i])
        })
        .collect()
}

/// The input position that a tap reads along one axis.
fn tap(g: &Geometry, axis: usize, size: usize, out: usize, tap: usize) -> Option<usize> {
    let position = if g.transposed {
        let shifted = (out + g.padding[axis][0]).checked_sub(tap * g.dilation[axis])?;
        shifted.is_multiple_of(g.stride[axis]).then_some(shifted / g.stride[axis])?
    } else {
        (out * g.stride[axis] + tap * g.dilation[axis]).checked_sub(g.padding[axis][0])?
    };
    (position < size).then_some(position)
}

fn sum(
    spec: &Spec,
    g: &Geometry,
    data: &Data,
    weights: &[f32],
    [b, co]: [usize; 2],
    place: [usize; 3],
) -> f32 {
    let size = spec.input3();
    let positions: usize = size.iter().product();
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let mut sum = 0.0;
    for ci in 0..c_in {
        let channel = co / c_out * c_in + ci;
        for t in 0..g.taps() {
            let taps =
                [t / (g.kernel[1] * g.kernel[2]), t / g.kernel[2] % g.kernel[1], t % g.kernel[2]];
            let read = |axis: usize| tap(g, axis, size[axis], place[axis], taps[axis]);
            if let (Some(z), Some(row), Some(column)) = (read(0), read(1), read(2)) {
                let position = (z * size[1] + row) * size[2] + column;
                let at = match spec.layouts[0] {
                    Layout::ChannelsFirst => (b * g.c_in + channel) * positions + position,
                    Layout::ChannelsLast => (b * positions + position) * g.c_in + channel,
                };
                sum += weights[(co * c_in + ci) * g.taps() + t] * data.x[at];
            }
        }
    }
    sum
}
