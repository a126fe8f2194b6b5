//! Laws about numbers that are not finite, and about numbers so large or so small that a step on
//! the way may overflow.

use dynconv::reference::{activate, narrow};
use dynconv::{Activation, Elem};

use super::{Trial, same_bits};
use crate::cases::is_filtered;
use crate::data::{Data, Numbers};
use crate::run::Fault;
use crate::spec::{Family, Spec};
use crate::truth;

/// An operand's name, and the data with one number of it that is not finite.
type Planted = (String, Data);

/// One number at a time that is not finite, in each operand that a caller gives with a run.
fn planted(spec: &Spec, data: &Data) -> Vec<Planted> {
    let numbers = [f32::NAN, f32::INFINITY];
    let mut all = Vec::new();
    for number in numbers {
        let mut add = |name: &str, at: usize, operand: fn(&mut Data) -> Option<&mut Vec<f32>>| {
            let mut data = data.clone();
            if let Some(value) = operand(&mut data).and_then(|values| values.get_mut(at)) {
                *value = number;
                all.push((format!("{number} in the {name}, element {at}"), data));
            }
        };
        // Anywhere in the input; at the end of what the caller mixes or gives, past which kernels
        // that take several at a time read.
        add("input", pick(spec, data.x.len()), |data| Some(&mut data.x));
        add("attention, map, kernels or style", data.given.len().saturating_sub(1), |data| {
            Some(&mut data.given)
        });
        if number.is_nan() {
            let len = data.residual.as_ref().map_or(0, Vec::len);
            add("residual", pick(spec, len), |data| data.residual.as_mut());
        }
    }
    all
}

/// An element that follows from the seed.
fn pick(spec: &Spec, len: usize) -> usize {
    usize::try_from(spec.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).unwrap_or(0) % len.max(1)
}

/// Expected outputs by the formula alone: attention is the reference's, not the device's.
fn formula(spec: &Spec, data: &Data) -> dynconv::Result<Vec<f64>> {
    let attention = truth::attention(spec, data)?.map(|values| narrow(&values));
    Ok(truth::truth(spec, data, attention.as_deref())?.y)
}

/// Whether an infinity of the formula is the same one in f32. It may be NaN where sums have parts
/// of other signs (minimal filtering, maps that are multiplied with inputs), and where a gain
/// underflows in f32 that does not in f64.
fn keeps_infinities(spec: &Spec) -> bool {
    matches!(spec.family, Family::Static | Family::Bank | Family::PerSample) && !is_filtered(spec)
}

/// What an element type stores for an infinity.
fn stored(value: f64, elem: Elem) -> f32 {
    let value = narrow(&[value])[0];
    if elem == Elem::F32 { value } else { value.clamp(-65_504.0, 65_504.0) }
}

pub(super) fn not_finite(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    // What an output reads is told by its sum: an activation may make the same of two.
    let summed = Spec { activation: Activation::None, ..spec.clone() };
    let data = trial.data(Numbers::Floats)?;
    let (clean, clean_sums) = (trial.y(&data)?, formula(&summed, &data)?);
    for (what, planted) in planted(spec, &data) {
        let (found, sums) = (trial.y(&planted)?, formula(&summed, &planted)?);
        for (i, &found) in found.iter().enumerate() {
            let expected = activate(spec.activation, sums[i]);
            let may_be_nan = sums[i].is_infinite() && !keeps_infinities(spec);
            let is_right = if expected.is_nan() {
                found.is_nan()
            } else if may_be_nan && found.is_nan() {
                true
            } else if expected.is_infinite() {
                found == stored(expected, spec.elems[1])
            } else if sums[i] == clean_sums[i] {
                // Nothing that this output reads has changed.
                found.to_bits() == clean[i].to_bits() || is_filtered(spec)
            } else {
                found.is_finite() || !keeps_infinities(spec)
            };
            if !is_right {
                let was = clean[i];
                return Err(Fault::Wrong(format!(
                    "{what}: output {i} is {found}, expected {expected}; {was} without"
                )));
            }
        }
    }
    Ok(())
}

pub(super) fn is_demodulated(spec: &Spec) -> bool {
    spec.family == Family::Modulated
}

/// Demodulation adds 1e-8 to a sum of squares, which large styles leave without effect.
pub(super) fn scaled(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let scaled = |style, weight| trial.y(&data.clone().scaled(style, weight));
    let expected = scaled(30, 0)?;
    if expected.iter().all(|&y| y == 0.0) {
        return Err(Fault::Wrong("styles times 2^30 give zeros".into()));
    }
    for (style, weight) in [(64, 0), (126, 0), (60, 40)] {
        let what = format!(
            "styles times 2^{style} and weights times 2^{weight}, beside styles times 2^30"
        );
        same_bits(&what, &scaled(style, weight)?, &expected)?;
    }
    Ok(())
}

pub(super) fn has_softmax(spec: &Spec) -> bool {
    matches!(spec.family, Family::DyCnn | Family::OdConv | Family::PixelMix | Family::Fdy)
}

/// Logits 1e30 times as large overflow when they are divided by it.
const COLD: f32 = 1e-37;

pub(super) fn cold(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let data = Data { temperature: COLD, heads: 1e30, ..trial.data(Numbers::Floats)? };
    let output = trial.run(spec, &data)?;
    if let Some(i) = output.y.iter().position(|y| !y.is_finite()) {
        return Err(Fault::Wrong(format!("output {i} is {}", output.y[i])));
    }
    let found = output.attention.unwrap_or_default();
    let expected = truth::attention(spec, &data)?.unwrap_or_default();
    // Where logits are within 1e-4 of each other, or of 0, rounding decides.
    let warmer = truth::attention(spec, &Data { temperature: 1e-5, heads: 1.0, ..data.clone() })?
        .unwrap_or_default();
    let is_clear = |i: usize| !(1e-4..1.0 - 1e-4).contains(&warmer[i]);
    let is_wrong = |i: usize| is_clear(i) && f64::from(found[i]) != expected[i];
    let wrong = (0..found.len().min(expected.len())).find(|&i| is_wrong(i));
    match wrong {
        None if found.len() == expected.len() => Ok(()),
        None => Err(Fault::Wrong(format!(
            "{} elements of attention, expected {}",
            found.len(),
            expected.len()
        ))),
        Some(i) => {
            Err(Fault::Wrong(format!("attention {i} is {}, expected {}", found[i], expected[i])))
        }
    }
}
