//! What the host says of a variant, held against the shader: workgroup size and memory, bindings
//! and their access, the parameter block; and the limits that every WebGPU device keeps.

use dynconv::Caps;
use dynconv::kernels::{Dispatch, Kernel};
use dynconv_suite::variants::variants;
use naga::proc::Layouter;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo};
use naga::{AddressSpace, Module, StorageAccess, TypeInner};

use crate::shaders::compile;

/// Everything about which shader and host disagree, and every limit that is passed.
pub(crate) fn faults(dispatch: &Dispatch, module: &Module, info: &ModuleInfo) -> Vec<String> {
    let mut faults = Vec::new();
    entry_point(dispatch, module, &mut faults);
    workgroup_memory(dispatch, module, &mut faults);
    bindings(dispatch, module, info, &mut faults);
    parameters(dispatch, module, &mut faults);
    faults
}

fn entry_point(dispatch: &Dispatch, module: &Module, faults: &mut Vec<String>) {
    // Profilers, and drivers' messages, know a shader by this name.
    if module.entry_points.len() != 1
        || module.entry_points[0].name != dispatch.variant.kernel.name()
    {
        faults.push("not one entry point of the kernel's name".into());
    }
    if !module.overrides.is_empty() {
        faults.push("an override".into());
    }
    let size = module.entry_points[0].workgroup_size;
    if size != [dispatch.workgroup_size, 1, 1] {
        faults.push(format!("the workgroup is {size:?}, on the host {}", dispatch.workgroup_size));
    }
    let (invocations, limit) =
        (size.iter().product::<u32>(), Caps::webgpu_default().max_invocations);
    if invocations > limit {
        faults.push(format!("{invocations} invocations are past {limit}"));
    }
}

fn workgroup_memory(dispatch: &Dispatch, module: &Module, faults: &mut Vec<String>) {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("types have a layout");
    let of_workgroup =
        module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    let bytes: u32 = of_workgroup.map(|(_, variable)| layouter[variable.ty].size).sum();
    if bytes != dispatch.workgroup_memory {
        faults.push(format!(
            "workgroup memory is {bytes} bytes, on the host {}",
            dispatch.workgroup_memory
        ));
    }
    let limit = Caps::webgpu_default().max_workgroup_memory;
    if bytes > limit {
        faults.push(format!("{bytes} bytes of workgroup memory are past {limit}"));
    }
}

fn bindings(dispatch: &Dispatch, module: &Module, info: &ModuleInfo, faults: &mut Vec<String>) {
    let host = dispatch.variant.kernel.def().storage;
    let mut found = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        let number = binding.binding;
        found.push((binding.group, number));
        let uses = info.get_entry_point(0)[handle];
        if uses.is_empty() {
            faults.push(format!("binding {number} is not used"));
        }
        match variable.space {
            AddressSpace::Uniform if number == 0 => {}
            AddressSpace::Storage { access } if number > 0 => {
                let is_writable = access.contains(StorageAccess::STORE);
                if host.get(number as usize - 1).is_some_and(|&writes| writes != is_writable) {
                    faults
                        .push(format!("host and shader do not agree who writes binding {number}"));
                }
                if is_writable && !uses.contains(GlobalUse::WRITE) {
                    faults.push(format!("binding {number} is writable but not written"));
                }
            }
            space => faults.push(format!("binding {number} is in {space:?}")),
        }
    }
    found.sort_unstable();
    let expected: Vec<_> = (0..).take(host.len() + 1).map(|number| (0, number)).collect();
    if found != expected {
        faults.push(format!("bindings (group, number) are {found:?}, on the host {expected:?}"));
    }
    if dispatch.slices.len() != host.len() {
        faults.push(format!(
            "the dispatch binds {} operands, the definition {}",
            dispatch.slices.len(),
            host.len()
        ));
    }
    let limit = Caps::webgpu_default().max_storage_buffers as usize;
    if found.len() > limit + 1 {
        faults.push(format!("{} storage buffers are past {limit}", found.len() - 1));
    }
}

/// The parameter block has the size of the shader's struct, every member is a 32-bit scalar in its
/// place, and the first members are the base elements of the storage bindings, in their order.
fn parameters(dispatch: &Dispatch, module: &Module, faults: &mut Vec<String>) {
    let block = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform);
    let inner = block.map(|(_, params)| &module.types[params.ty].inner);
    let Some(TypeInner::Struct { members, span }) = inner else {
        faults.push("parameters are no struct".into());
        return;
    };
    if *span as usize != dispatch.params.len() {
        faults.push(format!(
            "the parameter block has {span} bytes, on the host {}",
            dispatch.params.len()
        ));
    }
    for (i, member) in members.iter().enumerate() {
        let is_word =
            matches!(module.types[member.ty].inner, TypeInner::Scalar(scalar) if scalar.width == 4);
        if member.offset as usize != 4 * i || !is_word {
            faults.push(format!("parameter {i} is not 32 bits in its place"));
        }
    }
    let mut storage: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, v)| {
            v.binding
                .filter(|b| b.binding > 0)
                .map(|b| (b.binding, v.name.as_deref().unwrap_or("")))
        })
        .collect();
    storage.sort_unstable();
    for ((number, name), member) in storage.iter().zip(members) {
        if member.name.as_deref() != Some(format!("{name}_base").as_str()) {
            faults.push(format!(
                "parameter {} is not the base element of binding {number}",
                number - 1
            ));
        }
    }
}

