//! An app that owns its device: it binds a layer to its own buffers once and records it into its
//! own encoder every frame, between passes of its own.

use dynconv::{Context, ConvDesc, DyCnnWeights, DynConv2d, Tensor, wgpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The app's device, made as the app likes. The library asks for nothing and sets no callback
    // on it. What it would ask for is in the descriptor, to which an app adds what it needs
    // itself: a device of the default descriptor may be ten times slower.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) =
        pollster::block_on(adapter.request_device(&Context::device_descriptor(&adapter)))?;
    let context = Context::from_wgpu(device.clone(), queue.clone());

    // The app's buffers: the input lies 1 KiB into a buffer that holds other things too.
    let storage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let buffer = |size: u64| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: storage,
            mapped_at_creation: false,
        })
    };
    let (frame, result) = (buffer(1 << 20), buffer(1 << 20));
    let x = Tensor::wrap(&context, &frame, 1024, &[1, 8, 32, 32])?;
    let y = Tensor::wrap(&context, &result, 0, &[1, 16, 32, 32])?;

    // The layer: attention, aggregation, convolution, bias. Everything is checked and made here.
    let desc = ConvDesc::new(8, 16, [3, 3]).kernels(4).padding([1, 1]);
    let wave = |len: usize| (0..len).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    let weights = DyCnnWeights {
        bank: wave(4 * 16 * 8 * 9),
        bias: Some(wave(4 * 16)),
        hidden: wave(3 * 8),
        head: wave(4 * 3),
        ..Default::default()
    };
    let layer = DynConv2d::new(&context, &desc, &weights, 1.0)?;
    println!("{}\n", layer.plan(1, [32, 32])?);
    let bound = layer.bind(&x, &y)?;

    for number in 0..3_u16 {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        // The app's own work on the frame would stand here; this one just uploads it.
        let pixels: Vec<f32> =
            (0..x.len()).map(|i| ((i as f32) * 0.01 + f32::from(number)).cos()).collect();
        x.write(&context, &pixels)?;
        // Nothing is allocated and nothing submitted: the layer joins whatever the encoder holds.
        bound.record(&mut encoder);
        queue.submit([encoder.finish()]);

        let values = y.read_blocking(&context)?;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        println!("frame {number}: mean of the output {mean:.6}");
    }
    Ok(())
}
