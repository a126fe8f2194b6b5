//! Truth of `shaders/conv_direct.wgsl`, and of the convolution in general.

use super::{Conv, element};

/// Convolution as the formula reads: for each output, the sum over channels and taps. What a tap
/// reads in the padding, or between the inputs of a transposed convolution, is the number 0: an
/// infinite weight times it is NaN.
#[must_use]
pub fn conv_direct(conv: &Conv<'_>) -> Vec<f64> {
    conv.collect(|b, channel, position| sum(conv, b, channel, position))
}

/// One output of it.
#[must_use]
pub fn output_at(conv: &Conv<'_>, b: usize, channel: usize, position: usize) -> f64 {
    let place =
        element(conv.layouts[1], [b, channel, position], conv.geometry.c_out, conv.positions());
    conv.finish(b, channel, place, sum(conv, b, channel, position))
}

fn sum(conv: &Conv<'_>, b: usize, channel: usize, position: usize) -> f64 {
    let [c_in, c_out] = conv.group_channels();
    let [kd, kh, kw] = conv.geometry.kernel;
    let [out_z, out_y, out_x] = conv.place(position);
    let inputs = conv.inputs(b, channel / c_out * c_in);
    let weights = conv.weights(b, channel);
    let mut sum = 0.0;
    for kz in 0..kd {
        let z = conv.tap(0, out_z, kz);
        for ky in 0..kh {
            let row = conv.tap(1, out_y, ky);
            for kx in 0..kw {
                let column = conv.tap(2, out_x, kx);
                let tap = (kz * kh + ky) * kw + kx;
                let of_tap = weights[tap..].iter().step_by(kd * kh * kw);
                match (z, row, column) {
                    (Some(z), Some(row), Some(column)) => {
                        let position = (z * conv.input[1] + row) * conv.input[2] + column;
                        for (ci, weight) in of_tap.enumerate() {
                            sum += weight * inputs.at(ci, position);
                        }
                    }
                    _ => of_tap.for_each(|weight| sum += weight * 0.0),
                }
            }
        }
    }
    sum
}

/// `sum |w| |x|` for each output, bias included: what a bound on the rounding error of any order of
/// summation grows with.
#[must_use]
pub fn magnitude(conv: &Conv<'_>) -> Vec<f64> {
    let x: Vec<f64> = conv.x.iter().map(|v| v.abs()).collect();
    let rows: Vec<f64> = conv.rows.iter().map(|v| v.abs()).collect();
    conv_direct(&Conv { x: &x, rows: &rows, ..*conv })
}
