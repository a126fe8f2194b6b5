// import conv, dispatch, store_vec4, x_wide

// Pointwise convolution: 1 x 1 taps, stride 1, no padding, channels first; for subgroups of eight
// invocations (lanes), for software adapters; see conv_gemm_simd8.wgsl.
//
// A workgroup is one subgroup. It computes 16 output channels x 32 or 64 positions, four
// neighbouring ones a lane from each 32, four input channels at a time. The weights that this takes
// are one wide load: lane l has those of input channel l / 2 and of eight output channels, the
// first or the last of the 16. They are broadcast; inputs stay where they are. Constants beside
// those of lib/conv.wgsl and lib/store_vec4.wgsl: HALVES (of 32 positions: 1 or 2).

// sample_weights once more [batch or 1, sample_stride / 8], eight in a piece.
@group(0) @binding(7) var<storage, read> wide_weights: array<vec4<u64>>;

struct PointwiseTile {
    b: u32,
    // First input channel and first output channel, over all groups.
    input: u32,
    output: u32,
    // Output channels of the tile.
    channels: u32,
    // First of its eights in sample_weights.
    weights: u32,
    // First position of the lane; those of the second half are 32 further.
    position: u32,
}

fn pointwise_tile_of(number: u32, lane: u32) -> PointwiseTile {
    let tiles = ceil_div(positions(), HALVES * 32u);
    let blocks = ceil_div(params.c_out, 16u);
    let group = number / (tiles * blocks);
    let b = group / params.groups;
    let g = group % params.groups;
    let co = number / tiles % blocks * 16u;
    let output = g * params.c_out + co;
    let weights = weights_of(b, 0u, output) / 8u;
    return PointwiseTile(
        b,
        g * params.c_in,
        output,
        min(16u, params.c_out - co),
        weights,
        number % tiles * (HALVES * 32u) + 4u * lane,
    );
}

// Four neighbouring inputs of a channel. Positions past the map read its last ones, channels past
// the last count as 0.
fn pointwise_four(tile: PointwiseTile, position: u32, ci: u32) -> vec4<f32> {
    let channel = tile.input + min(ci, params.ci_end - 1u);
    let first = params.x_base + (tile.b * params.groups * params.c_in + channel) * positions();
    var four = x_four(first + position, first + positions() - 1u);
    if CHANNEL_GAIN {
        let gain = params.gains_base + tile.b * params.gain_stride + params.channel_gain_offset;
        four *= gains[gain + channel];
    }
    return select(vec4<f32>(), four, ci < params.ci_end);
}

// Inputs of four channels.
struct Inputs {
    c0: vec4<f32>,
    c1: vec4<f32>,
    c2: vec4<f32>,
    c3: vec4<f32>,
}

fn pointwise_inputs(tile: PointwiseTile, half: u32, ci: u32) -> Inputs {
    let position = tile.position + 32u * half;
    return Inputs(
        pointwise_four(tile, position, ci),
        pointwise_four(tile, position, ci + 1u),
        pointwise_four(tile, position, ci + 2u),
        pointwise_four(tile, position, ci + 3u),
    );
}

// Weights of a lane: eight output channels, those of even and of odd number.
struct EightWeights {
    even: vec4<f32>,
    odd: vec4<f32>,
}

// Weights past the last input channel count as 0, like their inputs: an infinite weight times 0 is
// NaN.
fn weights_from(tile: PointwiseTile, ci: u32, lane: u32) -> EightWeights {
    let channel = ci + lane / 2u;
    let loaded = wide_weights[tile.weights + min(channel, params.ci_end - 1u) * 2u + lane % 2u];
    let words = select(vec4<u64>(), loaded, channel < params.ci_end);
    return EightWeights(
        bitcast<vec4<f32>>(vec4<u32>(words)),
        bitcast<vec4<f32>>(vec4<u32>(words >> vec4<u32>(32u))),
    );
}

// Sums of an output channel: `weight` is what the lanes have for it, `eight` tells which lanes.
fn add_eight(sums: vec4<f32>, weight: f32, eight: u32, inputs: Inputs) -> vec4<f32> {
    return sums
        + subgroupShuffle(weight, eight) * inputs.c0
        + subgroupShuffle(weight, 2u + eight) * inputs.c1
        + subgroupShuffle(weight, 4u + eight) * inputs.c2
        + subgroupShuffle(weight, 6u + eight) * inputs.c3;
}

// Sums of eight output channels, the first (0) or the last (1) of the tile.
struct EightSums {
    c0: vec4<f32>,
    c1: vec4<f32>,
    c2: vec4<f32>,
    c3: vec4<f32>,
    c4: vec4<f32>,
    c5: vec4<f32>,
    c6: vec4<f32>,
    c7: vec4<f32>,
}

fn accumulate_eight(sums: ptr<function, EightSums>, w: EightWeights, eight: u32, inputs: Inputs) {
    (*sums).c0 = add_eight((*sums).c0, w.even.x, eight, inputs);
    (*sums).c1 = add_eight((*sums).c1, w.odd.x, eight, inputs);
    (*sums).c2 = add_eight((*sums).c2, w.even.y, eight, inputs);
    (*sums).c3 = add_eight((*sums).c3, w.odd.y, eight, inputs);
    (*sums).c4 = add_eight((*sums).c4, w.even.z, eight, inputs);
    (*sums).c5 = add_eight((*sums).c5, w.odd.z, eight, inputs);
    (*sums).c6 = add_eight((*sums).c6, w.even.w, eight, inputs);
    (*sums).c7 = add_eight((*sums).c7, w.odd.w, eight, inputs);
}

fn eight_sums_of(sums: EightSums, n: u32) -> vec4<f32> {
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

fn store_eight(tile: PointwiseTile, half: u32, eight: u32, sums: EightSums) {
    let position = tile.position + 32u * half;
    if position >= positions() {
        return;
    }
    let count = min(4u, positions() - position);
    let channels = clamp(tile.channels, 8u * eight, 8u * eight + 8u) - 8u * eight;
    for (var n = 0u; n < channels; n++) {
        store_outputs(
            tile.b,
            tile.output + 8u * eight + n,
            position,
            eight_sums_of(sums, n),
            count,
        );
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_pointwise_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = pointwise_tile_of(number, lane);
    var sums0 = EightSums();
    var sums1 = EightSums();
    var further0 = EightSums();
    var further1 = EightSums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci += 4u) {
        let w = weights_from(tile, ci, lane);
        let inputs = pointwise_inputs(tile, 0u, ci);
        var further = Inputs();
        if HALVES > 1u { further = pointwise_inputs(tile, 1u, ci); }
        accumulate_eight(&sums0, w, 0u, inputs);
        if HALVES > 1u { accumulate_eight(&further0, w, 0u, further); }
        accumulate_eight(&sums1, w, 1u, inputs);
        if HALVES > 1u { accumulate_eight(&further1, w, 1u, further); }
    }
    store_eight(tile, 0u, 0u, sums0);
    store_eight(tile, 0u, 1u, sums1);
    if HALVES > 1u {
        store_eight(tile, 1u, 0u, further0);
        store_eight(tile, 1u, 1u, further1);
    }
}
