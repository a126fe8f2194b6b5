//! Truth of `shaders/conv_depthwise.wgsl`: one input channel a group.

use super::Conv;

/// Each output channel slides its one plane of taps over its one input channel.
#[must_use]
pub fn conv_depthwise(conv: &Conv<'_>) -> Vec<f64> {
    let [_, multiplier] = conv.group_channels();
    let [kd, kh, kw] = conv.geometry.kernel;
    conv.collect(|b, channel, position| {
        let place = conv.place(position);
        let taps =
            (0..kd).flat_map(|kz| (0..kh).flat_map(move |ky| (0..kw).map(move |kx| [kz, ky, kx])));
        let mut sum = 0.0;
        for (i, tap) in taps.enumerate() {
            let read = [0, 1, 2].map(|axis| conv.tap(axis, place[axis], tap[axis]));
            if let [Some(z), Some(row), Some(column)] = read {
                sum += conv.weight_at(b, channel, i)
                    * conv.input_at(b, channel / multiplier, [z, row, column]);
            }
        }
        sum
    })
}
