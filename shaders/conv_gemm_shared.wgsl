// import conv, dispatch, register_tile, source, store, vectors, x

// Implicit GEMM as conv_tiled, in larger tiles and without index arithmetic to speak of. A
// workgroup computes TILE_M channels x TILE_N positions, an invocation 8 x 8 of them: what it reads
// from workgroup memory it uses eight times.
//
// The sum runs over blocks of 16 input channels, in each over the taps, and in each over the
// channels of the block; what is left at the end, fewer than 16 channels, is summed in the same way
// in blocks of 8. So 8 channels have one tap: where it reads is one offset from where tap 0 does,
// the same for all invocations, and whether it reads inside the map is told by bits that each
// position has for every tap of every axis.
//
// Workgroup memory takes 8 channels at a time. They are loaded while the 8 before are computed, and
// where there is memory for both, stored then too: a barrier after each 8 is enough.
//
// Where there would be few workgroups, each sums over some of the blocks only, and leaves its raw
// sums to sum_slices.
//
// Constants beside those of lib/conv.wgsl:
//
// TILE_M, TILE_N                64 or 128; WORKGROUP = TILE_M / 8 * TILE_N / 8
// BUFFERS                       2 if there is workgroup memory for twice 8 channels, else 1
// PADDED                        1 if taps may lie outside
// REST                          1 if the channels are not all in blocks of 16
// MIXES                         how many kernels of a bank are mixed as they are loaded, at most 8;
//                               0 where sample_weights hold what is multiplied
// MIX_OFFSET, SPATIAL_OFFSET    where mixing weights and tap gains begin in a row of gains
// SPATIAL_GAIN                  1 if there are tap gains
// WRITTEN_OUT                   1 if the channels of a half are multiplied one after another,
//                               0 if in a loop
// SPLIT                         1 if a workgroup sums over `slice_channels` input channels only,
//                               whole blocks of them but for the last
//
// No maps, no transposition, KERNEL_W + KERNEL_H + KERNEL_D <= 16.

// Channels of a block, and of the halves that it is loaded in.
const BLOCK: u32 = 16u;
const HALF: u32 = 8u;
// Channels of a half that the workgroup loads at once, four positions or four output channels an
// invocation; the rest follow in a second load.
const X_SLOTS: u32 = WORKGROUP / (TILE_N / 4u);
const W_SLOTS: u32 = WORKGROUP / (TILE_M / 4u);

// [buffer][load][input channel][four output channels]; a vector more a row keeps the channels that
// are written together out of each other's banks.
const ROW_W: u32 = TILE_M / 4u + 1u;
alias HalfW = array<array<array<vec4<f32>, ROW_W>, W_SLOTS>, HALF / W_SLOTS>;
var<workgroup> block_w: array<HalfW, BUFFERS>;
// [buffer][load][input channel][four positions]
const ROW_X: u32 = TILE_N / 4u + 1u;
alias HalfX = array<array<array<vec4<f32>, ROW_X>, X_SLOTS>, HALF / X_SLOTS>;
var<workgroup> block_x: array<HalfX, BUFFERS>;

// Part of the reduction: a tap, and the first of 8 channels.
struct Step {
    kx: u32,
    ky: u32,
    kz: u32,
    ci: u32,
}

// The next tap, or the first one of the channels that follow a block of `channels`.
fn next(step: Step, channels: u32) -> Step {
    if step.kx + 1u < KERNEL_W {
        return Step(step.kx + 1u, step.ky, step.kz, step.ci);
    }
    if step.ky + 1u < KERNEL_H {
        return Step(0u, step.ky + 1u, step.kz, step.ci);
    }
    if step.kz + 1u < KERNEL_D {
        return Step(0u, 0u, step.kz + 1u, step.ci);
    }
    return Step(0u, 0u, 0u, step.ci + channels);
}

fn second_half(step: Step) -> Step {
    return Step(step.kx, step.ky, step.kz, step.ci + HALF);
}

// Registers are dear: such bits of four positions share one word, or two.
const IN_ONE_WORD: bool = KERNEL_W + KERNEL_H + KERNEL_D <= 8u;
const SHIFTS: vec4<u32> = select(
    vec4<u32>(0u, 16u, 0u, 16u),
    vec4<u32>(0u, 8u, 16u, 24u),
    IN_ONE_WORD,
);

fn packed_bits(bits: vec4<u32>) -> vec2<u32> {
    let all = bits << SHIFTS;
    if IN_ONE_WORD {
        return vec2<u32>(all.x | all.y | all.z | all.w);
    }
    return vec2<u32>(all.x | all.y, all.z | all.w);
}

