//! What is no network is refused, and does not panic.

use std::sync::Arc;

use dynconv::layers::{AnyLayer, GlobalPool, WindowPool};
use dynconv::problem::Pooling;
use dynconv::program::Operation;
use dynconv::{Checkpoint, ConvDesc, Elem, Error, ModulatedConv2d, Result, Tensor};
use dynconv_nets::{Family, Network, Options, Slot, load};
use dynconv_suite::variants::noop;

const INPUT: [usize; 4] = [1, 4, 8, 8];

fn message(made: &Network) -> String {
    made.plan(&INPUT).expect_err("is refused").to_string()
}

#[test]
fn what_is_no_network_is_refused() -> Result<()> {
    let context = noop();
    assert!(message(&Network::new(&context)).contains("it has no layers"));

    let style = ModulatedConv2d::new(&context, &ConvDesc::new(4, 4, [1, 1]), &[0.5; 16], false)?;
    let style: Arc<dyn AnyLayer> = Arc::new(style);
    for flat in [false, true] {
        let mut made = Network::new(&context);
        made.layer(Arc::clone(&style), Slot::INPUT);
        let made = if flat { made.flat() } else { made };
        assert!(made.plan(&INPUT).is_err(), "a layer without its style, flat {flat}");
    }

    let halves = ConvDesc::new(4, 4, [2, 2]).groups(4).stride([2, 2]);
    let pool: Arc<dyn AnyLayer> = Arc::new(WindowPool::new(&context, &halves, Pooling::Max)?);
    for flat in [false, true] {
        let mut made = Network::new(&context);
        made.layer_add(Arc::clone(&pool), Slot::INPUT, Slot::INPUT);
        let made = if flat { made.flat() } else { made };
        assert!(made.plan(&INPUT).is_err(), "a residual of another size, flat {flat}");
    }

    let mut longer = Network::new(&context);
    let first = longer.layer(Arc::clone(&pool), Slot::INPUT);
    let second = longer.layer(pool, first);
    let mut made = Network::new(&context);
    made.layer(Arc::new(GlobalPool::new(&context)), second);
    assert_eq!(
        message(&made),
        "slot of a network: needs one of the 1 before the step, found number 2, of another network"
    );
    made.name("nowhere", second);
    assert!(matches!(made.until("nowhere")?.plan(&INPUT), Err(Error::Value { .. })));
    Ok(())
}

/// The mean over all positions is f32, whatever comes in: what follows is, too.
#[test]
fn halves_come_in_and_floats_go_out() -> Result<()> {
    let context = noop();
    let mut made = Network::new(&context);
    made.layer(Arc::new(GlobalPool::new(&context)), Slot::INPUT);
    assert_eq!(made.output_elem(Elem::F16Storage), Elem::F32);
    made.program(&INPUT, Elem::F16Storage).map(drop)
}

/// Attention of the demo's network is kept where that is asked for, each row a sample.
#[test]
fn attention_can_be_kept() -> Result<()> {
    let context = noop();
    let bytes = include_bytes!("../../assets/od_fashion.safetensors");
    let checkpoint = Checkpoint::new(bytes)?;
    assert_eq!(Family::detect(&checkpoint)?, Family::Plain);
    let network = load(&context, &checkpoint, &Options::default())?;
    let shape = [3, 1, 28, 28];
    assert_eq!(network.output_shape(&shape)?, [3, 10]);
    let (x, y) = (Tensor::zeros(&context, &shape)?, Tensor::zeros(&context, &[3, 10])?);
    for (network, kept) in [(network.clone(), 0), (network.keep_attention(), 3)] {
        let bound = network.bind(&x, &y)?;
        let operations = bound.program().operations();
        assert_eq!(operations.len(), network.stages().count());
        let rows = operations.iter().filter_map(Operation::attention);
        let rows: Vec<_> = rows.filter_map(|value| bound.kept(value)).collect();
        assert_eq!(rows.len(), kept);
        assert!(rows.iter().all(|row| row.shape()[0] == 3));
    }
    Ok(())
}
