//! Every variant through every back end of naga, with the options that wgpu gives: it is written,
//! and what is written has the entry point, the workgroup size and the bindings of the WGSL. SPIR-V
//! also goes through `spirv-val`, WGSL through the front end again.

use std::collections::{HashMap, HashSet};

use dynconv::Elem;
use dynconv::kernels::{Kernel, Variant};
use dynconv_suite::variants::variants;
use naga::back::{glsl, hlsl, msl, spv, wgsl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::Capabilities;
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess};

use crate::shaders::{Compiled, compile, on_all_processors};
use crate::{interface, spirv_val};

/// Shaders name their entry point after the kernel.
fn entry(variant: &Compiled) -> &'static str {
    variant.dispatch.variant.kernel.name()
}

/// The entry point in languages for which naga ends names with a line where they end in a digit;
/// wgpu asks naga for them.
fn mangled(variant: &Compiled) -> String {
    let name = entry(variant);
    let line = if name.ends_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    format!("{name}{line}")
}

/// A binding, as back ends tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Uniform,
    ReadOnly,
    ReadWrite,
}

/// Bindings in the order of their numbers.
fn bindings(module: &Module) -> Vec<(ResourceBinding, Kind)> {
    let kind = |space| match space {
        AddressSpace::Uniform => Kind::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
            Kind::ReadWrite
        }
        _ => Kind::ReadOnly,
    };
    let mut all: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, v)| Some((v.binding?, kind(v.space))))
        .collect();
    all.sort_by_key(|(binding, _)| (binding.group, binding.binding));
    all
}

/// Numbers bindings that fall in one class from 0 on, as wgpu does.
fn slots<C: PartialEq>(
    module: &Module,
    class: impl Fn(Kind) -> C,
) -> Vec<(ResourceBinding, Kind, u32)> {
    let bindings = bindings(module);
    let number = |i: usize| {
        (0..).zip(bindings[..i].iter().filter(|b| class(b.1) == class(bindings[i].1))).count()
    };
    let slot = |i: usize| u32::try_from(number(i)).expect("few bindings");
    bindings.iter().enumerate().map(|(i, &(binding, kind))| (binding, kind, slot(i))).collect()
}

fn everywhere(policy: BoundsCheckPolicy) -> BoundsCheckPolicies {
    BoundsCheckPolicies {
        index: policy,
        buffer: policy,
        image_load: policy,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

fn computes_in_f16(variant: &Compiled) -> bool {
    variant.capabilities.contains(Capabilities::SHADER_FLOAT16)
}

/// Whether a variant has subgroup operations or 64-bit integers.
fn has_lanes(variant: &Compiled) -> bool {
    variant.dispatch.variant.kernel.def().lanes
        || variant.capabilities.contains(Capabilities::SHADER_INT64)
}

/// Whether a variant has cooperative matrices, which only SPIR-V and MSL have: naga panics where it
/// should write them in HLSL or GLSL, and wgpu has no such device.
fn has_matrices(variant: &Compiled) -> bool {
    variant.dispatch.variant.kernel.def().matrices
}

/// Whether SPIR-V with matrices can be validated: the validator knows them, and there are no atomic
/// operations, beside which naga 30 does not declare `VulkanMemoryModelDeviceScope`. wgpu sees to
/// it that devices with matrices have that.
fn is_valid_with_matrices(variant: &Compiled) -> bool {
    !variant.dispatch.variant.elems.contains(&Elem::F16Storage) && spirv_val::knows_matrices()
}

/// SPIR-V for a device whose buffers check bounds themselves, or for one that needs it in the
/// shader.
fn spirv(variant: &Compiled, buffers: BoundsCheckPolicy) -> Result<Vec<u32>, spv::Error> {
    let mut capabilities = vec![spv::Capability::Shader];
    capabilities.extend(computes_in_f16(variant).then_some(spv::Capability::Float16));
    if has_lanes(variant) {
        use spv::Capability::{GroupNonUniform, GroupNonUniformShuffle, Int64};
        capabilities.extend([Int64, GroupNonUniform, GroupNonUniformShuffle]);
    }
    if has_matrices(variant) {
        use spv::Capability::{CooperativeMatrixKHR, GroupNonUniform, VulkanMemoryModel};
        capabilities.extend([CooperativeMatrixKHR, GroupNonUniform, VulkanMemoryModel]);
    }
    let options = spv::Options {
        // Cooperative matrices came with Vulkan 1.3.
        lang_version: if has_matrices(variant) { (1, 6) } else { (1, 3) },
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map: slots(&variant.module, |_| ())
            .into_iter()
            .map(|(binding, _, slot)| {
                let target = spv::BindingInfo {
                    descriptor_set: binding.group,
                    binding: slot,
                    binding_array_size: None,
                };
                (binding, target)
            })
            .collect(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            buffer: buffers,
            ..everywhere(BoundsCheckPolicy::Restrict)
        },
        // As pipelines are compiled: kernels write workgroup memory before they read it.
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry(variant).into(),
    };
    spv::write_vec(&variant.module, &variant.info, &options, Some(&pipeline))
}

/// HLSL. Registers count from 0 on in each of the classes `b`, `t` and `u`; the constants that
/// stand for the size of the dispatch follow.
fn hlsl(variant: &Compiled, shader_model: hlsl::ShaderModel) -> Result<String, hlsl::Error> {
    let slots = slots(&variant.module, |kind| kind);
    let target = |register| hlsl::BindTarget {
        register,
        restrict_indexing: true,
        ..hlsl::BindTarget::default()
    };
    let options = hlsl::Options {
        shader_model,
        binding_map: slots.iter().map(|&(binding, _, slot)| (binding, target(slot))).collect(),
        fake_missing_bindings: false,
        special_constants_binding: Some(target(1)),
        zero_initialize_workgroup_memory: false,
        ..hlsl::Options::default()
    };
    let pipeline =
        hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry(variant).into())) };
    let mut text = String::new();
    let reflection = hlsl::Writer::new(&mut text, &options, &pipeline).write(
        &variant.module,
        &variant.info,
        None,
    )?;
    assert_eq!(reflection.entry_point_names, [Ok(mangled(variant))], "{}", variant.label());
    Ok(text)
}

