//! Tensors, layers and buffers of two devices are never mixed.

use dynconv::problem::Cells;
use dynconv::{Context, ConvDesc, Error, KernelWarehouse2d, Tensor, Warehouse, wgpu};

use super::uses::uses;
use super::{Noise, weights};

/// Hands every operand of every use a tensor of `other`, while the rest is of `own`; and nothing
/// is refused of a second context of the same device.
pub(crate) fn every_mixture_is_refused(own: &Context, other: &Context) {
    let again = Context::from_wgpu(own.device().clone(), own.queue().clone());
    let variants = [own.clone(), again, own.clone().with_caps(own.caps().clone())];
    let mut refused = 0;
    for each in uses(own, 2) {
        let tensors = |context: &Context| -> Vec<Tensor> {
            each.operands
                .iter()
                .map(|(_, shape)| Tensor::zeros(context, shape).expect("fits"))
                .collect()
        };
        let call = |tensors: &[Tensor]| (each.call)(&tensors.iter().collect::<Vec<_>>());
        for variant in &variants {
            call(&tensors(variant)).unwrap_or_else(|error| panic!("{}: {error}", each.name));
        }
        for (place, (operand, _)) in each.operands.iter().enumerate() {
            let mut mixed = tensors(own);
            mixed[place] = tensors(other).swap_remove(place);
            let error =
                call(&mixed).err().unwrap_or_else(|| panic!("{}: {operand} was taken", each.name));
            is_refusal(&error, operand, own, other);
            refused += 1;
        }
    }
    assert_eq!(refused, 142);

    let tensor = Tensor::zeros(own, &[2, 3]).expect("fits");
    is_refusal(
        &tensor.write(other, &[1.0; 6]).expect_err("another's"),
        "tensor [2, 3]",
        other,
        own,
    );
    is_refusal(&tensor.read_blocking(other).expect_err("another's"), "tensor [2, 3]", other, own);
    is_refusal(
        &pollster::block_on(tensor.read(other)).expect_err("another's"),
        "tensor [2, 3]",
        other,
        own,
    );
    let second = std::time::Duration::from_secs(1);
    is_refusal(
        &tensor.read_blocking_for(other, second).expect_err("another's"),
        "tensor [2, 3]",
        other,
        own,
    );
    let reshaped = tensor.reshape(&[6]).expect("as many");
    is_refusal(&reshaped.read_blocking(other).expect_err("another's"), "tensor [6]", other, own);

    let cells = Cells { count: 3, c_out: 2, c_in: 2, taps: 1 };
    let warehouse = Warehouse::new(other, cells, &[0.5; 12]).expect("valid");
    let desc = ConvDesc::new(4, 6, [3, 3]);
    let weights = weights::kernel_warehouse(
        &mut Noise::new(1),
        &desc.geometry().expect("valid"),
        cells,
        false,
    );
    let error = KernelWarehouse2d::new(own, &desc, &weights, &warehouse).expect_err("another's");
    is_refusal(&error, "warehouse", own, other);
}

/// An error that names the operand and tells the contexts apart.
fn is_refusal(error: &Error, operand: &str, own: &Context, other: &Context) {
    assert!(matches!(error, Error::OtherDevice { .. }), "{operand}: {error:?}");
    let home = |context: &Context| {
        let text = format!("{context:?}");
        text.split("home: ")
            .nth(1)
            .and_then(|text| text.split(", backend").next())
            .expect("names it")
            .to_string()
    };
    let expected = format!("{operand} belongs to {}, but is used with {}", home(other), home(own));
    assert_eq!(error.to_string(), expected);
    assert_ne!(home(own), home(other));
}

/// Buffers of another device, of the same instance or not, and destroyed ones are refused where
/// they are wrapped.
pub(crate) fn foreign_buffers_are_refused(own: &Context, others: &[&Context]) {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |context: &Context| {
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
        context.device().create_buffer(&descriptor)
    };
    for other in others {
        // Without a handler a device panics at its first mistake, which is caught, and printed.
        other.device().on_uncaptured_error(std::sync::Arc::new(|_| {}));
        for foreign in [(); 20].map(|()| buffer(other)) {
            let error = Tensor::wrap(own, &foreign, 0, &[3]).expect_err("another's");
            assert!(matches!(error, Error::OtherDevice { .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.starts_with(
                    "the buffer of tensor [3] belongs to another device, but is used with context"
                ),
                "{text}"
            );
        }
    }
    for _ in 0..3 {
        let buffer = buffer(own);
        let tensor = Tensor::wrap(own, &buffer, 0, &[3]).expect("its own");
        tensor.write(own, &[1.0; 3]).expect("writes");
        buffer.destroy();
        for error in [
            Tensor::wrap(own, &buffer, 0, &[3]).expect_err("destroyed"),
            tensor.write(own, &[1.0; 3]).expect_err("destroyed"),
            tensor.read_blocking(own).expect_err("destroyed"),
        ] {
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        }
    }
    // What is destroyed after it was bound is refused when it is submitted; before, when it is
    // bound.
    for each in uses(own, 1) {
        for place in 0..each.operands.len() {
            let tensors: Vec<Tensor> = each
                .operands
                .iter()
                .map(|(_, shape)| Tensor::zeros(own, shape).expect("fits"))
                .collect();
            tensors[place].buffer().destroy();
            let error = (each.call)(&tensors.iter().collect::<Vec<_>>()).expect_err("destroyed");
            assert!(matches!(error, Error::Refused { .. }), "{}: {error:?}", each.name);
        }
    }
}
