//! One sample larger than a binding: strips of its outermost axis, each of which lies in one piece
//! where channels come last.

use crate::caps::Caps;
use crate::kernels::value_limit;
use crate::problem::{AttentionSource, Geometry, Layout, Problem, product};

/// Some places of the outermost axis of the output, and what of the input they read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strip {
    /// That of the layer, its padding where the strip ends at the map's edge.
    pub(super) geometry: Geometry,
    pub(super) input: [usize; 3],
    pub(super) output: [usize; 3],
    /// Elements of a sample's input and output before the strip.
    pub(super) first: [usize; 2],
}

/// The strips of a sample, if it is too large for a binding, its layer can be computed in strips
/// and each of them fits.
pub(super) fn strips(problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<Vec<Strip>> {
    let g = &problem.geometry;
    let most = usize::try_from(value_limit(caps) / 4).unwrap_or(usize::MAX);
    let sizes = [(problem.input, g.c_in), (output, g.c_out)];
    let is_large =
        |(size, channels): &([usize; 3], usize)| product(size).saturating_mul(*channels) > most;
    let is_able = problem.layouts == [Layout::ChannelsLast; 2]
        && !g.transposed
        && g.winograd.is_none()
        && !matches!(problem.attention, AttentionSource::Map(_));
    if !is_able || !sizes.iter().any(is_large) {
        return None;
    }
    let axis = 3 - g.axes;
    let across =
        |(size, channels): ([usize; 3], usize)| product(&size[axis + 1..]).saturating_mul(channels);
    let [x_place, y_place] = sizes.map(across);
    let reach = (g.kernel[axis] - 1).saturating_mul(g.dilation[axis]).saturating_add(1);
    // As many places as fit, and the same number in all strips, but for the last.
    let of_input = (most / x_place.max(1)).checked_sub(reach)? / g.stride[axis] + 1;
    let places = of_input.min(most / y_place.max(1)).min(output[axis]);
    let count = output[axis].div_ceil(places.max(1));
    let places = output[axis].div_ceil(count);
    if places > of_input || places.saturating_mul(y_place) > most {
        return None;
    }
    let strip = |first: usize| -> Option<Strip> {
        let end = output[axis].min(first + places);
        let before = g.padding[axis][0];
        // Both in the padded input.
        let [from, to] = [first * g.stride[axis], (end - 1) * g.stride[axis] + reach];
        let inside = |place: usize| place.saturating_sub(before).min(problem.input[axis]);
        let mut strip = Strip {
            geometry: Geometry { same: false, ..*g },
            input: problem.input,
            output,
            first: [inside(from) * x_place, first * y_place],
        };
        strip.input[axis] = inside(to) - inside(from);
        strip.output[axis] = end - first;
        let cut = before.saturating_sub(from);
        let missing = (to - from).saturating_sub(cut + strip.input[axis]);
        strip.geometry.padding[axis] = [cut, missing];
        // One that reads nothing but padding has no input to bind.
        (strip.input[axis] > 0).then_some(strip)
    };
    (0..output[axis]).step_by(places).map(strip).collect()
}

/// Elements of a strip's input and output, at most.
pub(super) fn largest(strips: &[Strip]) -> [usize; 2] {
    let elements = |strip: &Strip| {
        let g = &strip.geometry;
        [
            product(&strip.input).saturating_mul(g.c_in),
            product(&strip.output).saturating_mul(g.c_out),
        ]
    };
    strips.iter().map(elements).fold([0; 2], |[a, b], [x, y]| [a.max(x), b.max(y)])
}

/// Parts of equal size that so many elements of a sample are summed in, so that each fits: 1 where
/// all of them fit. `None` if the positions have no such divisor.
pub(super) fn parts(positions: usize, channels: usize, caps: &Caps) -> Option<usize> {
    let most = usize::try_from(value_limit(caps) / 4).unwrap_or(usize::MAX);
    let least = positions.saturating_mul(channels).div_ceil(most).max(1);
    (least..=positions.min(least.saturating_mul(MOST))).find(|&n| positions.is_multiple_of(n))
}

/// How many times the parts that would do are tried.
const MOST: usize = 1024;
