//! Every convolution kernel on shapes of well-known networks, aggregation included: `cargo bench`,
//! or `cargo bench -- SET|FILE...`.
//!
//! Measured as `dynconv bench` does, which has more to say: results are checked first, and our own
//! static convolution and the batch as groups take turns with each layer.

use std::ops::ControlFlow;

use dynconv::Algorithm;
use dynconv::Context;
use dynconv_measure::{Case, Options, Outcome, Peak, load, measure};
use dynconv_suite::spec::Family;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench` to the arguments.
    let mut sets: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if sets.is_empty() {
        sets.push("peers".into());
    }
    let context = Context::request_blocking()?;
    let peak = Peak::measure(&context, false)?;
    println!("{} ({})", context.caps().name, context.caps().driver);
    println!("measured peak {:.1} GFLOP/s, copy {:.1} GB/s", peak.gflops, peak.copy_gbps);
    let kernels =
        Algorithm::ALL.iter().copied().filter(|kernel| *kernel != Algorithm::Auto).collect();
    let options = Options {
        family: Family::Bank,
        elem: dynconv::Elem::F32,
        kernels,
        samples: 7,
        groups: true,
        quick: false,
    };
    for set in &sets {
        for shape in load(set)? {
            println!("\n{}: {}", shape.name, shape.spec);
            let case = Case { batch: shape.spec.batch, shape };
            for outcome in
                measure(&context, &peak, &case, &options, &mut |_| ControlFlow::Continue(()))?
            {
                print(&outcome);
            }
        }
    }
    Ok(())
}

/// A line a kernel; those that cannot compute the shape are left out.
fn print(outcome: &Outcome) {
    match outcome {
        Outcome::Measured(row) => println!(
            "  {:<10} {:9.2} ms (min {:.2}, max {:.2})  {:8.2} GFLOP/s  \
             {:5.2} x static  error {:.0e}",
            row.strategy,
            row.median_ms,
            row.min_ms,
            row.max_ms,
            row.gflops,
            row.ratio_to_static,
            row.verified_error,
        ),
        Outcome::NotMeasured(refusal) if refusal.is_wrong => {
            println!("  {:<10} WRONG: {}", refusal.strategy, refusal.reason)
        }
        Outcome::NotMeasured(_) => {}
    }
}
