// import bank, dispatch

// Aggregation: each sample's own kernel and bias, mixed from the kernel bank by that sample's
// attention.
//
//   w[b, i]      = s[b, tap(i)] * c[b, ci(i)] * f[b, co(i)] * sum_k alpha[b, k] * bank[k, i]
//   w[b, W + co] = sum_k alpha[b, k] * bias[k, co]
//
// w being sample_weights.
//
// With CELLS the bank is a warehouse of small cells [KERNELS, CELL_OUT, CELL_IN, CELL_TAPS]; every
// cell of a sample's kernel is a mixture of its own, alpha being [cells, KERNELS] with cells in the
// order (taps, channels out, channels in); the bias is one for all.
//
// W is the number of weights of a kernel. With BLOCK 16 instead of 1, kernels of bank and
// sample_weights are in blocks: [groups, blocks, channels in / groups, TAPS, 16], the last block of
// a group being filled up with zeros.
//
// An invocation owns one weight of four samples: a bank element is loaded once for the four.
// Constants that the host joins in front: KERNELS, TAPS, BLOCK, HAS_MIX, HAS_BIAS,
// SPATIAL_GAIN, CHANNEL_GAIN, FILTER_GAIN, CELLS, CELL_OUT, CELL_IN, CELL_TAPS, WORKGROUP.

struct AggregateParams {
    // First element of each operand inside its binding.
    bank_base: u32,
    bias_base: u32,
    attention_base: u32,
    sample_weights_base: u32,

    batch: u32,
    groups: u32,
    // Channels of one group.
    c_in: u32,
    c_out: u32,
    // Elements of one kernel of the bank.
    weights: u32,
    sample_stride: u32,
    attention_stride: u32,
    mix_offset: u32,
    channel_gain_offset: u32,
    filter_gain_offset: u32,
    spatial_gain_offset: u32,
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> params: AggregateParams;
// Binding 1 is the bank [KERNELS, channels out, channels in / groups, TAPS]: see elem/.
// [KERNELS, channels out]
@group(0) @binding(2) var<storage, read> bias: array<f32>;
// [batch, attention_stride]: alpha and the gains s, c, f, each at its own offset.
@group(0) @binding(3) var<storage, read> attention: array<f32>;
// [batch, sample_stride]: the kernel, then the bias.
@group(0) @binding(4) var<storage, read_write> sample_weights: array<f32>;

// One attention value of each of the four samples from b on; samples past the batch repeat the
// last.
fn attention_of_four(b: u32, offset: u32) -> vec4<f32> {
    let last = params.batch - 1u;
    let base = params.attention_base + offset;
    return vec4<f32>(
        attention[base + b * params.attention_stride],
        attention[base + min(b + 1u, last) * params.attention_stride],
        attention[base + min(b + 2u, last) * params.attention_stride],
        attention[base + min(b + 3u, last) * params.attention_stride],
    );
}

// The weight at row element i.
struct Weight {
    // Output channel over all groups, and its group.
    co: u32,
    g: u32,
    ci: u32,
    tap: u32,
}

fn weight_of(i: u32) -> Weight {
    let reduction = i / BLOCK % (params.c_in * TAPS);
    let block = i / (BLOCK * params.c_in * TAPS);
    let blocks = (params.c_out + BLOCK - 1u) / BLOCK;
    // Past the last channel of a group lie zeros, which any channel's gain leaves alone.
    let co = min(block % blocks * BLOCK + i % BLOCK, params.c_out - 1u);
    let g = block / blocks;
    return Weight(g * params.c_out + co, g, reduction / TAPS, reduction % TAPS);
}

// Where row element i finds its mixing weights in an attention row (x), and its value in each
// kernel of the bank (y).
fn bank_source_of(i: u32) -> vec2<u32> {
    if !CELLS {
        return vec2<u32>(params.mix_offset, i);
    }
    let at = weight_of(i);
    let tap = at.tap;
    let ci = at.ci;
    let co = at.co;
    let cells_out = params.groups * params.c_out / CELL_OUT;
    let cell = (tap / CELL_TAPS * cells_out + co / CELL_OUT) * (params.c_in / CELL_IN)
        + ci / CELL_IN;
    let inside = (co % CELL_OUT * CELL_IN + ci % CELL_IN) * CELL_TAPS + tap % CELL_TAPS;
    return vec2<u32>(params.mix_offset + cell * KERNELS, inside);
}

fn mixed_weight(b: u32, i: u32) -> vec4<f32> {
    let source = bank_source_of(i);
    if !HAS_MIX {
        return vec4<f32>(bank_value(params.bank_base + source.y));
    }
    let kernel = select(params.weights, CELL_OUT * CELL_IN * CELL_TAPS, CELLS);
    var sum = vec4<f32>();
    for (var k = 0u; k < KERNELS; k++) {
        sum += attention_of_four(b, source.x + k)
            * bank_value(params.bank_base + k * kernel + source.y);
    }
    return sum;
}

fn mixed_bias(b: u32, channel: u32) -> vec4<f32> {
    if CELLS || !HAS_MIX {
        return vec4<f32>(bias[params.bias_base + channel]);
    }
    let channels = params.groups * params.c_out;
    var sum = vec4<f32>();
    for (var k = 0u; k < KERNELS; k++) {
        sum += attention_of_four(b, params.mix_offset + k)
            * bias[params.bias_base + k * channels + channel];
    }
    return sum;
}

// Product of the gains that weight i of four samples takes.
fn gain(b: u32, i: u32) -> vec4<f32> {
    var product = vec4<f32>(1.0);
    let at = weight_of(i);
    if SPATIAL_GAIN {
        product *= attention_of_four(b, params.spatial_gain_offset + at.tap);
    }
    if CHANNEL_GAIN {
        product *= attention_of_four(b, params.channel_gain_offset + at.g * params.c_in + at.ci);
    }
    if FILTER_GAIN {
        product *= attention_of_four(b, params.filter_gain_offset + at.co);
    }
    return product;
}

@compute @workgroup_size(WORKGROUP)
fn aggregate(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    let blocks = (params.sample_stride + WORKGROUP - 1u) / WORKGROUP;
    let i = number % blocks * WORKGROUP + lane;
    let b = number / blocks * 4u;
    if number >= params.workgroups || i >= params.sample_stride {
        return;
    }

    var values: vec4<f32>;
    if HAS_BIAS && i >= params.weights {
        // A row may be filled up past its bias.
        values = mixed_bias(b, min(i - params.weights, params.groups * params.c_out - 1u));
    } else {
        values = mixed_weight(b, i) * gain(b, i);
    }

    let first = params.sample_weights_base + b * params.sample_stride + i;
    sample_weights[first] = values.x;
    if b + 1u < params.batch { sample_weights[first + params.sample_stride] = values.y; }
    if b + 2u < params.batch { sample_weights[first + 2u * params.sample_stride] = values.z; }
    if b + 3u < params.batch { sample_weights[first + 3u * params.sample_stride] = values.w; }
}
