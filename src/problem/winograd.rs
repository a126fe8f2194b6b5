//! Winograd's minimal filtering: a 3 x 3 convolution by fewer products.

use std::fmt;

use crate::error::{Error, Result};

/// Which tiles of outputs are computed together (Winograd 1980; Lavin and Gray, "Fast Algorithms
/// for Convolutional Neural Networks", CVPR 2016, section 4.1): `Y = A' [ (G g G') * (B' d B) ] A`,
/// `*` being the product of elements.
///
/// Tiles of inputs and the kernel are taken to a domain where convolution is a product of numbers.
/// Mixing kernels is linear, so that the bank is taken there once, and mixed there. Fewer products
/// cost accuracy: numbers are added and taken off again. What the rounding errors of a sum of
/// random numbers are relative to grows 7 times by `F2` and 30 to 260 times by `F4`; errors found
/// are like the plain sum's by `F2`, and 5 to 10 times as large by `F4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// F(2 x 2, 3 x 3): 16 products instead of 36; a kernel takes 16 elements instead of 9.
    F2,
    /// F(4 x 4, 3 x 3): 36 products instead of 144; a kernel takes 36 elements instead of 9.
    F4,
}

const G2: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

const G4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

const B2: [[f64; 4]; 4] =
    [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]];

const B4: [[f64; 6]; 6] = [
    [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
    [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
    [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
];

const A2: [[f64; 4]; 2] = [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, -1.0]];

const A4: [[f64; 6]; 4] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
];

impl Winograd {
    /// Outputs along a side of a tile.
    #[must_use]
    pub fn tile(self) -> usize {
        match self {
            Self::F2 => 2,
            Self::F4 => 4,
        }
    }

    /// Numbers of a tile's inputs, of a kernel and of their products: `(tile + 2)^2`.
    #[must_use]
    pub fn numbers(self) -> usize {
        (self.tile() + 2).pow(2)
    }

    /// Tiles that cover an output map.
    #[must_use]
    pub fn tiles(self, output: [usize; 3]) -> [usize; 3] {
        [output[0], output[1].div_ceil(self.tile()), output[2].div_ceil(self.tile())]
    }

    /// `G`, of `tile + 2` rows of 3; `B'`, of as many rows of `tile + 2`; `A'`, of `tile` rows of
    /// `tile + 2`.
    #[must_use]
    pub fn matrices(self) -> [Vec<Vec<f64>>; 3] {
        fn rows<const N: usize>(matrix: &[[f64; N]]) -> Vec<Vec<f64>> {
            matrix.iter().map(|row| row.to_vec()).collect()
        }
        match self {
            Self::F2 => [rows(&G2), rows(&B2), rows(&A2)],
            Self::F4 => [rows(&G4), rows(&B4), rows(&A4)],
        }
    }

    /// Kernels `[K, channels, 9]` as `[K, numbers, channels]`, computed in f64 and rounded once.
    pub(crate) fn kernels(self, kernels: &[f32], channels: usize) -> Vec<f32> {
        let numbers = self.numbers();
        let [rows, ..] = self.matrices();
        let mut taken = vec![0.0; kernels.len() / 9 * numbers];
        for (i, kernel) in kernels.chunks_exact(9).enumerate() {
            let kernel: Vec<f64> = kernel.iter().map(|&w| f64::from(w)).collect();
            let first = i / channels * numbers * channels + i % channels;
            for (f, value) in twice(&rows, &kernel).into_iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "the one rounding")]
                let value = value as f32;
                taken[first + f * channels] = value;
            }
        }
        taken
    }
}

impl fmt::Display for Winograd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.tile();
        write!(f, "F({m}x{m}, 3x3)")
    }
}

/// `M square M'` for a matrix given by rows and a square of numbers, row by row.
#[must_use]
pub(crate) fn twice(rows: &[Vec<f64>], square: &[f64]) -> Vec<f64> {
    let side = rows[0].len();
    let columns: Vec<Vec<f64>> = (0..side)
        .map(|column| {
            rows.iter()
                .map(|row| (0..side).map(|i| row[i] * square[i * side + column]).sum())
                .collect()
        })
        .collect();
    let of = |i: usize, row: &Vec<f64>| {
        row.iter().zip(&columns).map(|(factor, column)| factor * column[i]).sum()
    };
    (0..rows.len()).flat_map(|i| rows.iter().map(move |row| of(i, row))).collect()
}

/// Refuses what minimal filtering cannot do.
pub(crate) fn refuse(because: &str) -> Result<()> {
    Err(Error::Unsupported { what: "Winograd's minimal filtering".into(), because: because.into() })
}