// What an invocation loads in every step, all of it in channel `slot` of a half.
struct BlockSource {
    // Of four positions: see source_of and packed.
    x: vec4<u32>,
    inside: vec2<u32>,
    // First weight of four output channels.
    w: u32,
    // First channel gain, and first gain of the sample.
    gain: u32,
    row: u32,
}

// Where an invocation writes to and reads from workgroup memory.
struct Lane {
    x_slot: u32,
    x_quad: u32,
    w_slot: u32,
    w_quad: u32,
    m0: u32,
    m1: u32,
    n0: u32,
    n1: u32,
}

// Indices never pass their arrays. wgpu has that checked at every access; drivers drop a check that
// was made before, so it is made here, once.
fn held(index: u32, size: u32) -> u32 {
    return min(index, size - 1u);
}

fn lane_of(lane: u32) -> Lane {
    let m = lane / (TILE_N / 8u);
    let n = lane % (TILE_N / 8u);
    return Lane(
        held(lane % X_SLOTS, X_SLOTS),
        held(lane / X_SLOTS, ROW_X),
        held(lane % W_SLOTS, W_SLOTS),
        held(lane / W_SLOTS, ROW_W),
        held(m, ROW_W),
        held(m + TILE_M / 8u, ROW_W),
        held(n, ROW_X),
        held(n + TILE_N / 8u, ROW_X),
    );
}

// A step's operands on their way to workgroup memory; the second of each only where a half takes
// two loads.
struct InputQuads {
    x0: vec4<f32>,
    x1: vec4<f32>,
}

struct WeightQuads {
    w0: vec4<f32>,
    w1: vec4<f32>,
}

fn tap_of(step: Step) -> u32 {
    return (step.kz * KERNEL_H + step.ky) * KERNEL_W + step.kx;
}

// `ci` counts from the invocation's own slot on.
fn load_x(source: BlockSource, step: Step, ci: u32) -> vec4<f32> {
    let place = (step.kz * DILATION_D * params.in_h + step.ky * DILATION_H) * params.in_w
        + step.kx * DILATION_W;
    let i = source.x + (place * position_stride() + ci * channel_stride());
    let four = vec4<f32>(x_value(i.x), x_value(i.y), x_value(i.z), x_value(i.w));
    if !CHANNEL_GAIN && SPATIAL_GAIN == 0u {
        return four;
    }
    // One factor for four inputs: a factor for the weights would be one for each kernel that is
    // mixed.
    var gain = 1.0;
    if CHANNEL_GAIN {
        gain = gains[source.gain + ci];
    }
    if SPATIAL_GAIN != 0u {
        gain *= gains[source.row + SPATIAL_OFFSET + tap_of(step)];
    }
    return four * gain;
}

fn load_inputs(source: BlockSource, step: Step) -> InputQuads {
    var inputs: InputQuads;
    inputs.x0 = load_x(source, step, step.ci);
    if X_SLOTS < HALF {
        inputs.x1 = load_x(source, step, step.ci + X_SLOTS);
    }
    return inputs;
}

// Weights of four output channels in kernel k, `skipped` elements past those of a step.
fn load_w(source: BlockSource, step: Step, k: u32, skipped: u32) -> vec4<f32> {
    let reduction = params.c_in * TAPS;
    let channels = ceil_div(params.c_out, WEIGHT_STEP) * WEIGHT_STEP;
    let kernel = k * params.groups * channels * reduction;
    let first = source.w + (kernel + (step.ci * TAPS + tap_of(step)) * WEIGHT_STEP);
    let next = select(1u, reduction, WEIGHT_STEP == 1u);
    return vec4<f32>(
        sample_weights[first + skipped],
        sample_weights[first + next + skipped],
        sample_weights[first + 2u * next + skipped],
        sample_weights[first + 3u * next + skipped],
    );
}

fn load_weights(source: BlockSource, step: Step, k: u32) -> WeightQuads {
    var weights: WeightQuads;
    weights.w0 = load_w(source, step, k, 0u);
    if W_SLOTS < HALF {
        weights.w1 = load_w(source, step, k, W_SLOTS * TAPS * WEIGHT_STEP);
    }
    return weights;
}

// What is to be staged.
struct Operands {
    inputs: InputQuads,
    weights: WeightQuads,
}

// Adds the weights of kernel k to those of the sample's own kernel.
fn mix(operands: ptr<function, Operands>, source: BlockSource, k: u32, weights: WeightQuads) {
    let share = gains[source.row + MIX_OFFSET + k];
    (*operands).weights.w0 += share * weights.w0;
    if W_SLOTS < HALF {
        (*operands).weights.w1 += share * weights.w1;
    }
}