/// MSL. Buffers count from 0 on; the one with the sizes of the others follows them.
fn msl(variant: &Compiled) -> Result<String, msl::Error> {
    let slot = |slot: u32| u8::try_from(slot).expect("few bindings");
    let slots = slots(&variant.module, |_| ());
    let target = |kind, number| msl::BindTarget {
        buffer: Some(slot(number)),
        mutable: kind == Kind::ReadWrite,
        ..msl::BindTarget::default()
    };
    let resources = msl::EntryPointResources {
        resources: slots
            .iter()
            .map(|&(binding, kind, number)| (binding, target(kind, number)))
            .collect(),
        sizes_buffer: u8::try_from(slots.len()).ok(),
        ..msl::EntryPointResources::default()
    };
    let options = msl::Options {
        // That of macOS 10.13; subgroups, 64 bits and matrices came with macOS 11.
        lang_version: if has_lanes(variant) || has_matrices(variant) { (2, 3) } else { (2, 0) },
        per_entry_point_map: [(entry(variant).into(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: everywhere(BoundsCheckPolicy::Restrict),
        zero_initialize_workgroup_memory: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry(variant).into())),
        ..msl::PipelineOptions::default()
    };
    let (text, info) = msl::write_string(&variant.module, &variant.info, &options, &pipeline)?;
    assert!(
        matches!(&info.entry_point_names[..], [Ok(name)] if *name == mangled(variant)),
        "{}",
        variant.label()
    );
    Ok(text)
}

/// GLSL ES 3.10. Uniform and storage buffers count apart; GL itself checks bounds.
fn glsl(variant: &Compiled) -> Result<String, glsl::Error> {
    let slots = slots(&variant.module, |kind| kind == Kind::Uniform);
    let options = glsl::Options {
        version: glsl::Version::Embedded { version: 310, is_webgl: false },
        writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE
            | glsl::WriterFlags::FORCE_POINT_SIZE,
        binding_map: slots
            .iter()
            .map(|&(b, _, slot)| (b, u8::try_from(slot).expect("few bindings")))
            .collect(),
        zero_initialize_workgroup_memory: false,
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry(variant).into(),
        multiview: None,
    };
    let policies = everywhere(BoundsCheckPolicy::Unchecked);
    let mut text = String::new();
    glsl::Writer::new(&mut text, &variant.module, &variant.info, &options, &pipeline, policies)?
        .write()?;
    Ok(text)
}

/// Instructions of a SPIR-V module: opcode and operands.
fn instructions(words: &[u32]) -> impl Iterator<Item = (u32, &[u32])> {
    let mut rest = &words[5..];
    std::iter::from_fn(move || {
        let (first, _) = rest.split_first()?;
        let (instruction, after) = rest.split_at(*first as usize >> 16);
        rest = after;
        Some((first & 0xffff, &instruction[1..]))
    })
}

/// What a SPIR-V module shows of itself.
#[derive(Debug, PartialEq)]
struct Interface {
    entry_points: Vec<String>,
    workgroup_sizes: Vec<[u32; 3]>,
    /// Descriptor set and binding.
    bindings: Vec<(u32, u32)>,
}

fn spirv_interface(words: &[u32]) -> Interface {
    const ENTRY_POINT: u32 = 15;
    const EXECUTION_MODE: u32 = 16;
    const DECORATE: u32 = 71;
    const LOCAL_SIZE: u32 = 17;
    const BINDING: u32 = 33;
    const DESCRIPTOR_SET: u32 = 34;
    let (mut entry_points, mut workgroup_sizes) = (Vec::new(), Vec::new());
    let (mut numbers, mut sets) = (Vec::new(), HashMap::new());
    for (opcode, operands) in instructions(words) {
        match (opcode, operands) {
            (ENTRY_POINT, [_, _, name @ ..]) => {
                let bytes =
                    name.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0);
                entry_points.push(bytes.map(char::from).collect());
            }
            (EXECUTION_MODE, &[_, LOCAL_SIZE, x, y, z]) => workgroup_sizes.push([x, y, z]),
            (DECORATE, &[variable, BINDING, number]) => numbers.push((variable, number)),
            (DECORATE, &[variable, DESCRIPTOR_SET, set]) => drop(sets.insert(variable, set)),
            _ => {}
        }
    }
    let mut bindings: Vec<_> =
        numbers.iter().map(|(variable, number)| (sets[variable], *number)).collect();
    bindings.sort_unstable();
    Interface { entry_points, workgroup_sizes, bindings }
}

