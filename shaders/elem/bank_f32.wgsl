// Kernel bank in f32.
// [K, channels out, channels in / groups, taps]
@group(0) @binding(1) var<storage, read> bank: array<f32>;

fn bank_value(i: u32) -> f32 {
    return bank[i];
}
