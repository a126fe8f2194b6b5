//! The layer as the Vulkan loader meets it. The interface is described in `LoaderLayerInterface.md`
//! of the Vulkan loader; Vulkan's headers for layers are not part of `ash`, so what is needed of
//! them stands here.
//!
//! A call goes from the loader through all layers to the driver. Each layer finds the next one's
//! functions through pointers that it is given when an instance or a device is created, and keeps
//! them by the instance or device.

use std::collections::HashMap;
use std::env;
use std::ffi::{CStr, c_char, c_void};
use std::hash::Hash;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk;

use crate::fault::Plan;
use crate::refusal::{self, Refused};
use crate::{FAULT, PREFIX};

/// `VkNegotiateLayerInterface`: what the loader knows, to be answered with where the layer begins.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct NegotiateLayerInterface {
    s_type: i32,
    next: *mut c_void,
    version: u32,
    get_instance_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
    get_device_proc_addr: Option<vk::PFN_vkGetDeviceProcAddr>,
    get_physical_device_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
}

/// The version of the interface that this layer speaks.
const INTERFACE_VERSION: u32 = 2;

/// `VkLayerInstanceLink` and `VkLayerDeviceLink`, which have the same form: a way to the next
/// layer.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link<F> {
    next: *mut Self,
    get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    /// Of physical devices in an instance's link, of devices in a device's.
    get_other_proc_addr: F,
}

