//! Truth of `shaders/conv_depthwise_3x3.wgsl`: one input channel a group, 3 x 3 taps with stride
//! 1.

use super::Conv;

/// Each input adds its products with the nine taps to the outputs around it.
#[must_use]
pub fn conv_depthwise_3x3(conv: &Conv<'_>) -> Vec<f64> {
    let [_, multiplier] = conv.group_channels();
    let [_, height, width] = conv.output;
    let [_, [above, _], [left, _]] = conv.geometry.padding;
    let mut sums = vec![0.0; conv.batch * conv.geometry.c_out * conv.positions()];
    for b in 0..conv.batch {
        for channel in 0..conv.geometry.c_out {
            let plane =
                &mut sums[(b * conv.geometry.c_out + channel) * height * width..][..height * width];
            for (row, column) in (0..conv.input[1])
                .flat_map(|row| (0..conv.input[2]).map(move |column| (row, column)))
            {
                let input = conv.input_at(b, channel / multiplier, [0, row, column]);
                for tap in 0..9 {
                    let to =
                        [(row + above).checked_sub(tap / 3), (column + left).checked_sub(tap % 3)];
                    if let [Some(y), Some(x)] = to
                        && y < height
                        && x < width
                    {
                        plane[y * width + x] += conv.weight_at(b, channel, tap) * input;
                    }
                }
            }
        }
    }
    conv.collect(|b, channel, position| {
        sums[(b * conv.geometry.c_out + channel) * conv.positions() + position]
    })
}
