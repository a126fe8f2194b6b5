//! The same work on other tensors: a binding's pipelines, parameters and scratch memory serve
//! others of the same shape.

use dynconv::{Bound, ConvDesc, Error, StaticConv2d, Tensor, wgpu};

use crate::common::uses::uses;
use crate::common::{Noise, assert_same_bits, context, read, run, upload};

/// Tensors for the operands of a use, that many elements from the beginning of their buffers.
fn tensors(operands: &[(&str, Vec<usize>)], seed: u64, before: usize) -> Vec<Tensor> {
    let mut noise = Noise::new(seed);
    let mut tensor = |(name, shape): &(&str, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let values = if *name == "output" { vec![f32::NAN; len] } else { noise.floats(len) };
        let words = [vec![0.5; before], values].concat();
        let whole = upload(context(), &[words.len()], &words);
        Tensor::wrap(context(), whole.buffer(), 4 * before as u64, shape).expect("fits")
    };
    operands.iter().map(&mut tensor).collect()
}

/// Buffers that a binding touches, and pipelines that it runs.
fn parts(bound: &Bound) -> (Vec<wgpu::Buffer>, Vec<wgpu::ComputePipeline>) {
    let buffers = bound.steps().iter().flat_map(|step| step.bindings()).map(|(b, _)| b.clone());
    (buffers.collect(), bound.steps().iter().map(|step| step.pipeline().clone()).collect())
}

/// Every kind of layer, every way to bind it: on other tensors it gives the bits of a new binding,
/// and what was bound first gives its own again.
#[test]
fn every_binding_serves_other_tensors() {
    let mut kinds = 0;
    for one in uses(context(), 2) {
        // Maps and weights of other numbers do no harm; aligned alike, and not.
        let [first, next, odd] =
            [(1, 0), (2, 0), (2, 3)].map(|(seed, before)| tensors(&one.operands, seed, before));
        let call = |tensors: &[Tensor]| {
            (one.call)(&tensors.iter().collect::<Vec<_>>()).expect("is right").bound
        };
        let Some(bound) = call(&first) else { continue };
        kinds += 1;
        let before = run(context(), &bound);
        let expected = run(context(), &call(&next).expect("binds"));
        for others in [&next, &odd] {
            let pairs: Vec<_> = first.iter().zip(others).collect();
            let rebound = bound.rebind(&pairs).expect("has the same shapes");
            assert_same_bits(&one.name, &run(context(), &rebound), &expected);
        }
        let pairs: Vec<_> = first.iter().zip(&next).collect();
        let rebound = bound.rebind(&pairs).expect("has the same shapes");
        let ((old, old_pipelines), (new, pipelines)) = (parts(&bound), parts(&rebound));
        assert_eq!(pipelines, old_pipelines, "{}", one.name);
        let is_users = |buffer: &wgpu::Buffer| {
            first.iter().chain(&next).any(|tensor| tensor.buffer() == buffer)
        };
        for (old, new) in old.iter().zip(&new) {
            assert_eq!(old == new, !is_users(new), "{}: scratch memory is shared", one.name);
        }
        assert_same_bits(&one.name, &run(context(), &bound), &before);
    }
    assert!(kinds > 12, "{kinds} ways to bind");
}

/// Two recordings in one encoder, one after another, though they share scratch memory.
#[test]
fn both_can_be_recorded_into_one_encoder() {
    for name in ["DY-CNN bind", "pixel mixture bind", "DCD bind"] {
        let uses = uses(context(), 2);
        let one = uses.iter().find(|one| one.name == name).expect("is a use");
        let [first, next] = [1, 2].map(|seed| tensors(&one.operands, seed, 0));
        let bound = (one.call)(&first.iter().collect::<Vec<_>>()).expect("is right").bound;
        let bound = bound.expect("binds");
        let pairs: Vec<_> = first.iter().zip(&next).collect();
        let rebound = bound.rebind(&pairs).expect("has the same shapes");
        let expected = [&bound, &rebound].map(|bound| run(context(), bound));
        let mut encoder = context().device().create_command_encoder(&Default::default());
        bound.record(&mut encoder);
        rebound.record(&mut encoder);
        context().queue().submit([encoder.finish()]);
        for (bound, expected) in [&bound, &rebound].into_iter().zip(&expected) {
            assert_same_bits(&one.name, &read(context(), bound.output()), expected);
        }
    }
}

#[test]
fn what_cannot_take_a_place_is_named() {
    let desc = ConvDesc::new(2, 3, [3, 3]);
    let layer = StaticConv2d::new(context(), &desc, &[0.5; 54], None).expect("valid");
    let zeros = |shape: &[usize]| Tensor::zeros(context(), shape).expect("fits");
    let (x, y) = (zeros(&[1, 2, 5, 5]), zeros(&[1, 3, 3, 3]));
    let bound = layer.bind(&x, &y).expect("binds");
    let message =
        |pairs: &[(&Tensor, &Tensor)]| bound.rebind(pairs).expect_err("is refused").to_string();
    let other = zeros(&[1, 2, 5, 5]);
    assert!(message(&[(&other, &x)]).starts_with("tensor to replace: needs one that is bound"));
    assert_eq!(
        message(&[(&x, &zeros(&[1, 2, 6, 5]))]),
        "input: expected [1, 2, 5, 5], found [1, 2, 6, 5]"
    );
    let half = Tensor::zeros_in(context(), &[1, 2, 5, 5], dynconv::Elem::F16Storage).expect("fits");
    assert!(message(&[(&x, &half)]).starts_with("element type of the input"));
    let long = zeros(&[77]);
    let [input, output] = [(0, vec![1, 2, 5, 5]), (200, vec![1, 3, 3, 3])]
        .map(|(at, shape)| Tensor::wrap(context(), long.buffer(), at, &shape).expect("fits"));
    let error = bound.rebind(&[(&x, &input), (&y, &output)]).expect_err("share a buffer");
    assert!(matches!(error, Error::AliasedBuffers { output: "output", input: "input" }), "{error}");
    // Nor may a tensor be what a binding keeps in scratch memory.
    let uses = uses(context(), 2);
    let one = uses.iter().find(|one| one.name == "DCD bind").expect("is a use");
    let first = tensors(&one.operands, 1, 0);
    let bound = (one.call)(&first.iter().collect::<Vec<_>>()).expect("is right").bound;
    let bound = bound.expect("binds");
    let own = bound.scratch().map(|(_, own)| own).max_by_key(|own| own.buffer().size());
    let own = own.expect("has some");
    let own = Tensor::wrap(context(), own.buffer(), 0, first[0].shape()).expect("fits");
    let error = bound.rebind(&[(&first[0], &own)]).expect_err("is scratch memory");
    assert!(matches!(error, Error::AliasedBuffers { input: "input", .. }), "{error}");
}
