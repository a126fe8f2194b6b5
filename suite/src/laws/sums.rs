//! Laws of linearity and mixing.

use super::{Trial, keeps_order, same_bits};
use crate::data::{Data, Numbers};
use crate::run::Fault;
use crate::spec::{Family, Spec};

/// The static convolution with one kernel and bias row.
fn fixed(spec: &Spec, data: &Data, bank: Vec<f32>, bias: Option<Vec<f32>>) -> (Spec, Data) {
    let spec = Spec { family: Family::Static, kernels: 1, ..spec.clone() };
    (spec, Data { bank, bias, given: Vec::new(), ..data.clone() })
}

/// The `k`-th of `kernels` equal parts.
fn part(values: &[f32], kernels: usize, k: usize) -> Vec<f32> {
    let len = values.len() / kernels;
    values[k * len..(k + 1) * len].to_vec()
}

pub(super) fn one_hot(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    // Where relatives may sum in another order, integers hide it.
    let numbers = if keeps_order(spec) { Numbers::Floats } else { Numbers::Integers };
    let mut data = trial.data(numbers)?;
    let k = usize::try_from(spec.seed % spec.kernels as u64).unwrap_or(0);
    // A row of mixing weights, or a map of them, has K equal parts in each sample.
    let places = data.given.len() / (spec.batch * spec.kernels);
    for (i, weight) in data.given.iter_mut().enumerate() {
        *weight = f32::from(u8::from(i / places % spec.kernels == k));
    }
    let bias = data.bias.as_deref().map(|bias| part(bias, spec.kernels, k));
    let (fixed, alone) = fixed(spec, &data, part(&data.bank, spec.kernels, k), bias);
    let expected = trial.run(&fixed, &alone)?.y;
    same_bits(&format!("kernel {k} alone"), &trial.y(&data)?, &expected)
}

fn mean(values: &[f32], kernels: usize) -> Vec<f32> {
    let len = values.len() / kernels;
    (0..len).map(|i| values.iter().skip(i).step_by(len).sum::<f32>() / kernels as f32).collect()
}

pub(super) fn uniform(trial: &Trial<'_>) -> Result<(), Fault> {
    let spec = trial.spec;
    let mut data = trial.data(Numbers::Integers)?;
    // Multiples of K, so that the mean is an integer that every element type holds.
    let times = |values: &mut [f32]| values.iter_mut().for_each(|v| *v *= spec.kernels as f32);
    times(&mut data.bank);
    data.bias.as_deref_mut().map(times);
    data.given.fill(1.0 / spec.kernels as f32);
    let bias = data.bias.as_deref().map(|bias| mean(bias, spec.kernels));
    let (fixed, alone) = fixed(spec, &data, mean(&data.bank, spec.kernels), bias);
    let expected = trial.run(&fixed, &alone)?.y;
    same_bits("the mean kernel", &trial.y(&data)?, &expected)
}

/// f(a + b) = f(a) + f(b) - f(0) in one of the operands.
fn linear(trial: &Trial<'_>, operand: impl Fn(&mut Data) -> &mut Vec<f32>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Integers)?;
    let mut other =
        Data::new(&Spec { seed: trial.spec.seed + 1, ..trial.spec.clone() }, Numbers::Integers)?;
    let with = |values: Vec<f32>| -> Result<Vec<f32>, Fault> {
        let mut data = data.clone();
        *operand(&mut data) = values;
        trial.y(&data)
    };
    let a = operand(&mut data.clone()).clone();
    let b = operand(&mut other).clone();
    let zero = vec![0.0; a.len()];
    let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let [of_sum, of_a, of_b, of_zero] = [with(sum)?, with(a)?, with(b)?, with(zero)?];
    let expected: Vec<f32> = (0..of_a.len()).map(|i| of_a[i] + of_b[i] - of_zero[i]).collect();
    same_bits("the sum of two", &of_sum, &expected)
}

pub(super) fn linear_in_input(trial: &Trial<'_>) -> Result<(), Fault> {
    linear(trial, |data| &mut data.x)
}

pub(super) fn linear_in_bank(trial: &Trial<'_>) -> Result<(), Fault> {
    linear(trial, |data| &mut data.bank)
}

pub(super) fn linear_in_given(trial: &Trial<'_>) -> Result<(), Fault> {
    linear(trial, |data| &mut data.given)
}
