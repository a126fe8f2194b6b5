//! Test data that is the same in every run.

/// Pseudo-random numbers, the same in every run.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        self.next() as usize % count
    }

    /// Integers from -limit to limit.
    pub fn integers(&mut self, len: usize, limit: i32) -> Vec<f32> {
        (0..len).map(|_| (self.next() % (2 * limit as u32 + 1)) as f32 - limit as f32).collect()
    }

    /// Numbers in [-1, 1).
    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 7) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}
