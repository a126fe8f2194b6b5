//! Numbers so large or so small that a step on the way may overflow, or that what a formula adds
//! for their sake shows.

use dynconv::Algorithm;
use dynconv::problem::Sampling;
use dynconv::{Elem, Result};

use crate::cases::is_filtered;
use crate::data::{Data, Numbers};
use crate::ops::Op;
use crate::spec::{Family, Spec};

/// Such numbers for a problem, and what they are.
pub(crate) fn strained(spec: &Spec) -> Result<Vec<(&'static str, Data)>> {
    let data = Data::new(spec, Numbers::Floats)?;
    let heads = |heads| Data { heads, ..data.clone() };
    let scaled = |given, bank| data.clone().scaled(given, bank);
    // What is rounded, filtered or mixed from position to position may make NaN of an infinity.
    let keeps_infinities = !is_filtered(spec) && spec.elems == [Elem::F32; 3];
    Ok(match spec.family {
        Family::Warehouse => {
            vec![("logits times 2^126", heads(2.0_f32.powi(126))), ("logits of 0", heads(0.0))]
        }
        Family::Modulated => vec![
            ("styles times 2^126 and 2^-48, weights times 2^40", uneven(scaled(0, 40))),
            ("styles times 2^60, weights times 2^40", scaled(60, 40)),
            ("styles times 2^-14", scaled(-14, 0)),
        ],
        Family::Styled => vec![("styles times 2^40", scaled(40, 0))],
        Family::Static
            if spec.conv == Algorithm::ConvGemmCoopmat && spec.elems[1..] == [Elem::F32; 2] =>
        {
            vec![("weights times 2^20", scaled(0, 20))]
        }
        Family::Static if keeps_infinities => {
            vec![("an infinity in the input", with_infinity(data, |data| &mut data.x))]
        }
        Family::Op(Op::LayerNorm) => {
            let half = data.x.len() / 2;
            vec![
                ("the first samples times 2^100", enlarged(data.clone(), ..half)),
                ("the last samples times 2^100", enlarged(data.clone(), half..)),
                ("one number", alike(data)),
            ]
        }
        Family::Op(Op::Resample(Sampling::Linear)) if spec.elems == [Elem::F32; 3] => {
            vec![("an infinity in the input", with_infinity(data, |data| &mut data.x))]
        }
        Family::Bank if keeps_infinities => {
            vec![("an infinity in the attention", with_infinity(data, |data| &mut data.given))]
        }
        _ => vec![],
    })
}

/// Some groups of styles have a large one, others none.
fn uneven(mut data: Data) -> Data {
    for (i, style) in data.given.iter_mut().enumerate() {
        *style *= 2.0_f32.powi(if i.is_multiple_of(5) { 126 } else { -48 });
    }
    data
}

/// Some of the input is large.
fn enlarged(mut data: Data, which: impl std::slice::SliceIndex<[f32], Output = [f32]>) -> Data {
    data.x[which].iter_mut().for_each(|value| *value *= 2.0_f32.powi(100));
    data
}

/// All of the input is one number.
fn alike(mut data: Data) -> Data {
    data.x.fill(0.75);
    data
}

/// The last number of an operand is infinite.
fn with_infinity(mut data: Data, operand: fn(&mut Data) -> &mut Vec<f32>) -> Data {
    if let Some(last) = operand(&mut data).last_mut() {
        *last = f32::INFINITY;
    }
    data
}
