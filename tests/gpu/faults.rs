//! Every law is seen to fail: for each, a fault planted in a shader that it must find.

use std::collections::HashSet;

use dynconv_suite::laws::{LAWS, Law};
use dynconv_suite::run::Fault;
use dynconv_suite::spec::Spec;

use crate::common::context;

/// The last line of what follows the sum, and its stored value.
const STORE: &str = "y_store(y_element(b, channel, position), finished(b, channel, position, sum));";

/// A store of something else than the finished value.
macro_rules! stored {
    ($instead:literal) => {
        concat!(
            "let value = finished(b, channel, position, sum); y_store(y_element(b, channel, position), ",
            $instead,
            ");"
        )
    };
}

/// Laws, problems that keep them, and the text to plant in place of another in the shader of this kernel.
const FAULTS: [(&str, &str, &str, &str, &str); 18] = [
    ("exact", "static", "conv_direct", STORE, stored!("value + 1.0")),
    ("bound", "static", "conv_direct", STORE, stored!("value * 1.0001")),
    ("attention", "odconv kernels=3", "attention_mlp", "return (sum +", "return (1.01 * sum +"),
    // The last seven bits of the sum.
    ("twin", "static", "conv_direct", STORE, stored!("bitcast<f32>(bitcast<u32>(value) & 0xffffff80u)")),
    // What a run before has left is no NaN.
    (
        "repeat",
        "static",
        "conv_direct",
        STORE,
        stored!("select(value, value + 1.0, abs(y_value(y_element(b, channel, position))) < 1e30)"),
    ),
    ("moved", "bank kernels=3 with=bias", "aggregate", "bias[params.bias_base + k * channels", "bias[k * channels"),
    // Sample 0 is the one that changes.
    ("independent", "static seed=2", "conv_direct", "input_at(b, first_input", "input_at(0u, first_input"),
    ("permute", "static", "conv_direct", STORE, stored!("value + f32(b)")),
    ("split", "static", "conv_direct", STORE, stored!("value * f32(params.batch)")),
    ("one-hot", "bank kernels=3", "aggregate", "var sum = vec4<f32>();", "var sum = vec4<f32>(0.5);"),
    ("uniform", "bank kernels=4", "aggregate", "var sum = vec4<f32>();", "var sum = vec4<f32>(0.5);"),
    ("linear-x", "static", "conv_direct", STORE, stored!("value * value")),
    ("linear-bank", "static", "conv_direct", STORE, stored!("value * value")),
    ("linear-attention", "bank kernels=3", "conv_direct", STORE, stored!("value * value")),
    ("translate", "static", "conv_direct", STORE, stored!("value + f32(position)")),
    ("blocks", "static groups=2", "conv_direct", STORE, stored!("value * f32(params.groups)")),
    ("kernels", "static", "conv_direct", STORE, stored!("value + 1.0")),
    ("adjoint", "static transposed=0x0", "conv_direct", STORE, stored!("value * select(1.0, 2.0, TRANSPOSED)")),
];

fn problem(words: &str) -> Spec {
    let line = format!("{words} batch=2 channels=4x6 input=7x9 kernel=3x2 conv=direct");
    line.parse().expect("is a problem")
}

#[test]
fn every_law_finds_its_fault() {
    for (name, words, kernel, original, planted) in FAULTS {
        let law = Law::find(name).expect("is a law");
        let spec = problem(words);
        assert!((law.applies)(&spec), "{name} says nothing about {spec}");
        if let Err(fault) = law.check(context(), &spec) {
            panic!("{name} does not hold without a fault: {fault}");
        }
        let faulty = context().clone().with_shaders(move |variant| {
            let source = variant.source();
            if variant.kernel.name() != kernel {
                return source;
            }
            assert!(source.contains(original), "{original} is not in {kernel}");
            source.replace(original, planted)
        });
        match law.check(&faulty, &spec) {
            Err(Fault::Wrong(_)) => {}
            Err(other) => panic!("{name}: {other}"),
            Ok(()) => panic!("{name} holds with \"{planted}\" in {kernel}"),
        }
    }
}

/// The remaining law is about the host: `tests/host/errors.rs` has each of its refusals.
#[test]
fn no_law_is_without_a_fault() {
    let with_fault: HashSet<&str> = FAULTS.iter().map(|fault| fault.0).collect();
    let without: Vec<&str> = LAWS.iter().map(|law| law.name).filter(|name| !with_fault.contains(name)).collect();
    assert_eq!(without, ["empty"]);
}
