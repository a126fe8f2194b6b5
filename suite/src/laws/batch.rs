//! Laws about the samples of a batch, and about what one run leaves for the next.

use super::{Trial, same_bits};
use crate::data::{Data, Numbers};
use crate::run::{Fault, Prepared};

pub(super) fn repeat(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let prepared = Prepared::new(trial.context, trial.spec, &data)?;
    let first = prepared.run()?.y;
    same_bits("the same binding again", &prepared.run()?.y, &first)?;
    same_bits("a new binding", &trial.y(&data)?, &first)
}

/// Elements of each sample in a result.
fn samples(y: &[f32], batch: usize) -> impl DoubleEndedIterator<Item = &[f32]> {
    y.chunks_exact((y.len() / batch).max(1))
}

pub(super) fn independent(trial: &Trial<'_>) -> Result<(), Fault> {
    let batch = trial.spec.batch;
    let data = trial.data(Numbers::Floats)?;
    let before = trial.y(&data)?;
    let changed = usize::try_from(trial.spec.seed % batch as u64).unwrap_or(0);
    let mut other = data.clone();
    for (values, value) in [(&mut other.x, 9.0), (&mut other.given, -2.0)] {
        let len = values.len() / batch;
        values[changed * len..(changed + 1) * len].fill(value);
    }
    let after = trial.y(&other)?;
    for (b, (after, before)) in samples(&after, batch).zip(samples(&before, batch)).enumerate() {
        if b != changed {
            same_bits(&format!("sample {b} after a change of sample {changed}"), after, before)?;
        }
    }
    Ok(())
}

fn reversed(values: &[f32], batch: usize) -> Vec<f32> {
    samples(values, batch).rev().flatten().copied().collect()
}

pub(super) fn permute(trial: &Trial<'_>) -> Result<(), Fault> {
    let batch = trial.spec.batch;
    let data = trial.data(Numbers::Floats)?;
    let turned = Data {
        x: reversed(&data.x, batch),
        given: reversed(&data.given, batch),
        residual: data.residual.as_deref().map(|r| reversed(r, batch)),
        ..data.clone()
    };
    let expected = reversed(&trial.y(&data)?, batch);
    same_bits("the reversed batch", &trial.y(&turned)?, &expected)
}

pub(super) fn split(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let data = trial.data(Numbers::Floats)?;
    let whole = trial.y(&data)?;
    for (b, expected) in samples(&whole, spec.batch).enumerate() {
        let alone = trial.run(&spec.single(), &data.sample(spec, b))?.y;
        same_bits(&format!("sample {b} alone"), &alone, expected)?;
    }
    Ok(())
}
