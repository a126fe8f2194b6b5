//! Random weights of the layers that compute their own attention.

use dynconv::problem::{Cells, Geometry};
use dynconv::{
    BatchNorm, CondConvWeights, DcdWeights, DyCnnWeights, FdyWeights, KernelWarehouseWeights,
    Linear, OdWeights, PixelMixWeights,
};

use crate::noise::Noise;

fn linear(noise: &mut Noise, outputs: usize, inputs: usize) -> Linear {
    Linear { weight: noise.floats(outputs * inputs), bias: noise.floats(outputs) }
}

/// A batch norm.
pub fn batch_norm(noise: &mut Noise, width: usize) -> BatchNorm {
    BatchNorm {
        weight: noise.floats(width),
        bias: noise.floats(width),
        mean: noise.floats(width),
        var: noise.floats(width).iter().map(|v| v.abs() + 0.5).collect(),
        epsilon: 1e-5,
    }
}

fn bank(noise: &mut Noise, g: &Geometry) -> Vec<f32> {
    noise.floats(g.kernels * g.weights())
}

fn bias_bank(noise: &mut Noise, g: &Geometry, present: bool) -> Option<Vec<f32>> {
    present.then(|| noise.floats(g.kernels * g.c_out))
}

/// DY-CNN, with or without a bias bank, and biases in the branch.
pub fn dy_cnn(noise: &mut Noise, g: &Geometry, [bias, branch_bias]: [bool; 2]) -> DyCnnWeights {
    let hidden = g.c_in / 4 + 1;
    DyCnnWeights {
        bank: bank(noise, g),
        bias: bias_bank(noise, g, bias),
        hidden: noise.floats(hidden * g.c_in),
        hidden_bias: branch_bias.then(|| noise.floats(hidden)),
        head: noise.floats(g.kernels * hidden),
        head_bias: branch_bias.then(|| noise.floats(g.kernels)),
    }
}

/// The heads are those that the published code gives the layer.
pub fn od_conv(noise: &mut Noise, g: &Geometry) -> OdWeights {
    let hidden = (g.c_in / 16).max(16);
    let outputs = [g.c_in, g.c_out, g.taps(), g.kernels];
    let heads = dynconv::layers::published_heads(g);
    let [channel_head, filter_head, tap_head, kernel_head] =
        [0, 1, 2, 3].map(|i| heads[i].then(|| linear(noise, outputs[i], hidden)));
    OdWeights {
        bias: None,
        bank: bank(noise, g),
        hidden: noise.floats(hidden * g.c_in),
        norm: batch_norm(noise, hidden),
        channel_head,
        filter_head,
        tap_head,
        kernel_head,
    }
}

/// CondConv.
pub fn cond_conv(noise: &mut Noise, g: &Geometry, bias: bool) -> CondConvWeights {
    CondConvWeights {
        bank: bank(noise, g),
        bias: bias_bank(noise, g, bias),
        head: noise.floats(g.kernels * g.c_in),
        head_bias: noise.floats(g.kernels),
    }
}

/// KernelWarehouse.
pub fn kernel_warehouse(
    noise: &mut Noise,
    g: &Geometry,
    cells: Cells,
    bias: bool,
) -> KernelWarehouseWeights {
    let hidden = (g.c_in / 4).max(3);
    KernelWarehouseWeights {
        hidden: noise.floats(hidden * g.c_in),
        norm: batch_norm(noise, hidden),
        head: linear(noise, cells.per_kernel(g) * (cells.count + 1), hidden),
        bias: bias.then(|| noise.floats(g.c_out)),
    }
}

/// A pixel mixture.
pub fn pixel_mix(noise: &mut Noise, g: &Geometry, bias: bool) -> PixelMixWeights {
    PixelMixWeights {
        bank: bank(noise, g),
        bias: bias_bank(noise, g, bias),
        head: linear(noise, g.kernels, g.c_in),
    }
}

/// Frequency dynamic convolution.
pub fn fdy(noise: &mut Noise, g: &Geometry, bias: bool) -> FdyWeights {
    let hidden = g.c_in / 4 + 2;
    FdyWeights {
        bank: bank(noise, g),
        bias: bias_bank(noise, g, bias),
        hidden: noise.floats(hidden * g.c_in * g.kernel[2]),
        norm: batch_norm(noise, hidden),
        head: linear(noise, g.kernels, hidden),
    }
}

/// Dynamic channel fusion, pooled to so many means along each axis.
pub fn dcd(noise: &mut Noise, g: &Geometry, cells: usize) -> DcdWeights {
    let (latent, squeezed) = (g.c_out / 4 + 2, g.c_in / 4 + 2);
    DcdWeights {
        conv: noise.floats(g.weights()),
        q: noise.floats(latent * g.c_in),
        p: noise.floats(g.c_out * latent),
        norm1: batch_norm(noise, latent),
        norm2: batch_norm(noise, latent),
        squeeze: noise.floats(squeezed * cells * cells * g.c_in),
        gate: noise.floats(squeezed * squeezed),
        phi: noise.floats(latent * latent * squeezed),
        scale: noise.floats(g.c_out * squeezed),
    }
}
