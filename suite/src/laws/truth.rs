//! Laws that hold results against the reference.

use dynconv::kernels::Kernel;
use dynconv::reference::narrow;
use dynconv::{Activation, Elem};

use super::{Trial, same_bits};
use crate::check::kernels;
use crate::data::Numbers;
use crate::run::Fault;
use crate::spec::{Family, Spec};
use crate::truth::{self, attention_tolerance};
use crate::twin;

pub(super) fn exact(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Integers)?;
    let truth = truth::truth(trial.spec, &data, None)?;
    if truth.y.len() > 8 && truth.y.iter().all(|&v| v == truth.y[0]) {
        return Err(Fault::Wrong("the data shows nothing: all expected outputs are alike".into()));
    }
    let y = trial.y(&data)?;
    same_bits("output", &y, &narrow(&truth.y))?;
    let ran = kernels(trial.context, trial.spec);
    let ran = Kernel::ALL.iter().filter(|kernel| ran.contains(&kernel.name()));
    for formulation in ran.filter_map(|kernel| kernel.formulation()) {
        if let Some(formulated) = truth::formulated(trial.spec, &data, formulation)? {
            same_bits("output, by the kernel's own formulation", &y, &narrow(&formulated))?;
        }
    }
    Ok(())
}

pub(super) fn bound(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let output = trial.run(trial.spec, &data)?;
    let truth = truth::truth(trial.spec, &data, output.attention.as_deref())?;
    let rounds = trial.spec.elems[0] != Elem::F32
        && kernels(trial.context, trial.spec).contains(&"conv_gemm_coopmat");
    let truth = if rounds { truth.in_halves(trial.spec) } else { truth };
    within("output", &output.y, &truth.y, &truth.tolerance)
}

/// Every element within its own tolerance; NaN is within none.
fn within(what: &str, found: &[f32], expected: &[f64], tolerance: &[f64]) -> Result<(), Fault> {
    if found.len() != expected.len() {
        return Err(Fault::Wrong(format!(
            "{what}: {} elements, expected {}",
            found.len(),
            expected.len()
        )));
    }
    let error = |i: usize| (f64::from(found[i]) - expected[i]).abs();
    let wrong: Vec<usize> =
        (0..found.len()).filter(|&i| error(i).is_nan() || error(i) > tolerance[i]).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(Fault::Wrong(format!(
            "{what}: element {i} is {}, expected {} within {:.1e} ({} of {} elements are off)",
            found[i],
            expected[i],
            tolerance[i],
            wrong.len(),
            found.len()
        ))),
    }
}

pub(super) fn attention(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let found = trial.run(trial.spec, &data)?.attention.unwrap_or_default();
    let expected = truth::attention(trial.spec, &data)?.unwrap_or_default();
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    within(
        "attention",
        &found,
        &expected,
        &vec![attention_tolerance(trial.spec) * largest; expected.len()],
    )
}

pub(super) fn has_twin(spec: &Spec) -> bool {
    let is_plain = spec.activation == Activation::None && !spec.affine && !spec.residual;
    // Minimal filtering pays with accuracy.
    is_plain
        && spec.winograd.is_none()
        && spec.conv.sums_plainly()
        && spec.elems == [Elem::F32; 3]
        && matches!(spec.family, Family::Static | Family::Bank)
}

/// The twin computes the same in f32, in the plainest order. Both errors are the largest of all
/// outputs, against the same f64.
pub(super) fn twin(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let truth = truth::truth(trial.spec, &data, None)?;
    let worst = |y: &[f32]| {
        y.iter().zip(&truth.y).map(|(&y, t)| (f64::from(y) - t).abs()).fold(0.0, f64::max)
    };
    let largest = truth.y.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let ours = worst(&trial.y(&data)?);
    let twin = worst(&twin::twin(trial.spec, &data)?);
    // The last term lets a twin be right by luck where there are few outputs.
    let allowed = 2.0 * twin + largest * f64::from(f32::EPSILON);
    if ours <= allowed {
        return Ok(());
    }
    Err(Fault::Wrong(format!(
        "the largest error is {ours:.2e}, that of a plain sum in f32 {twin:.2e}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_an_elements_own_and_nan_is_within_none() {
        assert!(within("y", &[1.0, 2.5], &[1.0, 2.0], &[0.0, 0.5]).is_ok());
        assert!(within("y", &[1.0, 2.5], &[1.0, 2.0], &[0.5, 0.0]).is_err());
        assert!(within("y", &[f32::NAN], &[0.0], &[f64::INFINITY]).is_err());
        assert!(within("y", &[1.0], &[1.0, 1.0], &[9.0, 9.0]).is_err());
    }
}
