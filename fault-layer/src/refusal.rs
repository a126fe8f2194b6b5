//! A driver without memory, one that loses its device, and one whose clock runs backwards.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ash::vk;

use crate::PREFIX;
use crate::fault::Plan;
use crate::layer::{lookup, planned, refused, void};

/// Objects made and work submitted.
static CREATED: AtomicUsize = AtomicUsize::new(0);
static SUBMITTED: AtomicUsize = AtomicUsize::new(0);
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// A new device is not lost.
pub(crate) fn begin() {
    IS_LOST.store(false, Ordering::Relaxed);
}

/// Whether this call, which makes something, is the one that is refused.
pub(crate) fn refuses(function: &str) -> bool {
    let Some(Plan::Refuse(call)) = planned() else { return false };
    let is_it = CREATED.fetch_add(1, Ordering::Relaxed) == *call;
    if is_it {
        eprintln!("{PREFIX}no memory for {function}, call {call}");
    }
    is_it
}

/// Whether this submission, or one before, loses the device.
fn loses() -> bool {
    let Some(Plan::Lose(submission)) = planned() else { return false };
    if SUBMITTED.fetch_add(1, Ordering::Relaxed) == *submission {
        eprintln!("{PREFIX}device lost at submission {submission}");
        IS_LOST.store(true, Ordering::Relaxed);
    }
    IS_LOST.load(Ordering::Relaxed)
}

/// Functions `(device, create info, allocator, object) -> result`, by their names in Vulkan.
macro_rules! creations {
    ($($field:ident: $name:literal, $function:ident($info:ty, $object:ty);)*) => {
        /// The next layer's functions that this one may not call.
        #[derive(Clone, Copy)]
        pub(crate) struct Refused {
            $($field: Option<unsafe extern "system" fn(
                vk::Device, *const $info, *const vk::AllocationCallbacks<'_>, *mut $object,
            ) -> vk::Result>,)*
            create_compute_pipelines: Option<vk::PFN_vkCreateComputePipelines>,
            map_memory: Option<vk::PFN_vkMapMemory>,
            queue_submit: Option<vk::PFN_vkQueueSubmit>,
            wait_semaphores: Option<vk::PFN_vkWaitSemaphores>,
            write_timestamp: Option<vk::PFN_vkCmdWriteTimestamp>,
        }

        impl Refused {
            /// # Safety
            /// `device` is alive, and `get` is the next layer's function for it.
            pub(crate) unsafe fn of(device: vk::Device, get: vk::PFN_vkGetDeviceProcAddr) -> Self {
                Self {
                    $($field: lookup!(get, device, $name as unsafe extern "system" fn(
                        vk::Device, *const $info, *const vk::AllocationCallbacks<'_>, *mut $object,
                    ) -> vk::Result),)*
                    create_compute_pipelines: lookup!(
                        get, device, c"vkCreateComputePipelines" as vk::PFN_vkCreateComputePipelines
                    ),
                    map_memory: lookup!(get, device, c"vkMapMemory" as vk::PFN_vkMapMemory),
                    queue_submit: lookup!(get, device, c"vkQueueSubmit" as vk::PFN_vkQueueSubmit),
                    wait_semaphores: lookup!(
                        get, device, c"vkWaitSemaphores" as vk::PFN_vkWaitSemaphores
                    ),
                    write_timestamp: lookup!(
                        get, device, c"vkCmdWriteTimestamp" as vk::PFN_vkCmdWriteTimestamp
                    ),
                }
            }
        }

        $(
            unsafe extern "system" fn $field(
                device: vk::Device,
                info: *const $info,
                allocator: *const vk::AllocationCallbacks<'_>,
                object: *mut $object,
            ) -> vk::Result {
                if refuses(stringify!($function)) {
                    return vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
                }
                // SAFETY: the device is alive.
                let Some(next) = (unsafe { refused(device) }).and_then(|next| next.$field) else {
                    return vk::Result::ERROR_INITIALIZATION_FAILED;
                };
                // SAFETY: passed on as it came.
                unsafe { next(device, info, allocator, object) }
            }
        )*

        /// What the layer does itself of these functions.
        pub(crate) fn own_function(name: &CStr) -> vk::PFN_vkVoidFunction {
            planned()?;
            match name {
                $(name if name == $name => {
                    void!($field: unsafe extern "system" fn(
                        vk::Device, *const $info, *const vk::AllocationCallbacks<'_>, *mut $object,
                    ) -> vk::Result)
                })*
                name if name == c"vkCreateComputePipelines" => {
                    void!(create_compute_pipelines: vk::PFN_vkCreateComputePipelines)
                }
                name if name == c"vkMapMemory" => void!(map_memory: vk::PFN_vkMapMemory),
                name if name == c"vkQueueSubmit" => void!(queue_submit: vk::PFN_vkQueueSubmit),
                name if name == c"vkWaitSemaphores" || name == c"vkWaitSemaphoresKHR" => {
                    void!(wait_semaphores: vk::PFN_vkWaitSemaphores)
                }
                name if name == c"vkCmdWriteTimestamp" => {
                    void!(write_timestamp: vk::PFN_vkCmdWriteTimestamp)
                }
                _ => None,
            }
        }
    };
}

