//! Two devices of an adapter, of one instance or of two.

use dynconv::{Context, wgpu};

use crate::common::mixing::{every_mixture_is_refused, foreign_buffers_are_refused};

/// Two devices of one instance.
fn pair() -> [Context; 2] {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    [(); 2].map(|()| {
        let adapter =
            pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
                .expect("these tests need a Vulkan, Metal or DX12 adapter");
        let device =
            pollster::block_on(adapter.request_device(&Context::device_descriptor(&adapter)));
        let (device, queue) = device.expect("the adapter gives a device");
        Context::from_wgpu(device, queue)
    })
}

#[test]
fn devices_do_not_mix() {
    let [one, two] = pair();
    let [elsewhere, _] = pair();
    every_mixture_is_refused(&one, &two);
    every_mixture_is_refused(&one, &elsewhere);
    foreign_buffers_are_refused(&one, &[&two, &elsewhere]);
}
