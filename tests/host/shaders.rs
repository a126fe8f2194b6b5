//! Every kernel variant that plans contain, through naga: it parses, needs no capability, and agrees with the host about
//! workgroup size, workgroup memory, bindings and the parameter block.

use crate::common;

use std::collections::HashSet;

use dynconv::plan::{AttentionSource, Branch, ConvChoice, Plan, Problem};
use dynconv::{Activation, Caps, Dispatch, Kernel, wgpu};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};

/// Dispatches of all variants that the test cases give, each variant once.
fn variants() -> Vec<Dispatch> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let mut geometries: Vec<_> =
        common::cases_2d().iter().map(|c| (c.desc.geometry(), c.input(), c.choices())).collect();
    geometries.extend(common::cases_1d().iter().map(|c| (c.desc.geometry(), c.input(), c.choices())));
    geometries.extend(common::cases_3d().iter().map(|c| (c.desc.geometry(), c.input(), c.choices())));
    for (geometry, input, choices) in geometries {
        let geometry = geometry.expect("valid");
        for attention in attentions(geometry.kernels) {
            for kernel in &choices {
                for has_bias in [false, true] {
                    let problem = Problem {
                        geometry,
                        batch: 3,
                        input,
                        attention,
                        has_bias,
                        has_affine: has_bias,
                        activation: if has_bias { Activation::Relu } else { Activation::None },
                        kernel: *kernel,
                    };
                    let plan = Plan::new(&problem, &Caps::webgpu_default()).expect("default limits are enough");
                    all.extend(plan.dispatches().iter().filter(|d| seen.insert(d.variant.clone())).cloned());
                }
            }
        }
    }
    all
}

fn attentions(kernels: usize) -> Vec<AttentionSource> {
    let branch = |gains: bool, mix: bool| {
        AttentionSource::Branch(Branch {
            hidden: 16,
            temperature: 1.0,
            channel: gains,
            filter: gains,
            spatial: gains,
            mix,
        })
    };
    let mut all = vec![AttentionSource::Given, branch(true, true), branch(false, true)];
    if kernels == 1 {
        all.push(AttentionSource::Static);
        all.push(AttentionSource::Branch(Branch {
            hidden: 3,
            temperature: 1.0,
            channel: true,
            filter: true,
            spatial: false,
            mix: false,
        }));
    }
    all
}

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
    println!("{} variants", variants.len());
    assert!(variants.len() > 100);
    for dispatch in variants {
        let (module, info) = parse(&dispatch);
        let label = dispatch.variant.label();
        assert_eq!(module.entry_points.len(), 1, "{label}");
        assert_eq!(module.overrides.len(), 0, "{label}");
        let entry = &module.entry_points[0];
        assert_eq!(entry.name, "main", "{label}");
        assert_eq!(entry.workgroup_size, [dispatch.workgroup_size, 1, 1], "{label}");
        assert_eq!(workgroup_memory(&module), dispatch.workgroup_memory, "{label}");
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

#[test]
fn a_variant_past_a_limit_is_refused_on_the_host() {
    let case = common::cases_2d()[17];
    let problem = |hidden| Problem {
        geometry: case.desc.geometry().expect("valid"),
        batch: 1,
        input: case.input(),
        attention: AttentionSource::Branch(Branch {
            hidden,
            temperature: 1.0,
            channel: false,
            filter: false,
            spatial: false,
            mix: true,
        }),
        has_bias: false,
        has_affine: false,
        activation: Activation::None,
        kernel: ConvChoice::Tiled,
    };
    let refused = |problem: &Problem, lower: &dyn Fn(&mut Caps)| {
        let mut caps = Caps::webgpu_default();
        Plan::new(problem, &caps).expect("fits the default limits");
        lower(&mut caps);
        Plan::new(problem, &caps).expect_err("is past the limit").to_string()
    };
    let message = refused(&problem(8), &|caps| caps.max_invocations = 32);
    assert!(message.contains("max_compute_invocations_per_workgroup is 32"), "{message}");
    let message = refused(&problem(4000), &|caps| caps.max_workgroup_memory = 16_000);
    assert_eq!(
        message,
        "workgroup memory of attention_mlp needs 16012, but max_compute_workgroup_storage_size is 16000; choose another kernel"
    );
    let message = refused(&problem(8), &|caps| caps.max_storage_buffers = 4);
    assert!(message.contains("max_storage_buffers_per_shader_stage is 4"), "{message}");
    assert_eq!(Caps::webgpu_default().backend, wgpu::Backend::Noop);
}
