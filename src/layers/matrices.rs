//! Turns cooperative matrices on, once what a device makes of them has been tested.

use super::{Layer, Static};
use crate::caps::{Caps, MatrixShape};
use crate::device::{Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::problem::{Activation, Algorithm, ConvDesc, Layout};
use crate::reference::{Conv, conv_gemm_coopmat, narrow, widen};

/// Samples, channels in and out, and size of the test: past a tile, a step and a group, all of them
/// ragged, in the largest matrices too.
const BATCH: usize = 2;
const CHANNELS: [usize; 2] = [74, 140];
const GROUPS: usize = 2;
const SIZE: [usize; 2] = [9, 11];

impl Context {
    /// Lets plans use `conv_gemm_coopmat`: convolutions by the hardware that GPUs have for products
    /// of small matrices (tensor cores, WMMA, simdgroup matrices). `adapter` is the one that
    /// the device came from; wgpu tells of it alone which matrices there are.
    ///
    /// wgpu calls the feature experimental: the device must have been made with
    /// `EXPERIMENTAL_COOPERATIVE_MATRIX`, `SUBGROUP` and, for products in f16, `SHADER_F16`.
    /// [`Context::request`] asks for the last two, never for the first. **The kernel has run on
    /// Mesa's software Vulkan; no GPU was at hand.** So each kind of matrix is tested here
    /// first: the device computes a convolution of small integers, whose result must be that of
    /// the CPU to the bit. It takes a compilation and a few milliseconds.
    ///
    /// Inputs in f32 are multiplied in f32, where the device has such matrices. Inputs in f16 are
    /// multiplied by weights that are rounded to f16, too, and saturate at 65,504: each product
    /// is off by at most 2<sup>-10</sup> of itself more than elsewhere. Sums are in f32.
    /// Contexts that were cloned before go on without matrices.
    ///
    /// # Errors
    /// [`Error::MissingFeature`] if the device was made without a feature, [`Error::Value`] if the
    /// adapter is another one, [`Error::Unsupported`] if it lists no matrices that shaders can
    /// write, [`Error::Wrong`] if the device computes something else than the CPU; all errors
    /// of a layer.
    pub fn with_matrices(self, adapter: &wgpu::Adapter) -> Result<Self> {
        check_features(self.device().features())?;
        let [own, found] = [self.device().adapter_info(), adapter.get_info()];
        if own != found {
            let [needed, found] = [own.name, found.name];
            return Err(Error::Value { what: "adapter of the device".into(), needed, found });
        }
        let listed = adapter.cooperative_matrix_properties();
        let matrices = usable(&listed, self.caps());
        if matrices.is_empty() {
            return Err(Error::Unsupported {
                what: "cooperative matrices".into(),
                because: format!(
                    "shaders can write 8 x 8 and 16 x 16 with sums in f32, and the adapter lists \
                     {listed:?}"
                ),
            });
        }
        for &shape in &matrices {
            test(
                &self.clone().with_caps(Caps { matrices: vec![shape], ..self.caps().clone() }),
                shape,
            )?;
        }
        let caps = Caps { matrices, ..self.caps().clone() };
        Ok(self.with_caps(caps))
    }
}

fn check_features(features: wgpu::Features) -> Result<()> {
    let needed = [
        (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "EXPERIMENTAL_COOPERATIVE_MATRIX"),
        (wgpu::Features::SUBGROUP, "SUBGROUP"),
    ];
    match needed.into_iter().find(|(feature, _)| !features.contains(*feature)) {
        None => Ok(()),
        Some((_, feature)) => {
            Err(Error::MissingFeature { feature, needed_for: "conv_gemm_coopmat".into() })
        }
    }
}

/// What of an adapter's list shaders can write on a device with these caps, each once.
fn usable(listed: &[wgpu::CooperativeMatrixProperties], caps: &Caps) -> Vec<MatrixShape> {
    let mut shapes = Vec::new();
    for shape in listed.iter().filter_map(MatrixShape::of_wgpu) {
        if !shapes.contains(&shape) && (caps.f16 || shape.operand != Elem::F16) {
            shapes.push(shape);
        }
    }
    shapes
}

/// Integers that differ from one place to the next, from -`largest` to `largest`.
fn integers(len: usize, largest: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * i / 3 + 7 * i) % (2 * largest + 1)) as f32 - largest as f32).collect()
}

