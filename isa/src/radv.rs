//! Mesa's driver for AMD GPUs as a compiler: it can stand for any family without a GPU, and then
//! compiles but runs nothing.

#![allow(unsafe_code, reason = "Vulkan is called through C pointers")]
#![warn(clippy::undocumented_unsafe_blocks)]

use std::env;
use std::ffi::{CStr, CString, c_char};

use ash::{khr, vk};

/// Names the family that the driver stands for.
const FAMILY: &str = "RADV_FORCE_FAMILY";

/// What a driver made of a kernel.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The compiler's statistics by name.
    statistics: Vec<(String, u64)>,
    /// The instructions, as text.
    pub(crate) listing: String,
}

impl Executable {
    pub(crate) fn statistic(&self, name: &str) -> Result<u64, String> {
        let found = self.statistics.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| *value).ok_or_else(|| format!("the driver does not tell `{name}`"))
    }
}

/// A device that compiles.
pub(crate) struct Compiler {
    /// Keeps the Vulkan loader in memory.
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// Driver and version.
    pub(crate) driver: String,
    /// Whether the family has cooperative matrices.
    pub(crate) has_matrices: bool,
}

impl Compiler {
    /// The driver, standing for `family`. No other thread may read environment variables meanwhile.
    pub(crate) fn new(family: &str) -> Result<Self, String> {
        // SAFETY: the caller is single-threaded.
        unsafe { env::set_var(FAMILY, family) };
        // SAFETY: loading a library runs its initializers; the Vulkan loader's are sound.
        let entry = unsafe { ash::Entry::load() }.map_err(|e| format!("no Vulkan loader: {e}"))?;
        let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&app);
        // SAFETY: `info` and what it points to outlive the call.
        let instance =
            unsafe { entry.create_instance(&info, None) }.map_err(failed("no Vulkan instance"))?;
        match create_device(&instance) {
            Ok((device, driver, has_matrices)) => {
                let executables =
                    khr::pipeline_executable_properties::Device::new(&instance, &device);
                Ok(Self { _entry: entry, instance, device, executables, driver, has_matrices })
            }
            Err(reason) => {
                // SAFETY: nothing made from the instance is left.
                unsafe { instance.destroy_instance(None) };
                Err(reason)
            }
        }
    }

    /// Compiles a kernel whose bindings are a uniform buffer and `storage` storage buffers, for
    /// subgroups of a size if one is given.
    pub(crate) fn compile(
        &self,
        spirv: &[u32],
        entry_point: &str,
        storage: usize,
        subgroup: Option<u32>,
    ) -> Result<Executable, String> {
        let name = CString::new(entry_point).map_err(|e| e.to_string())?;
        let kinds = [vk::DescriptorType::UNIFORM_BUFFER].into_iter();
        let kinds = kinds.chain(std::iter::repeat_n(vk::DescriptorType::STORAGE_BUFFER, storage));
        let bindings: Vec<_> =
            (0..).zip(kinds).map(|(number, kind)| binding(number, kind)).collect();
        let device = &self.device;
        let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .name(&name);
        if let Some(subgroup) = subgroup {
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
            let info = vk::ShaderModuleCreateInfo::default().code(spirv);
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

    fn read(&self, pipeline: vk::Pipeline) -> Result<Executable, String> {
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        // SAFETY: the pipeline was created to capture both, and the buffers are as long as the
        // driver said before.
        unsafe {
            let found = self
                .executables
                .get_pipeline_executable_statistics(&info)
                .map_err(failed("no statistics"))?;
            let statistics = found.iter().map(|s| (text(&s.name), whole(s))).collect();
            let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
            let mut count = 0;
            let call =
                |count: &mut u32, data| get(self.device.handle(), &info, count, data).result();
            call(&mut count, std::ptr::null_mut()).map_err(failed("no listing"))?;
            let mut all =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(&mut count, all.as_mut_ptr()).map_err(failed("no listing"))?;
            let mut buffers: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
            for (one, buffer) in all.iter_mut().zip(&mut buffers) {
                one.p_data = buffer.as_mut_ptr().cast();
            }
            call(&mut count, all.as_mut_ptr()).map_err(failed("no listing"))?;
            // The last stage of compilation is the machine code.
            let listing = buffers.last().ok_or("the driver gives no listing")?;
            Ok(Executable { statistics, listing: String::from_utf8_lossy(listing).into_owned() })
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
fn create_device(instance: &ash::Instance) -> Result<(ash::Device, String, bool), String> {
    // SAFETY: the instance is alive, and all that the structures point to outlives the calls.
    unsafe {
        let all = instance.enumerate_physical_devices().map_err(failed("no Vulkan device"))?;
        let is_radv = |device: &vk::PhysicalDevice| {
            text(&instance.get_physical_device_properties(*device).device_name).contains("RADV")
        };
        let physical = all.into_iter().find(is_radv).ok_or("no device of the driver RADV")?;
        let queue =
            vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0]);
        let known = instance
            .enumerate_device_extension_properties(physical)
            .map_err(failed("no extensions"))?;
        let has_matrices = known
            .iter()
            .any(|one| one.extension_name_as_c_str() == Ok(khr::cooperative_matrix::NAME));
        let mut extensions = vec![
            khr::pipeline_executable_properties::NAME.as_ptr(),
            ash::ext::robustness2::NAME.as_ptr(),
        ];
        extensions.extend(has_matrices.then_some(khr::cooperative_matrix::NAME.as_ptr()));
        let mut captures = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let mut robustness =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let mut memory_model =
            vk::PhysicalDeviceVulkanMemoryModelFeatures::default().vulkan_memory_model(true);
        let mut sizes =
            vk::PhysicalDeviceSubgroupSizeControlFeatures::default().subgroup_size_control(true);
        let mut storage =
            vk::PhysicalDevice16BitStorageFeatures::default().storage_buffer16_bit_access(true);
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default()
            .cooperative_matrix(has_matrices);
        let mut half = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_float16(true);
        let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let queues = [queue];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .enabled_features(&features)
            .push_next(&mut captures)
            .push_next(&mut robustness)
            .push_next(&mut memory_model)
            .push_next(&mut sizes)
            .push_next(&mut storage)
            .push_next(&mut half);
        let info = if has_matrices { info.push_next(&mut matrices) } else { info };
        let device = instance.create_device(physical, &info, None).map_err(failed("no device"))?;
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        instance.get_physical_device_properties2(physical, &mut properties);
        Ok((
            device,
            format!("{}, {}", text(&driver.driver_name), text(&driver.driver_info)),
            has_matrices,
        ))
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

/// A statistic that counts something; others are 0.
fn whole(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> u64 {
    match statistic.format {
        // SAFETY: the format says which member is set.
        vk::PipelineExecutableStatisticFormatKHR::UINT64 => unsafe { statistic.value.u64 },
        _ => 0,
    }
}
