//! A Vulkan driver as a compiler.

#![allow(unsafe_code, reason = "Vulkan is called through C pointers")]
#![warn(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char};
use std::fs;

use ash::{khr, vk};
use dynconv_isa_compiler::{Device, Executable, Reply, Request};

/// A device that compiles.
pub(crate) struct Compiler {
    /// Keeps the Vulkan loader in memory.
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// What it stands for.
    pub(crate) info: Device,
}

impl Compiler {
    /// The first device of the drivers that the loader finds.
    pub(crate) fn new() -> Result<Self, String> {
        // SAFETY: loading a library runs its initializers; the Vulkan loader's are sound.
        let entry = unsafe { ash::Entry::load() }.map_err(|e| format!("no Vulkan loader: {e}"))?;
        let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&app);
        // SAFETY: `info` and what it points to outlive the call.
        let instance =
            unsafe { entry.create_instance(&info, None) }.map_err(failed("no Vulkan instance"))?;
        match create_device(&instance) {
            Ok((device, info)) => {
                let executables =
                    khr::pipeline_executable_properties::Device::new(&instance, &device);
                Ok(Self { _entry: entry, instance, device, executables, info })
            }
            Err(reason) => {
                // SAFETY: nothing made from the instance is left.
                unsafe { instance.destroy_instance(None) };
                Err(reason)
            }
        }
    }

    /// Compiles a kernel.
    pub(crate) fn compile(&self, request: &Request) -> Reply {
        // A compiler that is given matrices for a GPU without them ends the process.
        if request.matrices && !self.info.matrices {
            return Reply::NoMatrices;
        }
        self.executable(request).map_or_else(Reply::Refused, Reply::Compiled)
    }

    fn executable(&self, request: &Request) -> Result<Executable, String> {
        let file = if self.info.robust { &request.unchecked } else { &request.checked };
        let bytes =
            fs::read(file).map_err(|e| format!("could not read {}: {e}", file.display()))?;
        let words: Vec<u32> =
            bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let name = CString::new(request.entry_point.as_str()).map_err(|e| e.to_string())?;
        let storage = (1..=request.storage).map(|n| (n, vk::DescriptorType::STORAGE_BUFFER));
        let bindings: Vec<_> = std::iter::once((0, vk::DescriptorType::UNIFORM_BUFFER))
            .chain(storage)
            .map(|(number, kind)| binding(number, kind))
            .collect();
        let device = &self.device;
        let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .name(&name);
        if let Some(subgroup) = request.subgroup {
            size = size.required_subgroup_size(subgroup);
            stage = stage.push_next(&mut size);
        }
        // SAFETY: all that the structures point to outlives the calls, and each object is destroyed
        // once, after its last use.
        unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = device
                .create_descriptor_set_layout(&info, None)
                .map_err(failed("no layout of bindings"))?;
            let sets = [set];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&info, None).map_err(failed("no layout"))?;
            let info = vk::ShaderModuleCreateInfo::default().code(&words);
            let module = device
                .create_shader_module(&info, None)
                .map_err(failed("the driver refuses the shader"))?;
            let info = vk::ComputePipelineCreateInfo::default()
                .flags(
                    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
                )
                .layout(layout)
                .stage(stage.module(module));
            let pipelines =
                device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            let pipeline = pipelines
                .map_err(|(_, error)| failed("the driver does not compile the shader")(error))?[0];
            let executable = self.read(pipeline);
            device.destroy_pipeline(pipeline, None);
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(set, None);
            executable
        }
    }

    /// A driver that compiles for several subgroup sizes tells the widest last, which is what runs.
    fn read(&self, pipeline: vk::Pipeline) -> Result<Executable, String> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline was created to capture what is asked for, and the buffers are as
        // long as the driver said before.
        unsafe {
            let all = self
                .executables
                .get_pipeline_executable_properties(&info)
                .map_err(failed("no executables"))?;
            let last = u32::try_from(all.len()).unwrap_or(1).saturating_sub(1);
            let info =
                vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(last);
            let found = self
                .executables
                .get_pipeline_executable_statistics(&info)
                .map_err(failed("no statistics"))?;
            let statistics = found.iter().map(|s| (text(&s.name), number(s))).collect();
            let subgroup = all.last().map_or(0, |one| one.subgroup_size);
            Ok(Executable { subgroup, statistics, listing: self.listing(&info)? })
        }
    }

    /// The driver's last form of a program.
    fn listing(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String, String> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let mut count = 0;
        // SAFETY: the pipeline was created to capture forms, and the buffers are as long as the
        // driver said before.
        unsafe {
            let call =
                |count: &mut u32, data| get(self.device.handle(), info, count, data).result();
            call(&mut count, std::ptr::null_mut()).map_err(failed("no listings"))?;
            let mut forms =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(&mut count, forms.as_mut_ptr()).map_err(failed("no listings"))?;
            let mut buffers: Vec<Vec<u8>> =
                forms.iter().map(|form| vec![0; form.data_size]).collect();
            for (form, buffer) in forms.iter_mut().zip(&mut buffers) {
                form.p_data = buffer.as_mut_ptr().cast();
            }
            call(&mut count, forms.as_mut_ptr()).map_err(failed("no listings"))?;
            let bytes = buffers.last().map(Vec::as_slice).unwrap_or_default();
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: nothing made from them is left.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A device with what wgpu asks for that bears on compute shaders.
fn create_device(instance: &ash::Instance) -> Result<(ash::Device, Device), String> {
    // SAFETY: the instance is alive, and all that the structures point to outlives the calls.
    unsafe {
        let all = instance.enumerate_physical_devices().map_err(failed("no Vulkan device"))?;
        let physical = *all.first().ok_or("the driver has no device")?;
        let known = instance
            .enumerate_device_extension_properties(physical)
            .map_err(failed("no extensions"))?;
        let has = |name| known.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
        let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut memory_model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default();
        let mut sizes = vk::PhysicalDeviceSubgroupSizeControlFeatures::default();
        let mut storage = vk::PhysicalDevice16BitStorageFeatures::default();
        let mut half = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut robustness)
            .push_next(&mut memory_model)
            .push_next(&mut sizes)
            .push_next(&mut storage)
            .push_next(&mut half)
            .push_next(&mut matrices);
        instance.get_physical_device_features2(physical, &mut features);
        let robust = robustness.robust_buffer_access2 != 0;
        let has_matrices = has(khr::cooperative_matrix::NAME) && matrices.cooperative_matrix != 0;

        let mut names = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
        let robustness_names =
            [ash::ext::robustness2::NAME, c"VK_KHR_robustness2"].into_iter().find(|n| has(n));
        names.extend(robustness_names.map(CStr::as_ptr));
        names.extend(has_matrices.then_some(khr::cooperative_matrix::NAME.as_ptr()));
        let mut captures = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let mut robustness =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(robust);
        let mut memory_model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default()
            .vulkan_memory_model(memory_model.vulkan_memory_model != 0);
        let mut sizes = vk::PhysicalDeviceSubgroupSizeControlFeatures::default()
            .subgroup_size_control(sizes.subgroup_size_control != 0);
        let mut storage = vk::PhysicalDevice16BitStorageFeatures::default()
            .storage_buffer16_bit_access(storage.storage_buffer16_bit_access != 0);
        let mut half = vk::PhysicalDeviceShaderFloat16Int8Features::default()
            .shader_float16(half.shader_float16 != 0);
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default()
            .cooperative_matrix(has_matrices);
        let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let queue =
            vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0]);
        let queues = [queue];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .enabled_features(&features)
            .push_next(&mut captures)
            .push_next(&mut memory_model)
            .push_next(&mut sizes)
            .push_next(&mut storage)
            .push_next(&mut half);
        let info = if has_matrices { info.push_next(&mut matrices) } else { info };
        let info = if robustness_names.is_some() { info.push_next(&mut robustness) } else { info };
        let device = instance.create_device(physical, &info, None).map_err(failed("no device"))?;
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        instance.get_physical_device_properties2(physical, &mut properties);
        let device_name = text(&properties.properties.device_name);
        let driver = format!("{}, {}", text(&driver.driver_name), text(&driver.driver_info));
        Ok((device, Device { name: device_name, driver, matrices: has_matrices, robust }))
    }
}

fn binding(number: u32, kind: vk::DescriptorType) -> vk::DescriptorSetLayoutBinding<'static> {
    let binding = vk::DescriptorSetLayoutBinding::default().binding(number).descriptor_type(kind);
    binding.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
}

fn failed(what: &str) -> impl FnOnce(vk::Result) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}

/// A name from Vulkan, which ends with a zero.
fn text(name: &[c_char]) -> String {
    // SAFETY: Vulkan ends every name within its array.
    unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
}

#[allow(clippy::cast_precision_loss, reason = "counts of instructions are small")]
fn number(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> f64 {
    use vk::PipelineExecutableStatisticFormatKHR as Format;
    // SAFETY: the format says which member is set.
    unsafe {
        match statistic.format {
            Format::UINT64 => statistic.value.u64 as f64,
            Format::INT64 => statistic.value.i64 as f64,
            Format::FLOAT64 => statistic.value.f64,
            _ => f64::from(statistic.value.b32),
        }
    }
}

/// Has what the driver printed appear before what this program prints.
pub(crate) fn print_what_is_buffered() {
    // SAFETY: without a stream, all that are open are flushed.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}
