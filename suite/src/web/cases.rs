//! What to compile, and a few cases of every kind of layer, small enough for software adapters.

use std::collections::HashSet;

use dynconv::plan::{AttentionSource, ConvChoice, MapAxis, Parts, Problem};
use dynconv::reference::{self, LayerWeights, channel_softmax, demodulate, widen};
use dynconv::{
    Activation, BankConv2d, Bound, Caps, Cells, CondConv2d, Context, ConvDesc, DynConv2d, KernelWarehouse2d, Layer,
    MapConv2d, ModulatedConv2d, OdConv2d, OwnAttention, PerSampleConv2d, PixelMix2d, StaticConv2d, Tensor, Warehouse,
};

use super::{WebCase, WebModule};
use crate::cases::{Case, cases_2d};
use crate::noise::Noise;
use crate::replay::{Module, RecordError, Replay};
use crate::variants::{element_types, noop, variants};
use crate::weights;

/// Largest `|y - truth| / max |truth|` of layers with an attention branch: what golden vectors are held to.
const TOLERANCE: f64 = 1e-5;

/// All variants. Those become pipelines that have an element type, or a value of a constant, that no earlier one of the kernel has:
/// every line of every kernel goes through the back end. With `in_full` all of them do.
#[must_use]
pub fn all_modules(in_full: bool) -> Vec<WebModule> {
    let mut seen = HashSet::new();
    let all = variants().into_iter().chain(element_types()).map(|dispatch| dispatch.variant);
    all.map(|variant| {
        let mut is_new = seen.insert((variant.kernel, variant.elems.clone(), None));
        for value in &variant.consts {
            is_new |= seen.insert((variant.kernel, vec![], Some(*value)));
        }
        WebModule { module: Module::from(&variant), has_pipeline: in_full || is_new }
    })
    .collect()
}

/// All cases: integer data through every kernel, exact, and a few of each kind of layer.
///
/// # Errors
/// [`RecordError`] if one cannot be recorded.
pub fn all_cases() -> Result<Vec<WebCase>, RecordError> {
    // No adapter is needed to record: the noop device keeps buffers and computes nothing.
    let context = noop().with_caps(Caps::webgpu_default());
    let mut cases = Vec::new();
    for case in cases_2d() {
        push_bank(&context, &case, &mut cases)?;
    }
    for case in [&cases_2d()[1], &cases_2d()[9], &cases_2d()[14]] {
        push_own(&context, case, &mut cases)?;
    }
    let case = &cases_2d()[12];
    cases.push(fixed(&context, &case.single())?);
    cases.push(per_sample(&context, &case.single())?);
    cases.push(mapped(&context, case)?);
    cases.push(pixel_mixture(&context, case)?);
    cases.push(modulated(&context, &case.single())?);
    cases.push(warehouse(&context, &case.single())?);
    Ok(cases)
}

/// A recorded case; `relative` is the tolerance as a part of the largest expected value.
fn record(
    context: &Context,
    name: String,
    bound: &Bound,
    expected: Vec<f64>,
    relative: f64,
) -> Result<WebCase, RecordError> {
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let tolerance = vec![relative * largest; expected.len()];
    Ok(WebCase { name, replay: Replay::record(context, bound, bound.output())?, expected, tolerance })
}

/// Output of a case, not yet computed.
fn output(context: &Context, case: &Case<2>) -> dynconv::Result<Tensor> {
    Tensor::zeros(context, &case.output_shape())
}

