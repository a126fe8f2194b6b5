//! Lints over naga's IR: what no validator asks of a shader, but this library does. Each has fixtures that it must find, and others that it must not.

mod barriers;
mod division;
mod flow;
mod indexing;
mod stores;

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo};

use crate::shaders::compile;

/// What all lints find.
pub(crate) fn findings(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let mut found: Vec<String> = barriers::stray_barriers(module, info).into_iter().map(str::to_owned).collect();
    found.extend(indexing::dynamic_indices(module, info));
    found.extend(division::wild_divisors(module, info));
    found.extend(stores::unguarded_stores(module, info));
    found
}

/// A module that naga has no objection to.
fn fixture(source: &str) -> (Module, ModuleInfo) {
    compile(source, Capabilities::empty())
}

/// A fixture from the body of its entry point, and helpers before it. There are `params` (`n`, `m`), `data` to read and `out` to write.
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
