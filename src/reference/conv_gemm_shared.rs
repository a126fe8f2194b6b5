//! Truth of `shaders/conv_gemm_shared.wgsl`: the convolution in blocks of input channels, every tap
//! of a block in turn. What the last whole block leaves is in blocks of half the size.

use std::ops::Range;

use super::Conv;

/// Input channels that share a tap before the next tap comes, and of those that are left over.
const BLOCK: usize = 16;
const HALF: usize = 8;

/// For each output, block after block and tap after tap: the inner product of the block's channels
/// with what the tap reads of them.
#[must_use]
pub fn conv_gemm_shared(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, _] = conv.group_channels();
    conv.collect(|b, channel, position| sum(conv, [b, channel, position], 0..c_in))
}

/// The sums alone, over `slice` input channels each: `[slices, batch, channels out, positions]`.
#[must_use]
pub fn in_slices(conv: &Conv<'_>, slice: usize) -> Vec<f64> {
    let [c_in, _] = conv.group_channels();
    let [c_out, positions] = [conv.geometry.c_out, conv.positions()];
    let mut sums = Vec::new();
    for first in (0..c_in).step_by(slice) {
        for i in 0..conv.batch * c_out * positions {
            let place = [i / positions / c_out, i / positions % c_out, i % positions];
            sums.push(sum(conv, place, first..c_in.min(first + slice)));
        }
    }
    sums
}

/// What the input channels of a group add to sample, channel and position.
fn sum(conv: &Conv<'_>, [b, channel, position]: [usize; 3], channels: Range<usize>) -> f64 {
    let [c_in, c_out] = conv.group_channels();
    let taps = conv.geometry.taps();
    let first = channel / c_out * c_in;
    let place = conv.place(position);
    let rest = channels.end - channels.len() % BLOCK;
    let blocks = (channels.start..rest).step_by(BLOCK).map(|first| first..first + BLOCK);
    let halves =
        (rest..channels.end).step_by(HALF).map(|first| first..channels.end.min(first + HALF));
    let mut sum = 0.0;
    for block in blocks.chain(halves) {
        for tap in 0..taps {
            let Some(read) = read_by(conv, place, tap) else { continue };
            for ci in block.clone() {
                sum += conv.weight_at(b, channel, ci * taps + tap)
                    * conv.input_at(b, first + ci, read);
            }
        }
    }
    sum
}

/// Where a tap reads for an output place; nowhere in the padding.
fn read_by(conv: &Conv<'_>, place: [usize; 3], tap: usize) -> Option<[usize; 3]> {
    let [_, kh, kw] = conv.geometry.kernel;
    let of_axis = [tap / (kh * kw), tap / kw % kh, tap % kw];
    Some([
        conv.tap(0, place[0], of_axis[0])?,
        conv.tap(1, place[1], of_axis[1])?,
        conv.tap(2, place[2], of_axis[2])?,
    ])
}
