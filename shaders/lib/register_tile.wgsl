// import conv, source, store, vectors, x

// What the kernels that keep their tile in registers share. An invocation computes 8 output
// channels x 4 positions; the positions of a workgroup are 4 runs of WORKGROUP neighbours, its
// channels are the same 8 for all, so that loads of x coalesce and a weight is one address for the
// whole workgroup.
//
// PADDED is 1 if taps may lie outside the map.

struct RegisterTile {
    b: u32,
    // Group, and first of the 8 output channels in it.
    g: u32,
    co: u32,
    // First of the 4 positions; the others follow at distances of WORKGROUP.
    position: u32,
}

fn register_tile_of(number: u32, lane: u32) -> RegisterTile {
    let runs = ceil_div(positions(), 4u * WORKGROUP);
    let blocks = ceil_div(params.c_out, 8u);
    let position = number % runs * 4u * WORKGROUP + lane;
    let co = number / runs % blocks * 8u;
    return RegisterTile(
        number / (runs * blocks * params.groups),
        number / (runs * blocks) % params.groups,
        co,
        position,
    );
}

// What an invocation's four positions read: see source_of.
struct Sources {
    start: vec4<u32>,
    inside: vec4<u32>,
}

fn sources_of(tile: RegisterTile) -> Sources {
    let p0 = source_of(tile.b, tile.g, tile.position);
    let p1 = source_of(tile.b, tile.g, tile.position + WORKGROUP);
    let p2 = source_of(tile.b, tile.g, tile.position + 2u * WORKGROUP);
    let p3 = source_of(tile.b, tile.g, tile.position + 3u * WORKGROUP);
    return Sources(vec4<u32>(p0.x, p1.x, p2.x, p3.x), vec4<u32>(p0.y, p1.y, p2.y, p3.y));
}

// Inputs in channel `ci` of the group that four positions read through a tap.
fn tile_inputs(
    tile: RegisterTile,
    sources: Sources,
    ci: u32,
    kz: u32,
    ky: u32,
    kx: u32,
) -> vec4<f32> {
    let place = (kz * DILATION_D * params.in_h + ky * DILATION_H) * params.in_w + kx * DILATION_W;
    let i = sources.start + (place * position_stride() + ci * channel_stride());
    let tap = vec4<u32>(bits_of(kz, ky, kx));
    let inside = ((sources.inside & tap) == tap) | vec4<bool>(PADDED == 0u);
    var four = vec4<f32>(x_value(i.x), x_value(i.y), x_value(i.z), x_value(i.w));
    if CHANNEL_GAIN {
        let first = params.gains_base + tile.b * params.gain_stride + params.channel_gain_offset;
        four *= gains[first + tile.g * params.c_in + ci];
    }
    return select(vec4<f32>(), four, inside);
}

// Sums of the tile: a vector of 4 positions a channel. Named members instead of an array, so that
// they stay in registers.
struct TileSums {
    c0: vec4<f32>,
    c1: vec4<f32>,
    c2: vec4<f32>,
    c3: vec4<f32>,
    c4: vec4<f32>,
    c5: vec4<f32>,
    c6: vec4<f32>,
    c7: vec4<f32>,
}

// First weight of each channel of the tile in one kernel.
struct TileWeights {
    c0: u32,
    c1: u32,
    c2: u32,
    c3: u32,
    c4: u32,
    c5: u32,
    c6: u32,
    c7: u32,
}

// Rows past the last channel read the last one; their sums are never stored.
fn tile_weights(tile: RegisterTile, k: u32) -> TileWeights {
    let first = tile.g * params.c_out;
    let last = params.c_out - 1u;
    return TileWeights(
        weights_of(tile.b, k, first + min(tile.co + 0u, last)),
        weights_of(tile.b, k, first + min(tile.co + 1u, last)),
        weights_of(tile.b, k, first + min(tile.co + 2u, last)),
        weights_of(tile.b, k, first + min(tile.co + 3u, last)),
        weights_of(tile.b, k, first + min(tile.co + 4u, last)),
        weights_of(tile.b, k, first + min(tile.co + 5u, last)),
        weights_of(tile.b, k, first + min(tile.co + 6u, last)),
        weights_of(tile.b, k, first + min(tile.co + 7u, last)),
    );
}

fn accumulate_tile(
    sums: ptr<function,
    TileSums>,
    weights: TileWeights,
    reduction: u32,
    inputs: vec4<f32>,
) {
    (*sums).c0 += sample_weights[weights.c0 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c1 += sample_weights[weights.c1 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c2 += sample_weights[weights.c2 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c3 += sample_weights[weights.c3 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c4 += sample_weights[weights.c4 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c5 += sample_weights[weights.c5 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c6 += sample_weights[weights.c6 + reduction * WEIGHT_STEP] * inputs;
    (*sums).c7 += sample_weights[weights.c7 + reduction * WEIGHT_STEP] * inputs;
}

// Sums of the n-th channel.
fn tile_sums_of(sums: TileSums, n: u32) -> vec4<f32> {
    switch n {
        case 0u: { return sums.c0; }
        case 1u: { return sums.c1; }
        case 2u: { return sums.c2; }
        case 3u: { return sums.c3; }
        case 4u: { return sums.c4; }
        case 5u: { return sums.c5; }
        case 6u: { return sums.c6; }
        default: { return sums.c7; }
    }
}

// Loops, though they cost a few selections: written out, what follows the sum would be compiled 32
// times.
fn store_tile(tile: RegisterTile, sums: TileSums) {
    for (var n = 0u; n < min(8u, params.c_out - tile.co); n++) {
        let channel = tile.g * params.c_out + tile.co + n;
        let four = tile_sums_of(sums, n);
        for (var i = 0u; i < 4u; i++) {
            let position = tile.position + i * WORKGROUP;
            if position < positions() {
                store_output(tile.b, channel, position, component(four, i));
            }
        }
    }
}
