// Kernel bank in bf16, two in a word: the upper half of an f32 each.
// [K, channels out, channels in / groups, taps]
@group(0) @binding(1) var<storage, read> bank: array<u32>;

fn bank_value(i: u32) -> f32 {
    let word = bank[i / 2u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, i % 2u == 1u));
}