/// A bank of integers, by every kernel.
fn push_bank(context: &Context, case: &Case<2>, cases: &mut Vec<WebCase>) -> Result<(), RecordError> {
    let mut noise = Noise::new(10);
    let values = noise.integers(case.input_len(), 4);
    let bank = noise.integers(case.kernels() * case.weights(), 3);
    let bias = noise.integers(case.kernels() * case.c_out(), 9);
    // Quarters are exact too.
    let mix: Vec<f32> =
        noise.integers(case.batch * case.kernels(), 4).into_iter().map(|quarters| quarters / 4.0).collect();
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let attention = Tensor::upload(context, &[case.batch, case.kernels()], &mix)?;
    let layer = BankConv2d::new(context, &case.desc, &bank, Some(&bias))?.activation(Activation::Relu);
    let weights = LayerWeights { bank: widen(&bank), bias: Some(widen(&bias)), ..Default::default() };
    let plan = layer.plan(case.batch, case.size)?;
    let truth = reference::layer(plan.problem(), &weights, &widen(&values), &widen(&mix)).y;
    // What the planner chooses is one of the others.
    for choice in case.choices().into_iter().filter(|choice| *choice != ConvChoice::Auto) {
        let bound = layer.clone().kernel(choice).bind(&x, &attention, &output(context, case)?)?;
        cases.push(record(context, format!("bank {choice:?} {case:?}"), &bound, truth.clone(), 0.0)?);
    }
    Ok(())
}

/// Layers that compute their own attention row.
fn push_own(context: &Context, case: &Case<2>, cases: &mut Vec<WebCase>) -> Result<(), RecordError> {
    let mut noise = Noise::new(100);
    let g = case.geometry();
    let weights = weights::dy_cnn(&mut noise, &g, [true; 2]);
    let layer = DynConv2d::new(context, &case.desc, &weights, 4.0)?;
    cases.push(own(context, case, "DY-CNN", &layer, &weights.reference(&g, 4.0), &mut noise)?);
    let weights = weights::od_conv(&mut noise, &g);
    let layer = OdConv2d::new(context, &case.desc, &weights, 1.0)?;
    cases.push(own(context, case, "ODConv", &layer, &weights.reference(&g, 1.0), &mut noise)?);
    let weights = weights::cond_conv(&mut noise, &g, true);
    let layer = CondConv2d::new(context, &case.desc, &weights)?;
    cases.push(own(context, case, "CondConv", &layer, &weights.reference(&g), &mut noise)?);
    Ok(())
}

fn own<A: OwnAttention>(
    context: &Context,
    case: &Case<2>,
    kind: &str,
    layer: &Layer<2, A>,
    weights: &LayerWeights,
    noise: &mut Noise,
) -> Result<WebCase, RecordError> {
    let values = noise.floats(case.input_len());
    let plan = layer.plan(case.batch, case.size)?;
    let truth = reference::layer(plan.problem(), weights, &widen(&values), &[]).y;
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let bound = layer.bind(&x, &output(context, case)?)?;
    record(context, format!("{kind} {case:?}"), &bound, truth, TOLERANCE)
}

fn fixed(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(20);
    let values = noise.integers(case.input_len(), 4);
    let kernel = noise.integers(case.weights(), 3);
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let layer = StaticConv2d::new(context, &case.desc, &kernel, None)?;
    let truth = convolved(layer.plan(case.batch, case.size)?.problem(), &kernel, &values, &[]);
    let bound = layer.bind(&x, &output(context, case)?)?;
    record(context, format!("static {case:?}"), &bound, truth, 0.0)
}

fn per_sample(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(21);
    let values = noise.integers(case.input_len(), 4);
    let kernels = noise.integers(case.batch * case.weights(), 3);
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let rows = Tensor::upload(context, &[case.batch, case.weights()], &kernels)?;
    let layer = PerSampleConv2d::new(context, &case.desc)?;
    let truth = convolved(layer.plan(case.batch, case.size)?.problem(), &[], &values, &widen(&kernels));
    let bound = layer.bind(&x, &rows, &output(context, case)?)?;
    record(context, format!("per sample {case:?}"), &bound, truth, 0.0)
}

fn mapped(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(22);
    let values = noise.integers(case.input_len(), 4);
    let bank = noise.integers(case.kernels() * case.weights(), 3);
    let shape = [&[case.batch, case.kernels()], &case.output_shape()[2..]].concat();
    let weights = noise.integers(shape.iter().product(), 3);
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let map = Tensor::upload(context, &shape, &weights)?;
    let layer = MapConv2d::new(context, &case.desc, &bank, None, MapAxis::All)?;
    let truth = convolved(layer.plan(case.batch, case.size)?.problem(), &bank, &values, &widen(&weights));
    let bound = layer.bind_map(&x, &map, &output(context, case)?)?;
    record(context, format!("map {case:?}"), &bound, truth, 0.0)
}