/// A convolution in matrices of one shape, against the CPU. The largest sum, 37 * 9 * 4 * 3, is
/// exact in f32, and every operand in f16.
fn test(context: &Context, shape: MatrixShape) -> Result<()> {
    let desc = ConvDesc::new(CHANNELS[0], CHANNELS[1], [3, 3]).padding([1, 1]).groups(GROUPS);
    let geometry = desc.geometry()?;
    let x = integers(BATCH * CHANNELS[0] * SIZE[0] * SIZE[1], 4);
    let kernel = integers(geometry.weights(), 3);
    let layer = Layer::<2, Static>::new(context, &desc, &kernel, None)?
        .algorithm(Algorithm::ConvGemmCoopmat);
    let input =
        Tensor::upload_in(context, &[BATCH, CHANNELS[0], SIZE[0], SIZE[1]], &x, shape.operand)?;
    let output = Tensor::zeros(context, &[BATCH, CHANNELS[1], SIZE[0], SIZE[1]])?;
    let bound = layer.bind(&input, &output)?;
    context.submit("the test of cooperative matrices", |encoder| bound.record(encoder))?;
    let found = output.read_blocking(context)?;
    let size = [1, SIZE[0], SIZE[1]];
    let expected = narrow(&conv_gemm_coopmat::conv_gemm_coopmat(&Conv {
        geometry: &geometry,
        batch: BATCH,
        input: size,
        output: size,
        x: &widen(&x),
        rows: &widen(&kernel),
        row_stride: 0,
        has_bias: false,
        gains: None,
        affine: None,
        residual: None,
        activation: Activation::None,
        layouts: [Layout::ChannelsFirst; 2],
    }));
    compare(shape, &found, &expected)
}

fn compare(shape: MatrixShape, found: &[f32], expected: &[f32]) -> Result<()> {
    match (0..expected.len()).find(|&i| found.get(i) != Some(&expected[i])) {
        None => Ok(()),
        Some(output) => Err(Error::Wrong {
            kernel: format!(
                "conv_gemm_coopmat in {0} x {0} matrices of Elem::{1:?}",
                shape.size, shape.operand
            ),
            output,
            found: found.get(output).map_or(f64::NAN, |&value| value.into()),
            expected: expected[output].into(),
            tolerance: 0.0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::CooperativeScalarType::{F16, F32, I32};

    fn listed(
        sizes: [u32; 3],
        ab_type: wgpu::CooperativeScalarType,
        cr_type: wgpu::CooperativeScalarType,
    ) -> wgpu::CooperativeMatrixProperties {
        let [m_size, n_size, k_size] = sizes;
        wgpu::CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        }
    }

    #[test]
    fn square_matrices_with_sums_in_f32_are_usable() {
        let all = [
            listed([16; 3], F16, F32),
            listed([16; 3], F16, F16),
            listed([16, 8, 16], F16, F32),
            listed([16; 3], F16, F32),
            listed([32; 3], F16, F32),
            listed([16; 3], I32, I32),
            listed([8; 3], F32, F32),
        ];
        let [half, single] =
            [(16, Elem::F16), (8, Elem::F32)].map(|(size, operand)| MatrixShape { size, operand });
        let caps = Caps { f16: true, ..Caps::webgpu_default() };
        assert_eq!(usable(&all, &caps), [half, single]);
        assert_eq!(usable(&all, &Caps::webgpu_default()), [single]);
    }

    #[test]
    fn a_device_without_a_feature_is_named() {
        let refused = |features| check_features(features).expect_err("lacks one").to_string();
        let all = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
        check_features(all).expect("has both");
        for (feature, name) in [
            (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "EXPERIMENTAL_COOPERATIVE_MATRIX"),
            (wgpu::Features::SUBGROUP, "SUBGROUP"),
        ] {
            let expected =
                format!("conv_gemm_coopmat needs the device feature {name}, which is not enabled");
            assert_eq!(refused(all - feature), expected);
        }
        assert!(
            !Context::FEATURES.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            "needs the user's consent"
        );
    }

    #[test]
    fn a_wrong_element_is_named() {
        let shape = MatrixShape { size: 16, operand: Elem::F16 };
        compare(shape, &[1.0, -0.0], &[1.0, 0.0]).expect("zeros are alike");
        for (found, named) in [(&[1.0, 3.0][..], "3"), (&[1.0, f32::NAN], "NaN"), (&[1.0], "NaN")] {
            let message = compare(shape, found, &[1.0, 2.0]).expect_err("differs").to_string();
            let expected = format!(
                "conv_gemm_coopmat in 16 x 16 matrices of Elem::F16 computes wrongly on this \
                     device: output 1 is {named}, expected 2 to within 0"
            );
            assert_eq!(message, expected);
        }
    }
}
