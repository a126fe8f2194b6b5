// import conv

// Where an output position reads, for kernels that find it once and not for every tap: taps and
// channels lie at the same distances from there for all positions. No transposition, KERNEL_W +
// KERNEL_H + KERNEL_D <= 32.

// Where the bits of rows and of depth begin, after those of columns. No shader may shift by 32 or
// more, not even where no one looks at the bits.
const BITS_H: u32 = KERNEL_W % 32u;
const BITS_D: u32 = (KERNEL_W + KERNEL_H) % 32u;

// The bits of a tap.
fn bits_of(kz: u32, ky: u32, kx: u32) -> u32 {
    return (1u << kx) | (1u << (BITS_H + ky)) | (1u << (BITS_D + kz));
}

// Elements of x from one position to the next, and from one channel to the next.
fn position_stride() -> u32 {
    return select(1u, params.groups * params.c_in, X_NHWC);
}

fn channel_stride() -> u32 {
    return select(params.in_d * params.in_h * params.in_w, 1u, X_NHWC);
}

// Bit n is set if tap n of an axis reads inside the map.
fn taps_inside(origin: u32, taps: u32, dilation: u32, size: u32) -> u32 {
    var bits = 0u;
    for (var tap = 0u; tap < taps; tap++) {
        bits |= select(0u, 1u << tap, origin + tap * dilation < size);
    }
    return bits;
}

// What an output position reads: the element under tap 0 in channel 0 of the group, and which taps
// of width, height and depth lie inside. Positions past the map take the last place, and are never
// stored.
fn source_of(b: u32, g: u32, position: u32) -> vec2<u32> {
    let p = min(position, positions() - 1u);
    let column = p % params.out_w * STRIDE_W - params.pad_w;
    let row = p / params.out_w % params.out_h * STRIDE_H - params.pad_h;
    let z = p / (params.out_w * params.out_h) * STRIDE_D - params.pad_d;
    let inside = taps_inside(column, KERNEL_W, DILATION_W, params.in_w)
        | (taps_inside(row, KERNEL_H, DILATION_H, params.in_h) << BITS_H)
        | (taps_inside(z, KERNEL_D, DILATION_D, params.in_d) << BITS_D);
    let channels = params.groups * params.c_in;
    let size = params.in_d * params.in_h * params.in_w;
    // The place may lie before the map: unsigned numbers wrap there and back.
    let place = (z * params.in_h + row) * params.in_w + column;
    let start = params.x_base + b * channels * size + g * params.c_in * channel_stride();
    return vec2<u32>(start + place * position_stride(), inside);
}
