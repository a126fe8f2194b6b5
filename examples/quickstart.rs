//! One dynamic convolution on host data: the README's first example, with real numbers to look at.
use dynconv::{BankConv2d, Context, ConvDesc};

fn main() -> dynconv::Result<()> {
    let context = Context::request_blocking()?;
    let desc = ConvDesc::new(2, 3, [3, 3]).kernels(4).padding([1, 1]);
    let bank: Vec<f32> = (0..4 * 3 * 2 * 9).map(|i| (i % 7) as f32 - 3.0).collect();
    let layer = BankConv2d::new(&context, &desc, &bank, None)?;
    // Two images of 2 channels and 5 x 5 pixels, each with a mixture of the four kernels of its own.
    let attention = [0.75, 0.0, 0.25, 0.0, 0.0, 0.5, 0.0, 0.5];
    let y = layer.run(2, [5, 5], &[1.0; 2 * 2 * 25], &attention)?;
    println!("{:?}", &y[..5]);
    Ok(())
}
