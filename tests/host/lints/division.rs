//! Integers are divided by constants and by what the host put in the parameter block, and by
//! nothing else. WGSL defines x / 0, but as something that no kernel wants, and the host can only
//! see to it that a divisor is not zero if it knows it.
//!
//! This proves that no divisor is computed from memory or from the number of an invocation,
//! whatever path leads there. It does not prove that a divisor is not zero: that is for the host,
//! which checks geometries.

use naga::valid::ModuleInfo;
use naga::{BinaryOperator, Expression, Module, ScalarKind};

use super::flow::{Flow, Sources};

/// Divisors that depend on more than constants and parameters.
pub(crate) fn wild_divisors(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let mut found = Vec::new();
    for frame in Flow::new(module, info).frames() {
        for (_, expression) in frame.function.expressions.iter() {
            let Expression::Binary {
                op: BinaryOperator::Divide | BinaryOperator::Modulo,
                right,
                ..
            } = *expression
            else {
                continue;
            };
            let kind = frame.info[right].ty.inner_with(&module.types).scalar_kind();
            let is_integer = matches!(kind, Some(ScalarKind::Uint | ScalarKind::Sint));
            if is_integer && frame.of(right).is_wild() {
                found.push(format!(
                    "a divisor made of {}",
                    (frame.of(right) & Sources::WILD).names()
                ));
            }
        }
    }
    found
}

#[test]
fn wild_divisors_are_found() {
    let helpers = "const FOUR = 4u;
                   fn over(a: u32, b: u32) -> u32 { return a / b; }
                   fn sum() -> u32 { return params.n + grid_rows; }
                   const grid_rows = 2u;";
    let fixtures: [(&str, &[&str]); 13] = [
        ("out[0] = lane / FOUR + lane % 3u;", &[]),
        ("out[0] = lane / params.n % (params.m * FOUR);", &[]),
        ("out[0] = over(lane, params.n) + over(lane, 2u) + lane / sum() + lane % grid.x;", &[]),
        ("for (var half = 32u; half > 0u; half /= 2u) { out[half] = 1u; }", &[]),
        ("out[0] = u32(1.0 / f32(data[lane]));", &[]),
        ("out[0] = 7u / data[0];", &["a divisor made of data"]),
        ("out[0] = 7u % lane;", &["a divisor made of the invocation"]),
        ("out[0] = u32(7 / i32(group.x + 1u));", &["a divisor made of the workgroup"]),
        (
            "out[0] = (global.xy / global.yz).x;",
            &["a divisor made of the workgroup and the invocation"],
        ),
        ("out[0] = over(8u, 2u) + over(8u, data[1]);", &["a divisor made of data"]),
        ("var d = params.n; d += shared_data[0]; out[0] = 9u / d;", &["a divisor made of data"]),
        ("var d = 9u; d /= lane + 1u; out[0] = d;", &["a divisor made of the invocation"]),
        ("out[0] = 9u % atomicLoad(&counts[0]);", &["a divisor made of data"]),
    ];
    for (body, expected) in fixtures {
        let (module, info) = super::fixture_of(helpers, body);
        assert_eq!(wild_divisors(&module, &info), expected, "{body}");
    }
}
