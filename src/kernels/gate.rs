//! Host side of `shaders/gate.wgsl`: gains of elements, and dynamic ReLU.

use super::conv::{ConvTask, ConvValues, PLAIN};
use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{MapAxis, Problem, product};

pub(crate) const DEF: KernelDef =
    KernelDef { storage: &[false, false, false, false, false, true, false], ..PLAIN };

/// Invocations of a workgroup, an output each.
const WORKGROUP: u32 = 64;

/// Coefficients of a channel's dynamic ReLU.
pub(crate) const COEFFICIENTS: usize = 4;

/// What gains there are. A value each, of as many elements as it says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gains {
    /// `[batch, channels, 4]`
    pub coefficients: Option<Value>,
    /// One a channel, or with an axis one for every position or place.
    pub first: Option<(Value, Option<MapAxis>)>,
    /// One for every place along an axis: 0 to 2.
    pub second: Option<(Value, usize)>,
}

/// Gates `x` of some samples, from the first one given on.
pub(crate) fn dispatch(
    (first, problem): (usize, Problem),
    gains: Gains,
    values: ConvValues,
    caps: &Caps,
) -> Result<Dispatch> {
    let (size, channels) = (problem.input, problem.geometry.c_in);
    let mut task = ConvTask::of_channels(&problem, first, size, values);
    if let Some(value) = gains.coefficients {
        (task.shared, task.row, task.values.weights) =
            (false, channels.saturating_mul(COEFFICIENTS), value);
    }
    if let Some((value, map)) = gains.first {
        (task.values.gains, task.map) = (Some(value), map);
        let places = match map {
            None => 1,
            Some(MapAxis::All) => product(&size),
            Some(MapAxis::One(axis)) => size[axis],
        };
        task.gain_stride = channels.saturating_mul(places);
        task.filter_gain = map.is_none().then_some(0);
    }
    let mut slices = task.slices()?;
    let mut along = 0;
    slices.push(match gains.second {
        None => slices[0].stand_in(),
        Some((value, axis)) => {
            along = 2 + u32::try_from(axis).unwrap_or(2);
            Slice::samples(value, channels.saturating_mul(size[axis]), first, problem.batch)?
        }
    });
    let consts = [
        ("WORKGROUP", Const::U32(WORKGROUP)),
        ("DYNAMIC_RELU", Const::Bool(gains.coefficients.is_some())),
        ("SECOND", Const::U32(along)),
    ];
    let outputs = product(&[problem.batch, channels, product(&size)]);
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    task.dispatch_of(Kernel::Gate, &consts, workgroups, Resources::iterations(4), slices, caps)
}
