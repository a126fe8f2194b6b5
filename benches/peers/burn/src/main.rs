//! Dynamic convolution by Burn's wgpu backend, the batch as groups: shapes as JSON on standard
//! input, a line a result on standard output. `peers.py` runs it.

use std::time::Instant;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};

/// A sample lasts at least this long.
const SAMPLE_MS: f64 = 2.0;

/// A shape as `peers.py` tells it.
#[derive(serde::Deserialize)]
struct Shape {
    name: String,
    batch: usize,
    cin: usize,
    cout: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    kernels: usize,
}

/// Numbers of a shape.
struct Numbers {
    x: Vec<f32>,
    bank: Vec<f32>,
    attention: Vec<f32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let samples: usize = std::env::args().nth(1).unwrap_or_else(|| "3".into()).parse()?;
    let shapes: Vec<Shape> = serde_json::from_reader(std::io::stdin())?;
    let device = Device::wgpu(Default::default());
    for shape in &shapes {
        let mut result = measure(shape, samples, &device);
        result["shape"] = shape.name.clone().into();
        println!("RESULT {result}");
    }
    Ok(())
}

fn measure(s: &Shape, samples: usize, device: &Device) -> serde_json::Value {
    let numbers = Numbers::new(s);
    let weights = s.cout * s.cin / s.groups * s.kernel[0] * s.kernel[1];
    let tensor = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let x = tensor(&numbers.x, [s.batch * s.cin, s.input[0] * s.input[1]]).reshape([
        1,
        s.batch * s.cin,
        s.input[0],
        s.input[1],
    ]);
    let bank = tensor(&numbers.bank, [s.kernels, weights]);
    let attention = tensor(&numbers.attention, [s.batch, s.kernels]);
    let options = || ConvOptions::new(s.stride, s.padding, s.dilation, s.batch * s.groups);
    let run = || {
        let rows = attention.clone().matmul(bank.clone());
        let kernels: Tensor<4> =
            rows.reshape([s.batch * s.cout, s.cin / s.groups, s.kernel[0], s.kernel[1]]);
        conv2d(x.clone(), kernels, None, options())
    };
    let y: Vec<f32> = match run().into_data().to_vec() {
        Ok(y) => y,
        Err(error) => return serde_json::json!({ "failed": format!("{error:?}") }),
    };
    let error = numbers.error(s, &y);
    if !(error < 1e-4) {
        let what = format!("wrong: off by {error:.1e} of the largest output");
        return serde_json::json!({ "failed": what });
    }
    let sample = |repeats: usize| {
        let start = Instant::now();
        let mut last = None;
        for _ in 0..repeats {
            last = Some(run());
        }
        // Waiting for the device; what was computed lives until then.
        let _ = device.sync();
        drop(last);
        start.elapsed().as_secs_f64() * 1e3 / repeats as f64
    };
    // The first calls tune and compile.
    sample(2);
    let repeats = ((SAMPLE_MS / sample(1)).ceil() as usize).clamp(1, 1000);
    let mut times: Vec<f64> = (0..samples.max(1)).map(|_| sample(repeats)).collect();
    times.sort_by(f64::total_cmp);
    serde_json::json!({ "ms": times[times.len() / 2], "error": error })
}

impl Numbers {
    fn new(s: &Shape) -> Self {
        let mut state = 1_u64;
        let mut noise = |len: usize| -> Vec<f32> {
            let next = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..len).map(next).collect()
        };
        Self {
            x: noise(s.batch * s.cin * s.input[0] * s.input[1]),
            bank: noise(s.kernels * s.cout * s.cin / s.groups * s.kernel[0] * s.kernel[1]),
            attention: noise(s.batch * s.kernels),
        }
    }

    /// Largest difference of the last sample from its definition in f64, relative to the largest
    /// output.
    fn error(&self, s: &Shape, y: &[f32]) -> f64 {
        let sample = s.batch - 1;
        let mix = &self.attention[sample * s.kernels..];
        let bank = self.bank.len() / s.kernels;
        let weight: Vec<f64> = (0..bank)
            .map(|i| {
                (0..s.kernels).map(|k| f64::from(mix[k]) * f64::from(self.bank[k * bank + i])).sum()
            })
            .collect();
        let out: [usize; 2] = std::array::from_fn(|a| {
            (s.input[a] + 2 * s.padding[a] - s.dilation[a] * (s.kernel[a] - 1) - 1) / s.stride[a]
                + 1
        });
        let [c_in, c_out] = [s.cin / s.groups, s.cout / s.groups];
        let place = |o: usize, tap: usize, a: usize| {
            (o * s.stride[a] + tap * s.dilation[a])
                .checked_sub(s.padding[a])
                .filter(|&i| i < s.input[a])
        };
        let found = &y[sample * s.cout * out[0] * out[1]..];
        let [mut largest, mut worst] = [0.0_f64; 2];
        for (i, &found) in found.iter().enumerate() {
            let (co, oy, ox) = (i / (out[0] * out[1]), i / out[1] % out[0], i % out[1]);
            let mut sum = 0.0;
            for ci in 0..c_in {
                let channel = sample * s.cin + co / c_out * c_in + ci;
                for ky in 0..s.kernel[0] {
                    let Some(iy) = place(oy, ky, 0) else { continue };
                    for kx in 0..s.kernel[1] {
                        let Some(ix) = place(ox, kx, 1) else { continue };
                        let w = weight[((co * c_in + ci) * s.kernel[0] + ky) * s.kernel[1] + kx];
                        sum += w * f64::from(self.x[(channel * s.input[0] + iy) * s.input[1] + ix]);
                    }
                }
            }
            largest = largest.max(sum.abs());
            worst = worst.max((sum - f64::from(found)).abs());
        }
        worst / largest
    }
}
