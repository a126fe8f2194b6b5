//! Truth of `shaders/resample.wgsl`: maps enlarged, or with a border.

use super::Conv;
use crate::problem::Sampling;

/// Places that an output reads along an axis, each with its share.
fn sources(
    sampling: Sampling,
    out: usize,
    [input, output]: [usize; 2],
    pad: usize,
) -> Vec<(usize, f64)> {
    let last = input - 1;
    let place = out.abs_diff(pad);
    match sampling {
        Sampling::Nearest => vec![(out * input / output, 1.0)],
        Sampling::Linear => {
            let place = (out as f64 + 0.5) * input as f64 / output as f64 - 0.5;
            let place = place.max(0.0);
            let low = (0..input).rev().find(|&low| low as f64 <= place).unwrap_or(0);
            let share = place - low as f64;
            vec![(low, 1.0 - share), ((low + 1).min(last), share)]
        }
        Sampling::Reflection if place > last => vec![(2 * last - place, 1.0)],
        Sampling::Reflection => vec![(place, 1.0)],
        Sampling::Edge if out < pad => vec![(0, 1.0)],
        Sampling::Edge => vec![(place.min(last), 1.0)],
    }
}

/// Samples each channel of `conv`, whose weights are not looked at, at the places of its output.
#[must_use]
pub fn resample(conv: &Conv<'_>, sampling: Sampling) -> Vec<f64> {
    conv.collect(|b, channel, position| {
        let place = conv.place(position);
        let [z, y, x] = [0, 1, 2].map(|axis| {
            let pad = conv.geometry.padding[axis][0];
            sources(sampling, place[axis], [conv.input[axis], conv.output[axis]], pad)
        });
        let mut sum = 0.0;
        for &(z, of_z) in &z {
            for &(y, of_y) in &y {
                for &(x, of_x) in &x {
                    let share = of_z * of_y * of_x;
                    if share > 0.0 {
                        sum += share * conv.input_at(b, channel, [z, y, x]);
                    }
                }
            }
        }
        sum
    })
}
