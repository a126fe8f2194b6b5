//! Every kernel variant that plans contain, in every element type, through naga: it parses, needs
//! just the capabilities of its element types, and neither host, limits nor lints have anything
//! against it.

use crate::common;

use std::collections::HashSet;
use std::thread;

use dynconv::Algorithm;
use dynconv::kernels::{Const, Dispatch, Kernel, Slot};
use dynconv::problem::{AttentionSource, Branch, Mixing, Parts, Problem};
use dynconv::program::Plan;
use dynconv::{Caps, Elem};
use dynconv_suite::variants::{elem_variants, lane_variants, matrix_variants, variants};
use naga::Module;
use naga::valid::{
    Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};

use crate::common::ACTIVATIONS;
use crate::{emission, interface, lints};

/// A variant, through naga's front end.
pub(crate) struct Compiled {
    pub(crate) dispatch: Dispatch,
    pub(crate) module: Module,
    pub(crate) info: ModuleInfo,
    pub(crate) capabilities: Capabilities,
}

impl Compiled {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        let capabilities = capabilities(&dispatch);
        let (module, info) = compile(&dispatch.variant.source(), capabilities);
        Self { dispatch, module, info, capabilities }
    }

    pub(crate) fn label(&self) -> String {
        self.dispatch.variant.label()
    }
}

/// Every variant.
fn compiled() -> Vec<Compiled> {
    let mut seen = HashSet::new();
    let mut all = [variants(), elem_variants(), lane_variants(), matrix_variants()].concat();
    all.retain(|dispatch| seen.insert(dispatch.variant.clone()));
    on_all_processors(&all, |part| part.iter().cloned().map(Compiled::new).collect())
}

/// Gives each processor a part of the work, and joins what comes of it.
pub(crate) fn on_all_processors<T: Sync, R: Send>(
    all: &[T],
    work: impl Fn(&[T]) -> Vec<R> + Sync,
) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let parts = all.chunks(all.len().div_ceil(processors).max(1));
        let workers: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a part of the work failed"))
            .collect()
    })
}

/// Parses and validates.
pub(crate) fn compile(source: &str, capabilities: Capabilities) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|e| panic!("{}\n{source}", e.emit_to_string(source)));
    let info = validator(capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}\n{source}", e.emit_to_string(source)));
    (module, info)
}

/// A validator of compute shaders.
fn validator(capabilities: Capabilities) -> Validator {
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all());
    validator
}

#[test]
fn the_host_knows_every_variant() {
    let variants = [variants(), lane_variants(), matrix_variants()].concat();
    for &kernel in Kernel::ALL {
        assert!(
            variants.iter().any(|d| d.variant.kernel == kernel),
            "no case reaches {}",
            kernel.name()
        );
    }
    let constants: HashSet<_> = variants.iter().flat_map(|d| d.variant.consts.clone()).collect();
    for (number, activation) in (0..).zip(ACTIVATIONS) {
        assert!(
            constants.contains(&("ACTIVATION", Const::U32(number))),
            "no case reaches {activation:?}"
        );
    }
    for number in 0..5 {
        assert!(constants.contains(&("MAP", Const::U32(number))), "no case reaches map {number}");
    }
    let options = [
        "TRANSPOSED",
        "X_NHWC",
        "Y_NHWC",
        "HAS_RESIDUAL",
        "CELLS",
        "HAS_HIDDEN",
        "DEMODULATE",
        "CONTINUES",
        "ENDS",
    ];
    for name in options {
        let reached = [false, true].map(|value| constants.contains(&(name, Const::Bool(value))));
        assert_eq!(reached, [true; 2], "no case reaches both values of {name}");
    }
}

