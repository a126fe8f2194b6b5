//! One dynamic convolution layer on host data.
use dynconv::{BankConv2d, Context, ConvDesc};

fn main() -> dynconv::Result<()> {
    let context = Context::request_blocking()?;
    let desc = ConvDesc::new(2, 3, [3, 3]).kernels(4).padding([1, 1]);
    let bank: Vec<f32> = (0..4 * 3 * 2 * 9).map(|i| (i % 7) as f32 - 3.0).collect();
    let layer = BankConv2d::new(&context, &desc, &bank, None)?;
    // One image of 5 x 5 with 2 channels; its kernel is three quarters of kernel 0 and a quarter of kernel 2.
    let y = layer.run(1, [5, 5], &[1.0; 50], &[0.75, 0.0, 0.25, 0.0])?;
    println!("{y:?}");
    Ok(())
}