// Whether a step's tap reads inside the map, for four positions.
fn reads_inside(source: BlockSource, step: Step) -> vec4<bool> {
    let taps = vec4<u32>(bits_of(step.kz, step.ky, step.kx)) << SHIFTS;
    return ((source.inside.xxyy & taps) == taps) | vec4<bool>(PADDED == 0u);
}

// Zero padding is put in here, not as operands are loaded, so that no load is waited for before the
// sums are under way.
fn stage(buffer: u32, lane: Lane, inside: vec4<bool>, operands: Operands) {
    block_x[buffer][0u][lane.x_slot][lane.x_quad] = select(vec4<f32>(), operands.inputs.x0, inside);
    block_w[buffer][0u][lane.w_slot][lane.w_quad] = operands.weights.w0;
    if X_SLOTS < HALF {
        block_x[buffer][HALF / X_SLOTS - 1u][lane.x_slot][lane.x_quad] = select(
            vec4<f32>(),
            operands.inputs.x1,
            inside,
        );
    }
    if W_SLOTS < HALF {
        block_w[buffer][HALF / W_SLOTS - 1u][lane.w_slot][lane.w_quad] = operands.weights.w1;
    }
}

fn add_products(sums: ptr<function, TileSums>, low: vec4<f32>, high: vec4<f32>, inputs: vec4<f32>) {
    (*sums).c0 += low.x * inputs;
    (*sums).c1 += low.y * inputs;
    (*sums).c2 += low.z * inputs;
    (*sums).c3 += low.w * inputs;
    (*sums).c4 += high.x * inputs;
    (*sums).c5 += high.y * inputs;
    (*sums).c6 += high.z * inputs;
    (*sums).c7 += high.w * inputs;
}

// What is multiplied: the first of the 8 channels in a buffer, as many as there are.
struct Staged {
    buffer: u32,
    channels: u32,
}

// Channel `ci` of those staged.
fn multiply(
    left: ptr<function,
    TileSums>,
    right: ptr<function,
    TileSums>,
    lane: Lane,
    buffer: u32,
    ci: u32,
) {
    let low = block_w[buffer][ci / W_SLOTS][ci % W_SLOTS][lane.m0];
    let high = block_w[buffer][ci / W_SLOTS][ci % W_SLOTS][lane.m1];
    add_products(left, low, high, block_x[buffer][ci / X_SLOTS][ci % X_SLOTS][lane.n0]);
    add_products(right, low, high, block_x[buffer][ci / X_SLOTS][ci % X_SLOTS][lane.n1]);
}

// Channel `i` of those staged, and kernel `i` for the step: it is under way while the channel is
// computed. Inputs follow when half of the channels are done, since registers are few beside those
// of the kernels.
fn multiply_and_mix(
    left: ptr<function, TileSums>,
    right: ptr<function, TileSums>,
    lane: Lane,
    staged: Staged,
    i: u32,
    operands: ptr<function, Operands>,
    source: BlockSource,
    step: Step,
) {
    var weights: WeightQuads;
    if MIXES != 0u && i == HALF / 2u {
        (*operands).inputs = load_inputs(source, step);
    }
    if i < MIXES {
        weights = load_weights(source, step, i);
    }
    if i < staged.channels {
        multiply(left, right, lane, staged.buffer, i);
    }
    if i < MIXES {
        mix(operands, source, i, weights);
    }
}

// Multiplies what is staged, and loads a step meanwhile. Written out it is what GPUs are for; a
// loop is compiled in a fraction of the time.
fn multiply_and_load(
    left: ptr<function, TileSums>,
    right: ptr<function, TileSums>,
    lane: Lane,
    staged: Staged,
    source: BlockSource,
    step: Step,
    written_out: bool,
) -> Operands {
    var operands: Operands;
    if MIXES == 0u {
        operands = Operands(load_inputs(source, step), load_weights(source, step, 0u));
    }
    if !written_out {
        for (var i = 0u; i < HALF; i++) {
            multiply_and_mix(left, right, lane, staged, i, &operands, source, step);
        }
        return operands;
    }
    multiply_and_mix(left, right, lane, staged, 0u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 1u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 2u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 3u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 4u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 5u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 6u, &operands, source, step);
    multiply_and_mix(left, right, lane, staged, 7u, &operands, source, step);
    return operands;
}