/// Every fragment is in the text, just once.
fn assert_once(text: &str, fragments: impl IntoIterator<Item = String>, label: &str) {
    for fragment in fragments {
        assert_eq!(text.matches(&fragment).count(), 1, "{label}: {fragment} in\n{text}");
    }
}

/// What the validator has against each module that is not valid.
fn refusals(modules: &[Vec<u32>]) -> Vec<String> {
    on_all_processors(modules, |part| {
        part.iter().filter_map(|words| spirv_val::validate(words).err()).collect()
    })
}

/// Whether a variant brings a pair of choices (constants or element types) of its kernel together
/// that none before it did.
fn has_new_pair(variant: &Compiled, seen: &mut HashSet<(Kernel, String, String)>) -> bool {
    let Variant { kernel, elems, consts } = &variant.dispatch.variant;
    let elems = elems.iter().enumerate().map(|choice| format!("{choice:?}"));
    let choices: Vec<_> = elems.chain(consts.iter().map(|choice| format!("{choice:?}"))).collect();
    let mut is_new = false;
    for (i, first) in choices.iter().enumerate() {
        for second in &choices[i..] {
            is_new |= seen.insert((*kernel, first.clone(), second.clone()));
        }
    }
    is_new
}

/// The validator is a process for each module, and all of them take a minute: where nobody waits
/// for it, under continuous integration, every variant is validated, elsewhere enough of them to
/// have every pair of choices once.
pub(crate) fn all_are_valid_spirv(variants: &[Compiled]) {
    let mut modules = HashSet::new();
    let mut seen = HashSet::new();
    // Later cases have more to them: from the end on, fewer bring all pairs.
    for variant in variants.iter().rev() {
        let is_validated = has_new_pair(variant, &mut seen) || spirv_val::is_ci();
        let is_validated =
            is_validated && (!has_matrices(variant) || is_valid_with_matrices(variant));
        for buffers in [BoundsCheckPolicy::Restrict, BoundsCheckPolicy::Unchecked] {
            let words =
                spirv(variant, buffers).unwrap_or_else(|e| panic!("{}: {e}", variant.label()));
            let expected = Interface {
                entry_points: vec![entry(variant).to_owned()],
                workgroup_sizes: vec![[variant.dispatch.workgroup_size, 1, 1]],
                bindings: bindings(&variant.module)
                    .iter()
                    .map(|(b, _)| (b.group, b.binding))
                    .collect(),
            };
            assert_eq!(spirv_interface(&words), expected, "{}", variant.label());
            modules.extend(is_validated.then_some(words));
        }
    }
    if spirv_val::is_installed() {
        let modules: Vec<_> = modules.into_iter().collect();
        assert_eq!(refusals(&modules), [""; 0]);
    }
}