/// A dispatch of a kernel without workgroup memory, whose shader is short.
fn softmax() -> Dispatch {
    let dispatch = variants()
        .into_iter()
        .find(|d| d.variant.kernel == Kernel::ChannelSoftmax)
        .expect("is a variant");
    assert_eq!(
        (dispatch.workgroup_size, dispatch.params.len()),
        (64, 24),
        "the fixtures count on it"
    );
    dispatch
}

/// The faults of a dispatch whose shader has one text in place of another.
fn faults_with(dispatch: &Dispatch, original: &str, planted: &str) -> Vec<String> {
    let source = dispatch.variant.source();
    assert!(source.contains(original), "{original:?} is not in the shader");
    let (module, info) = compile(&source.replace(original, planted), Capabilities::empty());
    faults(dispatch, &module, &info)
}

#[test]
fn planted_disagreements_are_found() {
    let dispatch = softmax();
    let begin = "@compute";
    let cases: [(&str, &str, &[&str]); 15] = [
        ("", "", &[]),
        ("fn channel_softmax", "fn start", &["not one entry point of the kernel's name"]),
        (begin, "override spare: u32 = 1u; @compute", &["an override"]),
        (
            "size(WORKGROUP)",
            "size(2u * WORKGROUP)",
            &["the workgroup is [128, 1, 1], on the host 64"],
        ),
        (
            "size(WORKGROUP)",
            "size(WORKGROUP, 2, 4)",
            &["the workgroup is [64, 2, 4], on the host 64", "512 invocations are past 256"],
        ),
        (
            begin,
            "var<workgroup> spare: vec3<f32>; @compute",
            &["workgroup memory is 12 bytes, on the host 0"],
        ),
        (
            begin,
            "var<workgroup> spare: array<vec4<f32>, 1025>; @compute",
            &[
                "workgroup memory is 16400 bytes, on the host 0",
                "16400 bytes of workgroup memory are past 16384",
            ],
        ),
        (
            "storage, read> logits",
            "storage, read_write> logits",
            &[
                "host and shader do not agree who writes binding 1",
                "binding 1 is writable but not written",
            ],
        ),
        (
            "maps[params.maps_base + first + k * params.size] =",
            "let unused = maps[0] +",
            &["binding 2 is writable but not written"],
        ),
        (
            begin,
            "@group(0) @binding(4) var<storage, read> spare: array<f32>; @compute",
            &[
                "binding 4 is not used",
                "bindings (group, number) are [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)], \
                 on the host [(0, 0), (0, 1), (0, 2), (0, 3)]",
                "parameter 3 is not the base element of binding 4",
            ],
        ),
        (
            "@group(0) @binding(1)",
            "@group(1) @binding(1)",
            &["bindings (group, number) are [(0, 0), (0, 2), (0, 3), (1, 1)], on the host \
               [(0, 0), (0, 1), (0, 2), (0, 3)]"],
        ),
        (
            "size: u32,",
            "size: u32, spare: u32,",
            &["the parameter block has 28 bytes, on the host 24"],
        ),
        (
            "    channels: u32,",
            "    @size(8) channels: u32,",
            &[
                "the parameter block has 28 bytes, on the host 24",
                "parameter 5 is not 32 bits in its place",
            ],
        ),
        ("logits_base", "first_base", &["parameter 0 is not the base element of binding 1"]),
        (
            "var<uniform> params",
            "var<storage, read> params",
            &[
                "binding 0 is in Storage { access: StorageAccess(LOAD) }",
                "parameters are no struct",
            ],
        ),
    ];
    for (original, planted, expected) in cases {
        assert_eq!(
            faults_with(&dispatch, original, planted),
            expected,
            "{original:?} -> {planted:?}"
        );
    }
}

#[test]
fn too_many_storage_buffers_are_found() {
    let declarations = |last: u32| -> String {
        let spare =
            |n| format!("@group(0) @binding({n}) var<storage, read> spare{n}: array<f32>;\n");
        (4..=last).map(spare).chain(["@compute".into()]).collect()
    };
    let dispatch = softmax();
    let passed = |last| {
        faults_with(&dispatch, "@compute", &declarations(last)).join("\n").contains("past 8")
    };
    assert_eq!([8, 9].map(passed), [false, true]);
}

#[test]
fn a_dispatch_that_binds_too_little_is_found() {
    let mut dispatch = softmax();
    dispatch.slices.pop();
    assert_eq!(faults_with(&dispatch, "", ""), ["the dispatch binds 2 operands, the definition 3"]);
}