type InstanceLink = Link<vk::PFN_vkVoidFunction>;
type DeviceLink = Link<vk::PFN_vkGetDeviceProcAddr>;

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`: what the loader hangs into the chain
/// of a create info.
#[repr(C)]
struct LayerCreateInfo<F> {
    s_type: vk::StructureType,
    next: *const c_void,
    function: i32,
    /// A link only if `function` is [`LAYER_LINK_INFO`].
    link: *mut Link<F>,
}

const LAYER_LINK_INFO: i32 = 0;

/// The next layer's functions for an instance. They are looked up when it is created: later on the
/// loader answers for the last layer with the first layer's functions.
#[derive(Clone, Copy)]
struct Instance {
    get_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    create_device: vk::PFN_vkCreateDevice,
    destroy: vk::PFN_vkDestroyInstance,
}

/// The next layer's functions for a device.
#[derive(Clone, Copy)]
struct Device {
    get_proc_addr: vk::PFN_vkGetDeviceProcAddr,
    create_shader_module: vk::PFN_vkCreateShaderModule,
    destroy: vk::PFN_vkDestroyDevice,
    refused: Refused,
}

/// Things by the key of the handle they belong to.
type Table<T> = LazyLock<Mutex<HashMap<Key, T>>>;

static INSTANCES: Table<Instance> = LazyLock::new(Mutex::default);
static DEVICES: Table<Device> = LazyLock::new(Mutex::default);

/// The first word of an object. The loader keeps it alike for an instance and its physical devices,
/// and for a device and its queues.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key(usize);

impl Key {
    /// # Safety
    /// `handle` is an instance, a physical device or a device, and alive.
    unsafe fn of(handle: impl vk::Handle) -> Self {
        let object = std::ptr::with_exposed_provenance::<usize>(
            usize::try_from(handle.as_raw()).unwrap_or_default(),
        );
        // SAFETY: these handles are pointers to objects that begin with a pointer of the loader's.
        Self(unsafe { object.read() })
    }
}

fn lock<T>(table: &'static Table<T>) -> MutexGuard<'static, HashMap<Key, T>> {
    // No panic can leave a map half-changed.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next layer's functions that may be refused.
///
/// # Safety
/// `handle` is a device or one of its queues or command buffers, and alive.
pub(crate) unsafe fn refused(handle: impl vk::Handle) -> Option<Refused> {
    // SAFETY: as the caller says.
    get(&DEVICES, unsafe { Key::of(handle) }).map(|device| device.refused)
}

fn get<T: Copy>(table: &'static Table<T>, key: Key) -> Option<T> {
    lock(table).get(&key).copied()
}

/// The fault to plant, read once.
static PLANNED: LazyLock<Result<Option<Plan>, String>> = LazyLock::new(|| match env::var(FAULT) {
    Ok(text) => Plan::parse(&text).map(Some),
    Err(env::VarError::NotPresent) => Ok(None),
    Err(error) => Err(error.to_string()),
});

pub(crate) fn planned() -> Option<&'static Plan> {
    PLANNED.as_ref().ok().and_then(Option::as_ref)
}

/// Where the loader begins.
///
/// # Safety
/// The loader calls it, with a pointer to its structure.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the loader looks for this name")]
pub(crate) unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    interface: *mut NegotiateLayerInterface,
) -> vk::Result {
    // SAFETY: the loader passes its own structure, and nobody else uses it meanwhile.
    let Some(interface) = (unsafe { interface.as_mut() }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if interface.version < INTERFACE_VERSION {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    }
    interface.version = INTERFACE_VERSION;
    interface.get_instance_proc_addr = Some(get_instance_proc_addr);
    interface.get_device_proc_addr = Some(get_device_proc_addr);
    interface.get_physical_device_proc_addr = None;
    vk::Result::SUCCESS
}

/// A function as Vulkan hands it out: its type is known by its name.
macro_rules! void {
    ($function:ident: $type:ty) => {{
        let function: $type = $function;
        // SAFETY: a function pointer, to be called as its own type only.
        Some(unsafe { std::mem::transmute::<$type, unsafe extern "system" fn()>(function) })
    }};
}

pub(crate) use void;

/// A function of the next layer: `lookup!(get_proc_addr, handle, name as type)`. Its type is the
/// name's in Vulkan.
macro_rules! lookup {
    ($get_proc_addr:expr, $handle:expr, $name:literal as $type:ty) => {
        // SAFETY: the handle is of the next layer, and the name is the function's whose type stands
        // here.
        unsafe {
            ($get_proc_addr)($handle, $name.as_ptr())
                .map(|function| std::mem::transmute::<unsafe extern "system" fn(), $type>(function))
        }
    };
}

pub(crate) use lookup;

/// What the layer does itself of a device's functions.
fn own_device_function(name: &CStr) -> vk::PFN_vkVoidFunction {
    match name.to_bytes() {
        b"vkGetDeviceProcAddr" => void!(get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr),
        b"vkDestroyDevice" => void!(destroy_device: vk::PFN_vkDestroyDevice),
        b"vkCreateShaderModule" => void!(create_shader_module: vk::PFN_vkCreateShaderModule),
        _ => refusal::own_function(name),
    }
}

/// What the layer does itself of an instance's functions.
fn own_instance_function(name: &CStr) -> vk::PFN_vkVoidFunction {
    match name.to_bytes() {
        b"vkGetInstanceProcAddr" => void!(get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr),
        b"vkCreateInstance" => void!(create_instance: vk::PFN_vkCreateInstance),
        b"vkDestroyInstance" => void!(destroy_instance: vk::PFN_vkDestroyInstance),
        b"vkCreateDevice" => void!(create_device: vk::PFN_vkCreateDevice),
        _ => None,
    }
}

unsafe extern "system" fn get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: Vulkan passes a string.
    let text = unsafe { CStr::from_ptr(name) };
    // Apps may ask an instance for functions of its devices.
    if let Some(function) = own_instance_function(text).or_else(|| own_device_function(text)) {
        return Some(function);
    }
    if instance == vk::Instance::null() {
        return None;
    }
    // SAFETY: the instance is alive.
    let next = get(&INSTANCES, unsafe { Key::of(instance) })?;
    // SAFETY: passed on as it came.
    unsafe { (next.get_proc_addr)(instance, name) }
}

unsafe extern "system" fn get_device_proc_addr(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: Vulkan passes a string.
    if let Some(function) = own_device_function(unsafe { CStr::from_ptr(name) }) {
        return Some(function);
    }
    // SAFETY: the device is alive.
    let next = get(&DEVICES, unsafe { Key::of(device) })?;
    // SAFETY: passed on as it came.
    unsafe { (next.get_proc_addr)(device, name) }
}

/// Takes this layer's link out of the chain of a create info, so that the next layer finds its own
/// there.
///
/// # Safety
/// `chain` is a chain as Vulkan defines it, `s_type` marks structures of the form
/// `LayerCreateInfo<F>` in it, and nobody else uses those meanwhile.
unsafe fn take_link<F: Copy>(chain: *const c_void, s_type: vk::StructureType) -> Option<Link<F>> {
    let mut node = chain.cast::<vk::BaseInStructure<'_>>();
    // SAFETY: every structure in a chain begins with its type and the next one.
    while let Some(base) = unsafe { node.as_ref() } {
        if base.s_type == s_type {
            let info = node.cast::<LayerCreateInfo<F>>().cast_mut();
            // SAFETY: the type says that it is one. The loader expects layers to write into it.
            let info = unsafe { &mut *info };
            if info.function == LAYER_LINK_INFO {
                // SAFETY: the function says that it is a link, and the loader keeps it until the
                // object is created.
                let link = *unsafe { info.link.as_ref() }?;
                info.link = link.next;
                return Some(link);
            }
        }
        node = base.p_next;
    }
    None
}

unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    match &*PLANNED {
        Ok(None) => eprintln!("{PREFIX}no fault"),
        Ok(Some(_)) => {}
        Err(message) => {
            // Without an instance no run passes for want of a fault.
            eprintln!("{PREFIX}{FAULT}: {message}");
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        }
    }
    // SAFETY: the loader passes a create info with links of instances.
    let link: Option<InstanceLink> =
        unsafe { take_link((*info).p_next, vk::StructureType::LOADER_INSTANCE_CREATE_INFO) };
    let Some(link) = link else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let get_proc_addr = link.get_instance_proc_addr;
    let create = lookup!(
        get_proc_addr,
        vk::Instance::null(),
        c"vkCreateInstance" as vk::PFN_vkCreateInstance
    );
    let Some(create) = create else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    // SAFETY: passed on as it came, but for the link that this layer used up.
    let result = unsafe { create(info, allocator, instance) };
    if result == vk::Result::SUCCESS {
        // SAFETY: success means that the instance was written.
        unsafe { keep_instance(*instance, get_proc_addr) };
    }
    result
}

/// # Safety
/// `instance` is alive, and `get_proc_addr` is the next layer's function for it.
unsafe fn keep_instance(instance: vk::Instance, get_proc_addr: vk::PFN_vkGetInstanceProcAddr) {
    let create_device =
        lookup!(get_proc_addr, instance, c"vkCreateDevice" as vk::PFN_vkCreateDevice);
    let destroy =
        lookup!(get_proc_addr, instance, c"vkDestroyInstance" as vk::PFN_vkDestroyInstance);
    if let (Some(create_device), Some(destroy)) = (create_device, destroy) {
        // SAFETY: the instance is alive.
        let key = unsafe { Key::of(instance) };
        lock(&INSTANCES).insert(key, Instance { get_proc_addr, create_device, destroy });
    }
}

unsafe extern "system" fn destroy_instance(
    instance: vk::Instance,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if instance == vk::Instance::null() {
        return;
    }
    // SAFETY: the instance is alive until the next layer destroys it.
    let next = lock(&INSTANCES).remove(&unsafe { Key::of(instance) });
    if let Some(next) = next {
        // SAFETY: passed on as it came.
        unsafe { (next.destroy)(instance, allocator) };
    }
}

unsafe extern "system" fn create_device(
    physical_device: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    // SAFETY: the physical device is alive as long as its instance.
    let instance = get(&INSTANCES, unsafe { Key::of(physical_device) });
    // SAFETY: the loader passes a create info with links of devices.
    let link: Option<DeviceLink> =
        unsafe { take_link((*info).p_next, vk::StructureType::LOADER_DEVICE_CREATE_INFO) };
    let (Some(instance), Some(link)) = (instance, link) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: passed on as it came, but for the link that this layer used up.
    let result = unsafe { (instance.create_device)(physical_device, info, allocator, device) };
    if result == vk::Result::SUCCESS {
        // SAFETY: success means that the device was written.
        unsafe { keep_device(*device, link.get_other_proc_addr) };
    }
    result
}

/// # Safety
/// `device` is alive, and `get_proc_addr` is the next layer's function for it.
unsafe fn keep_device(device: vk::Device, get_proc_addr: vk::PFN_vkGetDeviceProcAddr) {
    let create_shader_module =
        lookup!(get_proc_addr, device, c"vkCreateShaderModule" as vk::PFN_vkCreateShaderModule);
    let destroy = lookup!(get_proc_addr, device, c"vkDestroyDevice" as vk::PFN_vkDestroyDevice);
    if let (Some(create_shader_module), Some(destroy)) = (create_shader_module, destroy) {
        // SAFETY: the device is alive.
        let key = unsafe { Key::of(device) };
        // SAFETY: the device is alive, and this is the next layer's function for it.
        let refused = unsafe { Refused::of(device, get_proc_addr) };
        lock(&DEVICES)
            .insert(key, Device { get_proc_addr, create_shader_module, destroy, refused });
        refusal::begin();
    }
}

unsafe extern "system" fn destroy_device(
    device: vk::Device,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if device == vk::Device::null() {
        return;
    }
    // SAFETY: the device is alive until the next layer destroys it.
    let next = lock(&DEVICES).remove(&unsafe { Key::of(device) });
    if let Some(next) = next {
        // SAFETY: passed on as it came.
        unsafe { (next.destroy)(device, allocator) };
    }
}

unsafe extern "system" fn create_shader_module(
    device: vk::Device,
    info: *const vk::ShaderModuleCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    module: *mut vk::ShaderModule,
) -> vk::Result {
    // SAFETY: the device is alive.
    let Some(next) = get(&DEVICES, unsafe { Key::of(device) }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: Vulkan passes a create info, and in it where the code is and its bytes, a multiple of
    // 4.
    let (mut info, code) =
        unsafe { (*info, std::slice::from_raw_parts((*info).p_code, (*info).code_size / 4)) };
    if refusal::refuses("vkCreateShaderModule") {
        return vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
    }
    let fault = match planned() {
        Some(Plan::Miscompile(fault)) => Some(fault),
        _ => None,
    };
    let planted = fault.and_then(|fault| Some((fault, fault.plant(code)?)));
    if let Some((fault, planted)) = &planted {
        eprintln!("{PREFIX}{fault} in {} of {} places", planted.changed, planted.found);
        info = info.code(&planted.code);
    }
    // SAFETY: passed on as it came, or with other code, which lives until the end of this function.
    unsafe { (next.create_shader_module)(device, &info, allocator, module) }
}