fn pixel_mixture(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(23);
    let g = case.geometry();
    let weights = weights::pixel_mix(&mut noise, &g, false);
    let values = noise.floats(case.input_len());
    let head = ConvDesc::new(g.c_in, g.kernels, [1, 1]).geometry()?;
    let branch = LayerWeights {
        bank: widen(&weights.attention.weight),
        bias: Some(widen(&weights.attention.bias)),
        ..Default::default()
    };
    let to_logits = Problem { has_bias: true, ..Problem::new(head, case.batch, case.input()) };
    let logits = reference::layer(&to_logits, &branch, &widen(&values), &[]).y;
    let map = channel_softmax::channel_softmax(&logits, g.kernels, case.size.iter().product(), 1.0);
    let attention = AttentionSource::Map(MapAxis::All);
    let problem = Problem { attention, ..Problem::new(g, case.batch, case.input()) };
    let truth = convolved(&problem, &weights.bank, &values, &map);
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let bound = PixelMix2d::new(context, &case.desc, &weights, 1.0)?.bind(&x, &output(context, case)?)?;
    record(context, format!("pixel mixture {case:?}"), &bound, truth, TOLERANCE)
}

fn modulated(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(24);
    let g = case.geometry();
    let kernel = noise.floats(g.weights());
    let styles = noise.floats(case.batch * g.c_in);
    let values = noise.floats(case.input_len());
    let gains = demodulate::demodulate(&g, &widen(&kernel), &widen(&styles));
    let attention = AttentionSource::Given(Parts { channel: true, filter: true, ..Parts::default() });
    let problem = Problem { attention, ..Problem::new(g, case.batch, case.input()) };
    let truth = convolved(&problem, &kernel, &values, &gains);
    let x = Tensor::upload(context, &case.input_shape(), &values)?;
    let style = Tensor::upload(context, &[case.batch, g.c_in], &styles)?;
    let layer = ModulatedConv2d::new(context, &case.desc, &kernel, true)?;
    let bound = layer.bind(&x, &style, &output(context, case)?)?;
    record(context, format!("modulated {case:?}"), &bound, truth, TOLERANCE)
}

fn warehouse(context: &Context, case: &Case<2>) -> Result<WebCase, RecordError> {
    let mut noise = Noise::new(25);
    let cells = Cells { count: 5, c_out: 1, c_in: 1, taps: case.geometry().taps() };
    let values = noise.floats(cells.count * cells.elements());
    let warehouse = Warehouse::new(context, cells, &values)?;
    let weights = weights::kernel_warehouse(&mut noise, &case.geometry(), cells, true);
    let layer = KernelWarehouse2d::new(context, &case.desc, &weights, &warehouse)?;
    own(context, case, "KernelWarehouse", &layer, &weights.reference(&warehouse), &mut noise)
}

/// A convolution without bias by the reference; `given` is what [`reference::layer`] takes by that name.
fn convolved(problem: &Problem, bank: &[f32], x: &[f32], given: &[f64]) -> Vec<f64> {
    let weights = LayerWeights { bank: widen(bank), ..Default::default() };
    reference::layer(problem, &weights, &widen(x), given).y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Output;

    #[test]
    fn every_variant_is_compiled_and_every_constant_reaches_the_back_end() {
        let modules = all_modules(false);
        let pipelines = modules.iter().filter(|shader| shader.has_pipeline).count();
        assert!(modules.len() > 500 && pipelines > 50 && pipelines < modules.len() / 2);
        assert!(all_modules(true).iter().all(|shader| shader.has_pipeline));
    }

    #[test]
    fn all_cases_are_recorded_with_an_expectation_for_every_element() {
        let cases = all_cases().expect("records");
        assert!(cases.len() > 80, "{}", cases.len());
        for WebCase { name, replay, expected, tolerance } in &cases {
            let Output { size, is_half, .. } = replay.output;
            assert!(!is_half, "{name}");
            assert_eq!(expected.len() as u64 * 4, size, "{name}");
            assert_eq!(expected.len(), tolerance.len(), "{name}");
            assert!(expected.iter().any(|value| *value != 0.0), "{name} expects nothing but zeros");
        }
    }
}
