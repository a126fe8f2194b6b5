//! Truth of `shaders/gate.wgsl`: gains of elements, and dynamic ReLU.

use super::Conv;

/// Gates of a map, each absent one counting as 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gates<'a> {
    /// Of a dynamic ReLU `[batch, channels, 4]`.
    pub coefficients: Option<&'a [f64]>,
    /// `[batch, channels]`
    pub of_channels: Option<&'a [f64]>,
    /// `[batch, channels, positions]`
    pub of_positions: Option<&'a [f64]>,
    /// `[batch, channels, size of the axis]`, and the axis.
    pub along: [Option<(&'a [f64], usize)>; 2],
}

/// The input of `conv`, whose weights are not looked at, times its gates.
#[must_use]
pub fn gate(conv: &Conv<'_>, gates: Gates<'_>) -> Vec<f64> {
    let positions = conv.positions();
    conv.collect(|b, channel, position| {
        let plane = b * conv.geometry.c_in + channel;
        let mut value = conv.input_at(b, channel, conv.place(position));
        if let Some(all) = gates.coefficients {
            let [a1, a2, b1, b2] = [0, 1, 2, 3].map(|i| all[4 * plane + i]);
            let (first, second) = (a1 * value + b1, a2 * value + b2);
            let is_nan = first.is_nan() || second.is_nan();
            value = if is_nan { f64::NAN } else { first.max(second) };
        }
        value *= gates.of_channels.map_or(1.0, |all| all[plane]);
        value *= gates.of_positions.map_or(1.0, |all| all[plane * positions + position]);
        for (gains, axis) in gates.along.into_iter().flatten() {
            value *= gains[plane * conv.output[axis] + conv.place(position)[axis]];
        }
        value
    })
}
