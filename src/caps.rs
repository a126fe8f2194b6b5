//! What a device can do, as plain data for the planner.

use crate::elem::Elem;

/// Limits and features of a device that the planner and the layers look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Adapter name, as the driver tells it.
    pub name: String,
    /// Driver name and version.
    pub driver: String,
    /// Backend: Vulkan, Metal, Dx12, Gl, BrowserWebGpu or Noop.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, virtual, software (`Cpu`) or unknown.
    pub device_type: wgpu::DeviceType,
    /// Largest binding of a storage buffer, bytes.
    pub max_storage_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Storage buffers that one shader may bind.
    pub max_storage_buffers: u32,
    /// What a storage binding's offset must be a multiple of, bytes.
    pub storage_alignment: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Workgroup size along x.
    pub max_workgroup_size: u32,
    /// Workgroup memory, bytes.
    pub max_workgroup_memory: u32,
    /// Loop iterations of one invocation, all its loops together, that the driver carries out;
    /// `u32::MAX` where it has no such limit.
    pub max_loop_iterations: u32,
    /// Smallest and largest subgroup.
    pub subgroup_size: [u32; 2],
    /// Whether the device can time its passes.
    pub timestamps: bool,
    /// Whether shaders may compute in f16.
    pub f16: bool,
    /// Whether shaders may use subgroup operations.
    pub subgroups: bool,
    /// Whether shaders may use 64-bit integers.
    pub int64: bool,
    /// Cooperative matrices that `conv_gemm_coopmat` may compute with. Empty until
    /// [`Context::with_matrices`](crate::Context::with_matrices) has tested those of the
    /// device.
    pub matrices: Vec<MatrixShape>,
}

/// Cooperative matrices that shaders can write: square ones, the sums of their products in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Rows and columns, 8 or 16.
    pub size: u32,
    /// What is multiplied: [`Elem::F32`] or [`Elem::F16`].
    pub operand: Elem,
}

impl MatrixShape {
    /// What of these a shader can write; `None` for other sizes and numbers, and for sums in f16,
    /// which would lose what they add up.
    #[must_use]
    pub fn of_wgpu(properties: &wgpu::CooperativeMatrixProperties) -> Option<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let operand = match properties.ab_type {
            F32 => Elem::F32,
            F16 => Elem::F16,
            _ => return None,
        };
        let [size, n, k] = [properties.m_size, properties.n_size, properties.k_size];
        let can_write =
            (size == 8 || size == 16) && [n, k] == [size; 2] && properties.cr_type == F32;
        can_write.then_some(Self { size, operand })
    }
}

/// Invocations of a workgroup and bytes of workgroup memory from which on every tile of
/// `conv_gemm_shared` is possible with two buffers.
pub(crate) const LARGEST_TILES: [u32; 2] = [256, 2 * 8 * 2 * (4 * 128 + 16)];

/// A feature or a limit that layers would be faster with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Missing {
    /// Its name in `wgpu::Features` or `wgpu::Limits`.
    pub name: &'static str,
    /// What it is needed for.
    pub needed_for: &'static str,
}

impl Caps {
    pub(crate) fn new(
        info: &wgpu::AdapterInfo,
        limits: &wgpu::Limits,
        features: wgpu::Features,
    ) -> Self {
        let driver = [info.driver.as_str(), info.driver_info.as_str()];
        let driver: Vec<&str> = driver.into_iter().filter(|s| !s.is_empty()).collect();
        Self {
            name: info.name.clone(),
            driver: driver.join(", "),
            backend: info.backend,
            device_type: info.device_type,
            max_storage_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            storage_alignment: limits.min_storage_buffer_offset_alignment,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroup_size: limits.max_compute_workgroup_size_x,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_loop_iterations: loop_iterations(&info.name, &info.driver_info),
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            matrices: Vec::new(),
        }
    }

