//! Truth of `shaders/conv_block.wgsl`: the convolution in blocks of input channels, every tap of a block in turn.
//! What the last whole block leaves is in blocks of half the size.

use super::Conv;

/// Input channels that share a tap before the next tap comes, and of those that are left over.
const BLOCK: usize = 16;
const HALF: usize = 8;

/// For each output, block after block and tap after tap: the inner product of the block's channels with what the tap reads of them.
#[must_use]
pub fn conv_block(conv: &Conv<'_>) -> Vec<f64> {
    let [c_in, c_out] = conv.group_channels();
    let taps = conv.geometry.taps();
    conv.collect(|b, channel, position| {
        let first = channel / c_out * c_in;
        let place = conv.place(position);
        let mut sum = 0.0;
        let whole = c_in - c_in % BLOCK;
        let blocks = (0..whole).step_by(BLOCK).map(|first| first..first + BLOCK);
        let rest = (whole..c_in).step_by(HALF).map(|first| first..c_in.min(first + HALF));
        for block in blocks.chain(rest) {
            for tap in 0..taps {
                let Some(read) = read_by(conv, place, tap) else { continue };
                for ci in block.clone() {
                    sum += conv.weight_at(b, channel, ci * taps + tap) * conv.input_at(b, first + ci, read);
                }
            }
        }
        sum
    })
}

/// Where a tap reads for an output place; nowhere in the padding.
fn read_by(conv: &Conv<'_>, place: [usize; 3], tap: usize) -> Option<[usize; 3]> {
    let [_, kh, kw] = conv.geometry.kernel;
    let of_axis = [tap / (kh * kw), tap / kw % kh, tap % kw];
    Some([conv.tap(0, place[0], of_axis[0])?, conv.tap(1, place[1], of_axis[1])?, conv.tap(2, place[2], of_axis[2])?])
}
