//! Cooperative matrices are used once they were tested, and only then. Needs an adapter that has
//! them, such as Mesa's software Vulkan of 2026; their results are held to the laws by `dynconv
//! check --matrices`.

use dynconv::device::ContextOptions;
use dynconv::kernels::Kernel;
use dynconv::{Context, ConvDesc, Elem, Error, StaticConv2d, Tensor, wgpu};
use dynconv_suite::matrices;

/// A device whose matrices were not tested yet, and its adapter.
fn untested() -> Option<(Context, wgpu::Adapter)> {
    let opened = pollster::block_on(matrices::open(&ContextOptions::default()));
    let (context, adapter) = opened.expect("these tests need a Vulkan, Metal or DX12 adapter");
    if context.device().features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Some((context, adapter));
    }
    let error = context.with_matrices(&adapter).expect_err("there are none");
    assert!(matches!(error, Error::MissingFeature { .. }), "{error}");
    eprintln!("NOT RUN: {} has no cooperative matrices", adapter.get_info().name);
    None
}

#[test]
fn matrices_that_compute_wrongly_are_refused() {
    let Some((context, adapter)) = untested() else { return };
    assert!(context.caps().matrices.is_empty(), "nobody has tested them");
    let tested = context.clone().with_matrices(&adapter).expect("they compute rightly");
    assert!(!tested.caps().matrices.is_empty());
    let faults = [
        // A matrix read in the wrong order, one that is not multiplied, a quarter by the wrong
        // subgroup, a tap too many.
        ("coopLoad<MatrixB>", "coopLoadT<MatrixB>"),
        ("sum11 = coopMultiplyAdd(w1, x1, sum11);", ""),
        ("subgroup % 4u", "(subgroup + 1u) % 2u"),
        ("step % TAPS, out", "(step + 1u) % TAPS, out"),
    ];
    for (original, planted) in faults {
        let faulty = context.clone().with_shaders(move |variant| {
            let source = variant.source();
            assert!(source.contains(original), "{original} is not in the shader");
            source.replace(original, planted)
        });
        let error = faulty.with_matrices(&adapter).expect_err(planted);
        assert!(matches!(error, Error::Wrong { .. }), "{original} -> {planted}: {error}");
    }
}

#[test]
fn a_gpu_with_matrices_uses_them() {
    let Some((context, adapter)) = untested() else { return };
    let tested = context.clone().with_matrices(&adapter).expect("they compute rightly");
    let planned = |context: Context| {
        // Software adapters have matrices, too, but are no faster with them.
        let device_type = wgpu::DeviceType::IntegratedGpu;
        let caps = dynconv::Caps { device_type, ..context.caps().clone() };
        let context = context.with_caps(caps);
        let desc = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
        let layer =
            StaticConv2d::new(&context, &desc, &vec![0.5; 64 * 64 * 9], None).expect("valid");
        let elem = context.caps().matrices.first().map_or(Elem::F16, |shape| shape.operand);
        let x = Tensor::zeros_in(&context, &[1, 64, 16, 16], elem).expect("fits");
        let y = Tensor::zeros(&context, &[1, 64, 16, 16]).expect("fits");
        layer.bind(&x, &y).expect("binds").steps()[0].dispatch().variant.kernel
    };
    assert_eq!(planned(tested), Kernel::ConvGemmCoopmat);
    assert_ne!(planned(context), Kernel::ConvGemmCoopmat);
}