    /// Whether this is a software adapter: shaders run on processor cores.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.device_type == wgpu::DeviceType::Cpu
    }

    /// Whether this is a software adapter whose subgroups always have eight invocations, with
    /// 64-bit loads: what `conv_gemm_simd8` and its kin are written for.
    #[must_use]
    pub fn has_lanes(&self) -> bool {
        self.is_software() && self.subgroups && self.int64 && self.subgroup_size == [8, 8]
    }

    /// Features and limits that layers would be faster with. A device lacks them because its
    /// adapter does or because it was made without:
    /// [`Context::device_descriptor`](crate::Context::device_descriptor) asks for what the adapter
    /// has.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let lanes = "kernels that share loads within a subgroup";
        let tiles = "the largest tiles, loaded and summed up at once";
        let of_eight = self.is_software() && self.subgroup_size == [8, 8];
        let [invocations, memory] = LARGEST_TILES;
        let all = [
            (of_eight && !self.subgroups, "SUBGROUP", lanes),
            (of_eight && !self.int64, "SHADER_INT64", lanes),
            (self.has_fewer(invocations), "max_compute_invocations_per_workgroup", tiles),
            (
                self.has_tiles() && self.max_workgroup_memory < memory,
                "max_compute_workgroup_storage_size",
                tiles,
            ),
        ];
        let is_missing = |(is_missing, name, needed_for)| {
            bool::then_some(is_missing, Missing { name, needed_for })
        };
        all.into_iter().filter_map(is_missing).collect()
    }

    /// The same device with nothing missing.
    pub(crate) fn fuller(&self) -> Self {
        let [invocations, memory] = LARGEST_TILES;
        Self {
            subgroups: true,
            int64: true,
            max_invocations: self.max_invocations.max(invocations),
            max_workgroup_size: self.max_workgroup_size.max(invocations),
            max_workgroup_memory: self.max_workgroup_memory.max(memory),
            ..self.clone()
        }
    }

    /// Whether large tiles in workgroup memory pay.
    fn has_tiles(&self) -> bool {
        !self.is_software() && !self.is_mobile()
    }

    fn has_fewer(&self, invocations: u32) -> bool {
        self.has_tiles() && self.max_invocations.min(self.max_workgroup_size) < invocations
    }

    /// Whether this is a GPU of a phone: Mali and Immortalis (Arm), Adreno (Qualcomm) or PowerVR
    /// (Imagination), by the name that their drivers tell. Tiles in workgroup memory do not pay
    /// there: Arm's keeps that memory in its caches ("Arm Mali GPU OpenCL Developer Guide", memory
    /// model), and all have fewer registers an invocation than the large tiles take. What no driver
    /// names, as in browsers, counts as another GPU. Samsung's Xclipse does, too: it is of
    /// AMD's RDNA family.
    #[must_use]
    pub fn is_mobile(&self) -> bool {
        let name = self.name.to_lowercase();
        ["adreno", "mali", "immortalis", "powervr"]
            .into_iter()
            .any(|family| name.split(|c: char| !c.is_alphanumeric()).any(|word| word == family))
    }

    /// Caps of a device.
    #[must_use]
    pub fn of_device(device: &wgpu::Device) -> Self {
        Self::new(&device.adapter_info(), &device.limits(), device.features())
    }

    /// Caps of an adapter: what a device made from it could offer at most.
    #[must_use]
    pub fn of_adapter(adapter: &wgpu::Adapter) -> Self {
        Self::new(&adapter.get_info(), &adapter.limits(), adapter.features())
    }

    /// What every WebGPU device offers: the default limits and no optional feature.
    #[must_use]
    pub fn webgpu_default() -> Self {
        let info = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Noop);
        Self::new(&info, &wgpu::Limits::default(), wgpu::Features::empty())
    }
}

/// Mesa's llvmpipe of 22.3 silently ends the loops of an invocation after 65,535 iterations,
/// counted over all of them; 25.0 does not. What lies between was not measured, and counts as the
/// older.
fn loop_iterations(name: &str, driver_info: &str) -> u32 {
    let version = driver_info
        .split("Mesa ")
        .nth(1)
        .and_then(|v| v.split('.').next())
        .and_then(|v| v.parse::<u32>().ok());
    match version {
        Some(major) if name.contains("llvmpipe") && major < 25 => 65_535,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::loop_iterations;

    #[test]
    fn old_software_vulkan_has_a_loop_limit() {
        assert_eq!(
            loop_iterations("llvmpipe (LLVM 15.0.6, 256 bits)", "Mesa 22.3.6 (LLVM 15.0.6)"),
            65_535
        );
        assert_eq!(
            loop_iterations(
                "llvmpipe (LLVM 15.0.6, 256 bits)",
                "Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)"
            ),
            u32::MAX
        );
        assert_eq!(loop_iterations("AMD Radeon RX 6800 (RADV NAVI21)", "Mesa 22.3.6"), u32::MAX);
        assert_eq!(loop_iterations("NVIDIA GeForce", "550.54"), u32::MAX);
    }
}