@compute @workgroup_size(WORKGROUP)
fn conv_gemm_shared(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let size = positions();
    let tiles_n = ceil_div(size, TILE_N);
    let tiles_m = ceil_div(params.c_out, TILE_M);
    let first_n = number % tiles_n * TILE_N;
    let first_m = number / tiles_n % tiles_m * TILE_M;
    let g = number / (tiles_n * tiles_m) % params.groups;
    // Samples are counted anew in every part of the sum.
    let sample = number / (tiles_n * tiles_m * params.groups);
    var b = sample;
    var ci_begin = params.ci_begin;
    var ci_end = params.ci_end;
    if SPLIT != 0u {
        b = sample % params.batch;
        ci_begin = sample / params.batch * params.slice_channels;
        ci_end = min(params.c_in, ci_begin + params.slice_channels);
    }

    let own = lane_of(lane);
    let position = first_n + own.x_quad * 4u;
    let p0 = source_of(b, g, position);
    let p1 = source_of(b, g, position + 1u);
    let p2 = source_of(b, g, position + 2u);
    let p3 = source_of(b, g, position + 3u);
    // Sums of channels past the last are never stored, whatever is read for them.
    let channel = min(first_m + own.w_quad * 4u, params.c_out - 1u);
    let row = params.gains_base + b * params.gain_stride;
    let source = BlockSource(
        vec4<u32>(p0.x, p1.x, p2.x, p3.x) + own.x_slot * channel_stride(),
        packed_bits(vec4<u32>(p0.y, p1.y, p2.y, p3.y)),
        weights_of(b, 0u, g * params.c_out + channel) + own.w_slot * TAPS * WEIGHT_STEP,
        row + params.channel_gain_offset + g * params.c_in + own.x_slot,
        row,
    );

    // Sums of the invocation's positions in the left half of the tile and in the right half.
    var left = TileSums();
    var right = TileSums();

    var step = Step(0u, 0u, 0u, ci_begin);
    var operands: Operands;
    operands.inputs = load_inputs(source, step);
    if MIXES == 0u {
        operands.weights = load_weights(source, step, 0u);
    }
    for (var k = 0u; k < MIXES; k++) {
        mix(&operands, source, k, load_weights(source, step, k));
    }
    // Kept from half to half: found anew, it would take an eighth of what is not arithmetic.
    var inside = reads_inside(source, step);
    stage(0u, own, inside, operands);
    workgroupBarrier();

    let trips = (ci_end - ci_begin) / BLOCK * TAPS;
    for (var i = 0u; i < trips; i++) {
        let second = multiply_and_load(
            &left,
            &right,
            own,
            Staged(0u, HALF),
            source,
            second_half(step),
            WRITTEN_OUT != 0u,
        );
        if BUFFERS == 1u {
            workgroupBarrier();
        }
        stage(BUFFERS - 1u, own, inside, second);
        workgroupBarrier();
        step = next(step, BLOCK);
        inside = reads_inside(source, step);
        let first = multiply_and_load(
            &left,
            &right,
            own,
            Staged(BUFFERS - 1u, HALF),
            source,
            step,
            WRITTEN_OUT != 0u,
        );
        if BUFFERS == 1u {
            workgroupBarrier();
        }
        stage(0u, own, inside, first);
        workgroupBarrier();
    }
    if REST != 0u {
        let trips = ceil_div(ci_end - step.ci, HALF) * TAPS;
        for (var i = 0u; i < trips; i++) {
            // Channels past the last are staged with whatever was read for them, and never
            // multiplied.
            let staged = Staged(i % BUFFERS, ci_end - step.ci);
            step = next(step, HALF);
            let operands = multiply_and_load(&left, &right, own, staged, source, step, false);
            if BUFFERS == 1u {
                workgroupBarrier();
            }
            stage((i + 1u) % BUFFERS, own, reads_inside(source, step), operands);
            workgroupBarrier();
        }
    }

    // Loops, though they cost a few selections: written out, what follows the sum would be compiled
    // 64 times.
    for (var i = 0u; i < 8u; i++) {
        let co = first_m + select(own.m0, own.m1, i >= 4u) * 4u + i % 4u;
        let left_four = tile_sums_of(left, i);
        let right_four = tile_sums_of(right, i);
        for (var j = 0u; j < 8u; j++) {
            let position = first_n + select(own.n0, own.n1, j >= 4u) * 4u + j % 4u;
            if co < params.c_out && position < size {
                let four = select(left_four, right_four, j >= 4u);
                store_output(sample, g * params.c_out + co, position, component(four, j % 4u));
            }
        }
    }
}
