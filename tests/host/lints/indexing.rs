//! No index that is computed goes into a variable or a value of one invocation: registers cannot be
//! indexed, so drivers move such an array to memory, which is slow everywhere, and some have got it
//! wrong. Indices into storage and workgroup memory are free.
//!
//! This proves that every private array, vector and matrix can stay in registers. It looks at every
//! function, called or not.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{AddressSpace, Expression, Function, Module};

/// Computed indices into what belongs to one invocation.
pub(crate) fn dynamic_indices(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let helpers = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module
        .entry_points
        .iter()
        .enumerate()
        .map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
    helpers
        .chain(entries)
        .flat_map(|(function, info)| in_function(module, function, info))
        .collect()
}

fn in_function(module: &Module, function: &Function, info: &FunctionInfo) -> Vec<String> {
    let mut found = Vec::new();
    for (_, expression) in function.expressions.iter() {
        let Expression::Access { base, index } = *expression else { continue };
        let is_constant = matches!(
            function.expressions[index],
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_)
        );
        let what = match info[base].ty.inner_with(&module.types).pointer_space() {
            None => "a value",
            Some(AddressSpace::Function) => "a local variable",
            Some(AddressSpace::Private) => "a private variable",
            Some(_) => continue,
        };
        if !is_constant {
            found.push(format!("a computed index into {what}"));
        }
    }
    found
}

#[test]
fn computed_indices_into_registers_are_found() {
    let fixtures: [(&str, &[&str]); 9] = [
        ("var a = array<u32, 4>(); a[1] = params.n; out[0] = a[1];", &[]),
        ("let i = 2u; var a = array<u32, 4>(); out[0] = a[i];", &[]),
        ("let v = vec4<u32>(params.n); out[0] = v.y + v[2];", &[]),
        ("shared_data[lane] = data[global.x]; out[global.x] = shared_data[63u - lane];", &[]),
        ("var a = array<u32, 4>(); out[0] = a[lane];", &["a computed index into a local variable"]),
        (
            "var a = array<u32, 4>(); for (var i = 0u; i < 4u; i++) { a[i] = 1u; }",
            &["a computed index into a local variable"],
        ),
        ("var v = vec4<u32>(); v[params.n] = 1u;", &["a computed index into a local variable"]),
        ("out[0] = global[params.n];", &["a computed index into a value"]),
        (
            "held[lane] = 1u; out[0] = pick(&held, 1u);",
            &["a computed index into a private variable"; 2],
        ),
    ];
    for (body, expected) in fixtures {
        let helpers = "var<private> held: array<u32, 4>;
                       fn pick(a: ptr<private, array<u32, 4>>, i: u32) -> u32 { return (*a)[i]; }";
        let (module, info) =
            super::fixture_of(if body.contains("held") { helpers } else { "" }, body);
        assert_eq!(dynamic_indices(&module, &info), expected, "{body}");
    }
}
