// Kernel bank in f16, two in a word.
// [K, channels out, channels in / groups, taps]
@group(0) @binding(1) var<storage, read> bank: array<u32>;

fn bank_value(i: u32) -> f32 {
    let pair = unpack2x16float(bank[i / 2u]);
    return select(pair.x, pair.y, i % 2u == 1u);
}
