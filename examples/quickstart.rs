//! The README's first example.
use dynconv::{BankConv2d, Context, ConvDesc};

fn main() -> dynconv::Result<()> {
    let context = Context::request_blocking()?;
    let desc = ConvDesc::new(2, 3, [3, 3]).kernels(4).padding([1, 1]);
    let bank: Vec<f32> = (0..4 * 3 * 2 * 9).map(|i| (i % 7) as f32 - 3.0).collect();
    let layer = BankConv2d::new(&context, &desc, &bank, None)?;
    let attention = [0.75, 0.0, 0.25, 0.0]; // one sample: 3/4 of kernel 0, 1/4 of kernel 2
    let y = layer.run(1, [5, 5], &[1.0; 2 * 5 * 5], &attention)?;
    println!("{y:?}"); // [1, 3, 5, 5]
    Ok(())
}