/// All that holds for every variant, in one test: most of the time goes into reading them.
#[test]
fn every_variant_is_sound() {
    let all = &compiled();
    let check = |variant: &Compiled| {
        host_and_lints_agree(variant);
        needs_just_its_capabilities(variant);
        emission::is_written_in_every_language(variant);
    };
    on_all_processors(all, |part| part.iter().map(check).collect::<Vec<()>>());
    let declared: HashSet<_> = all.iter().map(|variant| variant.capabilities.bits()).collect();
    assert_eq!(
        declared.len(),
        15,
        "f16: none, each, and both; without lanes, with 64-bit integers (which f16 on both sides \
         never has), with both, and with matrices"
    );
    emission::all_are_valid_spirv(all);
}

fn host_and_lints_agree(variant: &Compiled) {
    let (dispatch, module, info) = (&variant.dispatch, &variant.module, &variant.info);
    assert_eq!(interface::faults(dispatch, module, info), [""; 0], "{}", variant.label());
    assert_eq!(lints::findings(module, info), [""; 0], "{}", variant.label());
}

fn needs_just_its_capabilities(variant: &Compiled) {
    let validates = |with| validator(with).validate(&variant.module).is_ok();
    for one in variant.capabilities.iter() {
        assert!(
            !validates(variant.capabilities - one),
            "{} does not need {one:?}",
            variant.label()
        );
    }
}

/// What the kernel and the element types of a variant ask of a device.
fn capabilities(dispatch: &Dispatch) -> Capabilities {
    let def = dispatch.variant.kernel.def();
    let mut all = Capabilities::empty();
    all.set(Capabilities::SUBGROUP, def.lanes || def.matrices);
    all.set(Capabilities::COOPERATIVE_MATRIX, def.matrices);
    // Loads and stores of several elements at once: not all that has lanes has such.
    all.set(Capabilities::SHADER_INT64, dispatch.variant.source().contains("u64"));
    if dispatch.variant.knows_f16() {
        all |= Capabilities::SHADER_FLOAT16;
    }
    for (slot, elem) in def.slots.iter().zip(&dispatch.variant.elems) {
        all |= match (slot, elem) {
            (_, Elem::F32) | (Slot::Bank, Elem::Bf16Storage) | (Slot::X | Slot::Y, Elem::F16) => {
                Capabilities::empty()
            }
            _ => Capabilities::SHADER_FLOAT16_IN_FLOAT32,
        };
    }
    all
}

/// Every slot of every kernel is there in each element type that it can have.
#[test]
fn element_types_reach_every_slot() {
    let reached: HashSet<_> = [elem_variants(), lane_variants(), matrix_variants()]
        .concat()
        .iter()
        .flat_map(|d| {
            let slots = d.variant.kernel.def().slots.iter().zip(&d.variant.elems);
            slots.map(|(slot, elem)| (d.variant.kernel, *slot, *elem)).collect::<Vec<_>>()
        })
        .collect();
    for &kernel in Kernel::ALL {
        for slot in kernel.def().slots {
            let narrow = match slot {
                Slot::Bank => [Elem::F16Storage, Elem::Bf16Storage],
                Slot::X | Slot::Y => [Elem::F16Storage, Elem::F16],
            };
            for elem in [Elem::F32].into_iter().chain(narrow) {
                assert!(
                    reached.contains(&(kernel, *slot, elem)),
                    "no {elem:?} as {slot:?} of {}",
                    kernel.name()
                );
            }
        }
    }
}

#[test]
fn a_variant_past_a_limit_is_refused_on_the_host() {
    let case = common::cases_2d()[17];
    let problem = |hidden| {
        let parts = Parts { mix: true, ..Parts::default() };
        let branch = Branch { context: None, hidden: Some(hidden), parts, mixing: Mixing::Softmax };
        let attention = AttentionSource::Branch(branch);
        Problem {
            attention,
            algorithm: Algorithm::ConvTiled,
            ..Problem::new(case.geometry(), 1, case.input())
        }
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
        "workgroup memory of attention_mlp needs 16012 bytes (15.6 KiB), but \
         max_compute_workgroup_storage_size is 15000 bytes (14.6 KiB); \
         request the device with a larger limit"
    );
    let message = refused(&problem(8), &|caps| caps.max_storage_buffers = 4);
    assert!(message.contains("max_storage_buffers_per_shader_stage is 4"), "{message}");
}