// Not among them: semaphores. wgpu-hal 30 destroys one twice where the next cannot be made.
creations! {
    allocate_memory: c"vkAllocateMemory",
        vkAllocateMemory(vk::MemoryAllocateInfo<'_>, vk::DeviceMemory);
    create_buffer: c"vkCreateBuffer",
        vkCreateBuffer(vk::BufferCreateInfo<'_>, vk::Buffer);
    create_query_pool: c"vkCreateQueryPool",
        vkCreateQueryPool(vk::QueryPoolCreateInfo<'_>, vk::QueryPool);
    create_command_pool: c"vkCreateCommandPool",
        vkCreateCommandPool(vk::CommandPoolCreateInfo<'_>, vk::CommandPool);
    create_descriptor_pool: c"vkCreateDescriptorPool",
        vkCreateDescriptorPool(vk::DescriptorPoolCreateInfo<'_>, vk::DescriptorPool);
    create_set_layout: c"vkCreateDescriptorSetLayout",
        vkCreateDescriptorSetLayout(vk::DescriptorSetLayoutCreateInfo<'_>, vk::DescriptorSetLayout);
    create_pipeline_layout: c"vkCreatePipelineLayout",
        vkCreatePipelineLayout(vk::PipelineLayoutCreateInfo<'_>, vk::PipelineLayout);
}

unsafe extern "system" fn create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    if refuses("vkCreateComputePipelines") {
        return vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
    }
    // SAFETY: the device is alive.
    let Some(next) = (unsafe { refused(device) }).and_then(|next| next.create_compute_pipelines)
    else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: passed on as it came.
    unsafe { next(device, cache, count, infos, allocator, pipelines) }
}

unsafe extern "system" fn map_memory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    data: *mut *mut std::ffi::c_void,
) -> vk::Result {
    if refuses("vkMapMemory") {
        return vk::Result::ERROR_MEMORY_MAP_FAILED;
    }
    // SAFETY: the device is alive.
    let Some(next) = (unsafe { refused(device) }).and_then(|next| next.map_memory) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: passed on as it came.
    unsafe { next(device, memory, offset, size, flags, data) }
}

unsafe extern "system" fn queue_submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    if loses() {
        return vk::Result::ERROR_DEVICE_LOST;
    }
    // SAFETY: the queue is alive.
    let Some(next) = (unsafe { refused(queue) }).and_then(|next| next.queue_submit) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: passed on as it came.
    unsafe { next(queue, count, submits, fence) }
}

unsafe extern "system" fn wait_semaphores(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    if IS_LOST.load(Ordering::Relaxed) {
        return vk::Result::ERROR_DEVICE_LOST;
    }
    // SAFETY: the device is alive.
    let Some(next) = (unsafe { refused(device) }).and_then(|next| next.wait_semaphores) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: passed on as it came.
    unsafe { next(device, info, timeout) }
}

unsafe extern "system" fn write_timestamp(
    commands: vk::CommandBuffer,
    stage: vk::PipelineStageFlags,
    pool: vk::QueryPool,
    query: u32,
) {
    let query = if matches!(planned(), Some(Plan::Backwards)) { query ^ 1 } else { query };
    // SAFETY: the command buffer is alive.
    if let Some(next) = (unsafe { refused(commands) }).and_then(|next| next.write_timestamp) {
        // SAFETY: passed on as it came, or with the other of two queries.
        unsafe { next(commands, stage, pool, query) }
    }
}
