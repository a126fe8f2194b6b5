//! Truth of `shaders/sum_slices.wgsl`: a convolution's sum from those of its parts, and what
//! follows it.

use super::Conv;

/// The output from the sums of some slices, `partials [slices, batch, channels out, positions]`,
/// added in their order.
#[must_use]
pub fn sum_slices(conv: &Conv<'_>, partials: &[f64]) -> Vec<f64> {
    let [c_out, positions] = [conv.geometry.c_out, conv.positions()];
    conv.collect(|b, channel, position| {
        let slices = partials.chunks_exact(conv.batch * c_out * positions);
        slices.map(|slice| slice[(b * c_out + channel) * positions + position]).sum()
    })
}
