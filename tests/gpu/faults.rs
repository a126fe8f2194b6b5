//! Every law is seen to fail: for each, a fault planted in a shader that it must find.

use std::collections::HashSet;

use dynconv::Context;
use dynconv_suite::laws::{LAWS, Law};
use dynconv_suite::run::Fault;
use dynconv_suite::spec::Spec;

use crate::common::context;

/// The last line of what follows the sum, and its stored value.
const STORE: &str =
    "y_store(y_element(b, channel, position), epilogue(b, channel, position, sum));";

/// A store of something else than the finished value.
macro_rules! stored {
    ($instead:literal) => {
        concat!(
            "let value = epilogue(b, channel, position, sum); \
             y_store(y_element(b, channel, position), ",
            $instead,
            ");"
        )
    };
}

/// Laws, problems that keep them, and the text to plant in place of another in the shader of this
/// kernel.
const FAULTS: [(&str, &str, &str, &str, &str); 21] = [
    ("exact", "static", "conv_direct", STORE, stored!("value + 1.0")),
    ("bound", "static", "conv_direct", STORE, stored!("value * 1.0001")),
    (
        "attention",
        "odconv kernels=3",
        "attention_mlp",
        "return sum + heads",
        "return 1.01 * sum + heads",
    ),
    // The last seven bits of the sum.
    (
        "twin",
        "static",
        "conv_direct",
        STORE,
        stored!("bitcast<f32>(bitcast<u32>(value) & 0xffffff80u)"),
    ),
    // What a run before has left is no NaN.
    (
        "repeat",
        "static",
        "conv_direct",
        STORE,
        stored!("select(value, value + 1.0, abs(y_value(y_element(b, channel, position))) < 1e30)"),
    ),
    (
        "moved",
        "bank kernels=3 with=bias",
        "aggregate",
        "bias[params.bias_base + k * channels",
        "bias[k * channels",
    ),
    // Sample 0 is the one that changes.
    (
        "independent",
        "static seed=2",
        "conv_direct",
        "input_at(b, first_input",
        "input_at(0u, first_input",
    ),
    ("permute", "static", "conv_direct", STORE, stored!("value + f32(b)")),
    ("split", "static", "conv_direct", STORE, stored!("value * f32(params.batch)")),
    (
        "one-hot",
        "bank kernels=3",
        "aggregate",
        "var sum = vec4<f32>();",
        "var sum = vec4<f32>(0.5);",
    ),
    (
        "uniform",
        "bank kernels=4",
        "aggregate",
        "var sum = vec4<f32>();",
        "var sum = vec4<f32>(0.5);",
    ),
    ("linear-x", "static", "conv_direct", STORE, stored!("value * value")),
    ("linear-bank", "static", "conv_direct", STORE, stored!("value * value")),
    ("linear-attention", "bank kernels=3", "conv_direct", STORE, stored!("value * value")),
    ("translate", "static", "conv_direct", STORE, stored!("value + f32(position)")),
    ("blocks", "static groups=2", "conv_direct", STORE, stored!("value * f32(params.groups)")),
    ("kernels", "static", "conv_direct", STORE, stored!("value + 1.0")),
    (
        "adjoint",
        "static transposed=0x0",
        "conv_direct",
        STORE,
        stored!("value * select(1.0, 2.0, TRANSPOSED)"),
    ),
    ("not-finite", "static activation=relu", "conv_direct", "value, is_nan(value)", "value, false"),
    ("scaled", "modulated", "demodulate", "inverse = 1.0 / power_of_two(largest)", "inverse = 1.0"),
    (
        "cold",
        "dycnn kernels=3 seed=2",
        "attention_mlp",
        "(activations[first + k] - largest) / divisor",
        "activations[first + k] / divisor - largest / divisor",
    ),
];

