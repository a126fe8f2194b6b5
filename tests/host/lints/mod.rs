//! Lints over naga's IR: what no validator asks of a shader, but this library does. Each has
//! fixtures that it must find, and others that it must not.

mod barriers;
mod division;
mod flow;
mod indexing;
mod stores;

use dynconv::kernels::Kernel;
use dynconv_suite::variants::variants;
use naga::Module;
use naga::valid::{Capabilities, ModuleInfo};

use crate::shaders::compile;

/// What all lints find.
pub(crate) fn findings(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let mut found: Vec<String> =
        barriers::stray_barriers(module, info).into_iter().map(str::to_owned).collect();
    found.extend(indexing::dynamic_indices(module, info));
    found.extend(division::wild_divisors(module, info));
    found.extend(stores::unguarded_stores(module, info));
    found
}

/// A module that naga has no objection to.
fn fixture(source: &str) -> (Module, ModuleInfo) {
    compile(source, Capabilities::empty())
}

/// A fixture from the body of its entry point, and helpers before it. There are `params` (`n`,
/// `m`), `data` to read and `out` to write.
fn fixture_of(helpers: &str, body: &str) -> (Module, ModuleInfo) {
    fixture(&format!(
        "struct Params {{ n: u32, m: u32 }}
         @group(0) @binding(0) var<uniform> params: Params;
         @group(0) @binding(1) var<storage, read> data: array<u32>;
         @group(0) @binding(2) var<storage, read_write> out: array<u32>;
         @group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;
         var<workgroup> shared_data: array<u32, 64>;
         {helpers}
         @compute @workgroup_size(64)
         fn main(
             @builtin(global_invocation_id) global: vec3<u32>,
             @builtin(workgroup_id) group: vec3<u32>,
             @builtin(num_workgroups) grid: vec3<u32>,
             @builtin(local_invocation_index) lane: u32,
         ) {{ {body} }}"
    ))
}

/// The lints find in kernels, too, what they find in fixtures: guards taken out, a divisor of one's
/// own.
#[test]
fn faults_in_kernels_are_found() {
    let unguarded = |by: &str| format!("a store whose index depends on {by}, which nothing bounds");
    let faults = [
        (
            Kernel::ConvDirect,
            "index >= params.batch * channels * size",
            "false",
            unguarded("the workgroup and the invocation"),
        ),
        (Kernel::AttentionMlp, "b >= params.batch", "false", unguarded("the workgroup")),
        (Kernel::Aggregate, "i >= params.sample_stride", "false", unguarded("the invocation")),
        (
            Kernel::Demodulate,
            "index / row",
            "index / lane",
            "a divisor made of the invocation".into(),
        ),
        (
            Kernel::AveragePool,
            "if number >= params.planes",
            "if lane + number >= params.planes",
            "a barrier that some do not reach".into(),
        ),
    ];
    let variants = variants();
    for (kernel, original, planted, expected) in faults {
        let source = variants
            .iter()
            .find(|d| d.variant.kernel == kernel)
            .expect("is a variant")
            .variant
            .source();
        assert!(source.contains(original), "{original:?} is not in {}", kernel.name());
        let (module, info) = compile(&source.replace(original, planted), Capabilities::empty());
        let found = findings(&module, &info);
        assert!(found.contains(&expected), "{original:?} -> {planted:?}: {found:?}");
    }
}
