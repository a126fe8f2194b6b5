//! Every kernel variant that plans contain, through naga: it parses, needs no capability but those of its element types, and agrees with the host about
//! workgroup size, workgroup memory, bindings and the parameter block.

use crate::common;

use std::collections::HashSet;

use dynconv::plan::{AttentionSource, Branch, ConvChoice, Mixing, Parts, Plan, Problem};
use dynconv::{Caps, Const, Dispatch, Elem, Kernel, Slot};
use dynconv_suite::variants::{element_types, variants};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};

use crate::barriers::stray_barriers;
use crate::common::ACTIVATIONS;

fn parse(dispatch: &Dispatch) -> (Module, ModuleInfo) {
    let source = dispatch.variant.source();
    let label = dispatch.variant.label();
    let module =
        naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|e| panic!("{label}: {}", e.emit_to_string(&source)));
    (module, info)
}

#[test]
fn the_host_knows_every_variant() {
    let variants = variants();
    for kernel in Kernel::ALL {
        assert!(variants.iter().any(|d| d.variant.kernel == kernel), "no case reaches {}", kernel.name());
    }
    let constants: HashSet<_> = variants.iter().flat_map(|d| d.variant.consts.clone()).collect();
    for (number, activation) in (0..).zip(ACTIVATIONS) {
        assert!(constants.contains(&("ACTIVATION", Const::U32(number))), "no case reaches {activation:?}");
    }
    for number in 0..5 {
        assert!(constants.contains(&("MAP", Const::U32(number))), "no case reaches map {number}");
    }
    let options =
        ["TRANSPOSED", "X_NHWC", "Y_NHWC", "HAS_RESIDUAL", "CELLS", "HAS_HIDDEN", "DEMODULATE", "CONTINUES", "ENDS"];
    for name in options {
        let reached = [false, true].map(|value| constants.contains(&(name, Const::Bool(value))));
        assert_eq!(reached, [true; 2], "no case reaches both values of {name}");
    }
    for dispatch in variants {
        let (module, info) = parse(&dispatch);
        let label = dispatch.variant.label();
        assert_eq!(module.entry_points.len(), 1, "{label}");
        assert_eq!(module.overrides.len(), 0, "{label}");
        let entry = &module.entry_points[0];
        assert_eq!(entry.name, "main", "{label}");
        assert_eq!(entry.workgroup_size, [dispatch.workgroup_size, 1, 1], "{label}");
        assert_eq!(workgroup_memory(&module), dispatch.workgroup_memory, "{label}");
        assert_eq!(stray_barriers(&module, &info), [""; 0], "{label}");
        check_bindings(&dispatch, &module, &info);
        check_params(&dispatch, &module);
    }
}

fn workgroup_memory(module: &Module) -> u32 {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("types have a layout");
    let of_workgroup = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    of_workgroup.map(|(_, variable)| layouter[variable.ty].size).sum()
}

/// Bindings are those of the definition, all are used, and only what is written is writable.
fn check_bindings(dispatch: &Dispatch, module: &Module, info: &ModuleInfo) {
    let label = dispatch.variant.label();
    let storage = dispatch.variant.kernel.def().storage;
    let mut bindings = 0;
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        bindings += 1;
        assert_eq!(binding.group, 0, "{label}");
        assert!(!info.get_entry_point(0)[handle].is_empty(), "{label}: binding {} is not used", binding.binding);
        match variable.space {
            AddressSpace::Uniform => assert_eq!(binding.binding, 0, "{label}"),
            AddressSpace::Storage { access } => {
                let writes = storage[binding.binding as usize - 1];
                assert_eq!(access.contains(StorageAccess::STORE), writes, "{label}: binding {}", binding.binding);
            }
            space => panic!("{label}: binding {} is in {space:?}", binding.binding),
        }
    }
    assert_eq!(bindings, storage.len() + 1, "{label}");
    assert_eq!(dispatch.slices.len(), storage.len(), "{label}");
}