#[test]
fn spirv_that_is_not_valid_is_refused() {
    const CAPABILITY: u32 = 17;
    const SHADER: u32 = 1;
    const KERNEL: u32 = 6;
    if !spirv_val::is_installed() {
        return;
    }
    let variant = Compiled::new(variants().swap_remove(0));
    let good = spirv(&variant, BoundsCheckPolicy::Restrict).expect("is written");
    let mut of_opencl = good.clone();
    assert_eq!(of_opencl[5..7], [2 << 16 | CAPABILITY, SHADER], "the first instruction");
    of_opencl[6] = KERNEL;
    let cut = good[..good.len() - 1].to_vec();
    let found = refusals(&[good, of_opencl, cut]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("Kernel is not allowed by Vulkan 1.1"), "{}", found[0]);
}

pub(crate) fn is_written_in_every_language(variant: &Compiled) {
    is_written_in_msl(variant);
    survives_being_written_in_wgsl(variant);
    // GLSL ES has no lanes, and neither has matrices.
    if !has_matrices(variant) {
        is_written_in_hlsl(variant);
    }
    if !has_matrices(variant) && !has_lanes(variant) {
        is_written_in_glsl(variant);
    }
}

fn is_written_in_hlsl(variant: &Compiled) {
    // The oldest shader models that do: f16 came with 6.2, subgroups with 6.0, all else wgpu also
    // compiles as 5.1.
    let model = match (computes_in_f16(variant), has_lanes(variant)) {
        (true, _) => hlsl::ShaderModel::V6_2,
        (false, true) => hlsl::ShaderModel::V6_0,
        (false, false) => hlsl::ShaderModel::V5_1,
    };
    let text = hlsl(variant, model).unwrap_or_else(|e| panic!("{}: {e}", variant.label()));
    let size = format!("[numthreads({}, 1, 1)]", variant.dispatch.workgroup_size);
    let registers =
        slots(&variant.module, |kind| kind).into_iter().map(|(_, kind, slot)| match kind {
            Kind::Uniform => format!("register(b{slot})"),
            Kind::ReadOnly => format!("register(t{slot})"),
            Kind::ReadWrite => format!("register(u{slot})"),
        });
    assert_once(
        &text,
        registers.chain([size, format!("void {}(", mangled(variant))]),
        &variant.label(),
    );
}

fn is_written_in_msl(variant: &Compiled) {
    let text = msl(variant).unwrap_or_else(|e| panic!("{}: {e}", variant.label()));
    let buffers = (0..=bindings(&variant.module).len()).map(|slot| format!("[[buffer({slot})]]"));
    assert_once(
        &text,
        buffers.chain([format!("kernel void {}(", mangled(variant))]),
        &variant.label(),
    );
}

/// GLSL ES has no f16: just the variants that compute in it are refused, and nothing else.
fn is_written_in_glsl(variant: &Compiled) {
    let label = variant.label();
    let text = match glsl(variant) {
        Ok(text) => text,
        Err(glsl::Error::UnsupportedScalar(naga::Scalar::F16)) if computes_in_f16(variant) => {
            return;
        }
        Err(error) => panic!("{label}: {error}"),
    };
    assert!(!computes_in_f16(variant), "{label}: GLSL ES cannot compute in f16");
    let size = variant.dispatch.workgroup_size;
    let size = format!("layout(local_size_x = {size}, local_size_y = 1, local_size_z = 1) in;");
    let slots =
        slots(&variant.module, |kind| kind == Kind::Uniform).into_iter().map(|(_, kind, slot)| {
            match kind {
                Kind::Uniform => format!("layout(std140, binding = {slot}) uniform"),
                Kind::ReadOnly => format!("layout(std430, binding = {slot}) readonly buffer"),
                Kind::ReadWrite => format!("layout(std430, binding = {slot}) buffer"),
            }
        });
    assert_once(&text, slots.chain([size, "void main()".into()]), &label);
}

fn survives_being_written_in_wgsl(variant: &Compiled) {
    let text = wgsl::write_string(&variant.module, &variant.info, wgsl::WriterFlags::empty());
    let text = text.unwrap_or_else(|e| panic!("{}: {e}", variant.label()));
    let (mut module, info) = compile(&text, variant.capabilities);
    assert_eq!(module.entry_points[0].name, mangled(variant));
    module.entry_points[0].name = entry(variant).into();
    assert_eq!(bindings(&module), bindings(&variant.module), "{}", variant.label());
    assert_eq!(
        interface::faults(&variant.dispatch, &module, &info),
        [""; 0],
        "{}",
        variant.label()
    );
}
