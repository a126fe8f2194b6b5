//! What is no network is refused, and does not panic.

use std::sync::Arc;

use dynconv::layers::{AnyLayer, GlobalPool, WindowPool};
use dynconv::problem::Pooling;
use dynconv::{ConvDesc, Elem, Error, ModulatedConv2d, Result};
use dynconv_nets::{Network, Slot};
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