/// What keeps numbers that are not finite where they are: for each, a problem, a shader, and the
/// text to plant in place of another. All break the law on NaN and infinities.
const LEAKS: [(&str, &str, &str, &str); 10] = [
    (
        "static activation=relu6 channels=2x3 kernel=1x1 conv=direct seed=3",
        "conv_direct",
        "value, is_nan(value)",
        "value, is_nan(value) || abs(value) > 1e38",
    ),
    (
        "static activation=relu6 channels=2x3 kernel=1x1 conv=direct",
        "conv_direct",
        "value, is_nan(value)",
        "value, false",
    ),
    (
        "static channels=2x3 kernel=1x1 conv=direct elems=f16_storage,f16_storage,f32",
        "conv_direct",
        "value, is_nan(value)",
        "value, false",
    ),
    (
        "static channels=2x3 kernel=1x1 conv=direct elems=f16,f16,f32",
        "conv_direct",
        "value, is_nan(value)",
        "value, false",
    ),
    (
        "dycnn channels=4x6 kernel=3x3 kernels=3 conv=direct",
        "attention_mlp",
        "value, is_nan(value)",
        "value, false",
    ),
    (
        "per_sample channels=5x11 kernel=3x3 conv=gemm_simd8",
        "conv_gemm_simd8",
        "weights, ci < params.ci_end",
        "weights, true",
    ),
    (
        "map channels=5x3 kernel=1x1 padding=0x0:9 kernels=3 conv=gemm_simd8",
        "conv_gemm_simd8",
        "return values;",
        "return select(vec4<f32>(), values, vec4<bool>(window.inside));",
    ),
    (
        "per_sample channels=5x11 kernel=1x1 conv=gemm_simd8",
        "conv_gemm_simd8",
        "weights, ci < params.ci_end",
        "weights, true",
    ),
    (
        "styled channels=4x17 kernel=3x3 padding=4x4 conv=3x3_simd8",
        "conv_3x3_simd8",
        "select(vec2<f32>(), gain * x_two(two.first + offset, two.second + offset), two.inside)",
        "gain * select(vec2<f32>(), x_two(two.first + offset, two.second + offset), two.inside)",
    ),
    (
        "styled channels=4x17 kernel=3x3 padding=4x4 conv=gemm_register",
        "conv_gemm_register",
        "return select(vec4<f32>(), four, inside);",
        "if CHANNEL_GAIN { return select(vec4<f32>(), four, inside) * \
         gains[params.gains_base + tile.b * params.gain_stride + params.channel_gain_offset \
         + tile.g * params.c_in + ci]; } \
         return select(vec4<f32>(), four, inside);",
    ),
];

fn problem(words: &str) -> Spec {
    let line = format!("{words} batch=2 channels=4x6 input=7x9 kernel=3x2 conv=direct");
    line.parse().expect("is a problem")
}

/// The context, with `planted` in place of `original` in the shader of a kernel.
fn faulty(kernel: &'static str, original: &'static str, planted: &'static str) -> Context {
    context().clone().with_shaders(move |variant| {
        let source = variant.source();
        if variant.kernel.name() != kernel {
            return source;
        }
        assert!(source.contains(original), "{original} is not in {kernel}");
        source.replace(original, planted)
    })
}

/// A law holds, and breaks with the fault.
fn finds(law: &Law, spec: &Spec, [kernel, original, planted]: [&'static str; 3]) {
    let name = law.name;
    assert!((law.applies)(spec), "{name} says nothing about {spec}");
    if let Err(fault) = law.check(context(), spec) {
        panic!("{name} does not hold without a fault: {spec}: {fault}");
    }
    match law.check(&faulty(kernel, original, planted), spec) {
        Err(Fault::Wrong(_)) => {}
        Err(other) => panic!("{name}: {spec}: {other}"),
        Ok(()) => panic!("{name} holds with \"{planted}\" in {kernel}: {spec}"),
    }
}

#[test]
fn every_law_finds_its_fault() {
    for (name, words, kernel, original, planted) in FAULTS {
        let law = Law::find(name).expect("is a law");
        finds(law, &problem(words), [kernel, original, planted]);
    }
}

#[test]
fn numbers_that_are_not_finite_leak_by_each_fault() {
    let law = Law::find("not-finite").expect("is a law");
    for (words, kernel, original, planted) in LEAKS {
        let spec: Spec = format!("{words} batch=2 input=7x9").parse().expect("is a problem");
        // Half precision and lanes are not everywhere.
        if dynconv_suite::check::is_refused(context(), &spec) {
            println!("not run on this adapter: {spec}");
            continue;
        }
        finds(law, &spec, [kernel, original, planted]);
    }
}

/// The remaining law is about the host: `tests/host/errors.rs` has each of its refusals.
#[test]
fn no_law_is_without_a_fault() {
    let with_fault: HashSet<&str> = FAULTS.iter().map(|fault| fault.0).collect();
    let without: Vec<&str> =
        LAWS.iter().map(|law| law.name).filter(|name| !with_fault.contains(name)).collect();
    assert_eq!(without, ["empty"]);
}