/// The parameter block has the size of the shader's struct, every member is a 32-bit scalar in its place, and the first
/// members are the base elements of the storage bindings, in their order.
fn check_params(dispatch: &Dispatch, module: &Module) {
    let label = dispatch.variant.label();
    let (_, params) =
        module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform).expect("has parameters");
    let naga::TypeInner::Struct { members, span } = &module.types[params.ty].inner else {
        panic!("{label}: parameters are no struct");
    };
    assert_eq!(*span as usize, dispatch.params.len(), "{label}");
    for (i, member) in members.iter().enumerate() {
        assert_eq!(member.offset as usize, 4 * i, "{label}");
        assert!(module.types[member.ty].inner.scalar().is_some_and(|s| s.width == 4), "{label}");
    }
    let mut storage: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, v)| v.binding.filter(|b| b.binding > 0).map(|b| (b.binding, v.name.clone().expect("named"))))
        .collect();
    storage.sort();
    for ((_, name), member) in storage.iter().zip(members) {
        assert_eq!(member.name.as_deref(), Some(format!("{name}_base").as_str()), "{label}");
    }
}

/// What the element types of a variant ask of a device.
fn capabilities(dispatch: &Dispatch) -> Capabilities {
    let mut all = Capabilities::empty();
    for (slot, elem) in dispatch.variant.kernel.def().slots.iter().zip(&dispatch.variant.elems) {
        all |= match (slot, elem) {
            (_, Elem::F32) | (Slot::Bank, Elem::Bf16Storage) => Capabilities::empty(),
            (Slot::X | Slot::Y, Elem::F16) => Capabilities::SHADER_FLOAT16,
            _ => Capabilities::SHADER_FLOAT16_IN_FLOAT32,
        };
    }
    all
}

#[test]
fn element_types_need_just_their_capabilities() {
    let mut declared = HashSet::new();
    for dispatch in element_types() {
        let needed = capabilities(&dispatch);
        let label = dispatch.variant.label();
        let module = naga::front::wgsl::parse_str(&dispatch.variant.source()).expect("parses");
        let validate = |with| Validator::new(ValidationFlags::all(), with).validate(&module).is_ok();
        assert!(validate(needed), "{label} is not valid with {needed:?}");
        for one in needed.iter() {
            assert!(!validate(needed - one), "{label} does not need {one:?}");
        }
        declared.insert(needed.bits());
    }
    assert_eq!(declared.len(), 4, "none, each, and both");
}

#[test]
fn a_variant_past_a_limit_is_refused_on_the_host() {
    let case = common::cases_2d()[17];
    let problem = |hidden| {
        let parts = Parts { mix: true, ..Parts::default() };
        let branch = Branch { hidden: Some(hidden), temperature: 1.0, parts, mixing: Mixing::Softmax };
        let attention = AttentionSource::Branch(branch);
        Problem { attention, kernel: ConvChoice::Tiled, ..Problem::new(case.geometry(), 1, case.input()) }
    };
    let refused = |problem: &Problem, lower: &dyn Fn(&mut Caps)| {
        let mut caps = Caps::webgpu_default();
        Plan::new(problem, &caps).expect("fits the default limits");
        lower(&mut caps);
        Plan::new(problem, &caps).expect_err("is past the limit").to_string()
    };
    let message = refused(&problem(8), &|caps| caps.max_invocations = 32);
    assert!(message.contains("max_compute_invocations_per_workgroup is 32"), "{message}");
    let message = refused(&problem(4000), &|caps| caps.max_workgroup_memory = 15_000);
    assert_eq!(
        message,
        "workgroup memory of attention_mlp needs 16000, but max_compute_workgroup_storage_size is 15000; request the device with a larger limit"
    );
    let message = refused(&problem(8), &|caps| caps.max_storage_buffers = 4);
    assert!(message.contains("max_storage_buffers_per_shader_stage is 4"), "{message}");
}
