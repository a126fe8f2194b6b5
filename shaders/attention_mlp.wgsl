// import dispatch, numbers

// Attention branch after pooling. One workgroup a sample.
//
//   hidden[a]   = relu( sum_c W0[a, c] * means[b, c] + b0[a] )   or means, without a hidden layer
//   logit[j]    = sum_a W1[j, a] * hidden[a] + b1[j]
//   out[b, j]   = sigmoid(logit[j] / temperature)            for the first `sigmoids` logits
//   out[b, ..]  = normalise(KERNELS logits)          for each of `runs` runs of logits after them
//
// HEAD 0: softmax(logits / temperature). The largest logit is taken off first: divided by a low
// temperature, logits may overflow. HEAD 1: signed attention, logit / (sum |logit| + 1e-3) over
// KERNELS + 1 logits, the last of which is dropped. All are scaled by one power of two first, so
// that their sum cannot overflow.
//
// Constants that the host joins in front: HAS_HIDDEN, HIDDEN (channels without a hidden layer),
// SLICES (parts of a hidden unit's sum, 1 without), KERNELS (1 without runs), HEAD, GROUP (runs
// that are normalised at a time, 0 if there are none), WORKGROUP.

struct MlpParams {
    // First element of each operand inside its binding.
    means_base: u32,
    hidden_base: u32,
    heads_base: u32,
    attention_base: u32,
    temperature_base: u32,

    batch: u32,
    channels: u32,
    sigmoids: u32,
    runs: u32,
}

@group(0) @binding(0) var<uniform> params: MlpParams;
// [batch, channels]
@group(0) @binding(1) var<storage, read> means: array<f32>;
// [channels, HIDDEN]: W0 transposed, so that neighbouring invocations read neighbours; then b0
// [HIDDEN].
@group(0) @binding(2) var<storage, read> hidden: array<f32>;
// [HIDDEN, logits]: W1 transposed; then b1 [logits].
@group(0) @binding(3) var<storage, read> heads: array<f32>;
// [batch, sigmoids + runs * KERNELS]
@group(0) @binding(4) var<storage, read_write> attention: array<f32>;
// [1], which the host may change between two runs.
@group(0) @binding(5) var<storage, read> temperature: array<f32>;

// Logits that make one run of attention.
const RUN: u32 = KERNELS + HEAD;
// What the logits are made from, then the logits of as many runs as are normalised at a time: each
// is computed once, by an invocation of its own. At first, parts of the hidden units' sums,
// [slice][unit].
var<workgroup> activations: array<f32, max(HIDDEN * SLICES, HIDDEN + GROUP * RUN)>;

fn logits() -> u32 {
    return params.sigmoids + params.runs * RUN;
}

fn logit(j: u32) -> f32 {
    var sum = 0.0;
    for (var a = 0u; a < HIDDEN; a++) {
        sum += heads[params.heads_base + a * logits() + j] * activations[a];
    }
    return sum + heads[params.heads_base + HIDDEN * logits() + j];
}

// Every SLICES-th channel's share in the sum of hidden unit a; without a hidden layer the mean
// itself.
fn part_of_unit(b: u32, a: u32, slice: u32) -> f32 {
    let means_of_sample = params.means_base + b * params.channels;
    if !HAS_HIDDEN {
        return means[means_of_sample + a];
    }
    var sum = 0.0;
    for (var c = slice; c < params.channels; c += SLICES) {
        sum += hidden[params.hidden_base + c * HIDDEN + a] * means[means_of_sample + c];
    }
    return sum;
}

fn hidden_unit(a: u32) -> f32 {
    var sum = hidden[params.hidden_base + params.channels * HIDDEN + a];
    for (var slice = 0u; slice < SLICES; slice++) {
        sum += activations[slice * HIDDEN + a];
    }
    return at_least(sum, 0.0);
}

// Attention number `own` of a run whose logits are in workgroup memory from `first` on. The order
// of the sums is fixed.
fn normalised(first: u32, own: u32) -> f32 {
    if HEAD == 0u {
        return softmax(first, own);
    }
    return signed(first, own);
}

fn softmax(first: u32, own: u32) -> f32 {
    let divisor = temperature[params.temperature_base];
    var largest = activations[first];
    for (var k = 1u; k < RUN; k++) {
        largest = max(largest, activations[first + k]);
    }
    var sum = 0.0;
    for (var k = 0u; k < RUN; k++) {
        sum += exp((activations[first + k] - largest) / divisor);
    }
    // Infinity less infinity is NaN, but of a single logit compilers take the difference to itself
    // for 0.
    return select(
        as_nan(largest),
        exp((activations[first + own] - largest) / divisor) / sum,
        is_finite(largest),
    );
}

fn signed(first: u32, own: u32) -> f32 {
    var largest = 1.0;
    for (var k = 0u; k < RUN; k++) {
        largest = max(largest, abs(activations[first + k]));
    }
    let scale = 1.0 / power_of_two(largest);
    var sum = 0.0;
    for (var k = 0u; k < RUN; k++) {
        sum += scale * abs(activations[first + k]);
    }
    return scale * activations[first + own] / (sum + scale * 1e-3);
}

@compute @workgroup_size(WORKGROUP)
fn attention_mlp(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let b = workgroup_number(id, grid);
    if b >= params.batch {
        return;
    }
    for (var i = lane; i < HIDDEN * SLICES; i += WORKGROUP) {
        activations[i] = part_of_unit(b, i % HIDDEN, i / HIDDEN);
    }
    workgroupBarrier();
    if HAS_HIDDEN {
        for (var a = lane; a < HIDDEN; a += WORKGROUP) {
            activations[a] = hidden_unit(a);
        }
    }
    workgroupBarrier();

    let out = params.attention_base + b * (params.sigmoids + params.runs * KERNELS);
    let divisor = temperature[params.temperature_base];
    for (var j = lane; j < params.sigmoids; j += WORKGROUP) {
        attention[out + j] = sigmoid(logit(j) / divisor);
    }
    for (var first = 0u; first < params.runs; first += GROUP) {
        let count = min(GROUP, params.runs - first);
        for (var i = lane; i < count * RUN; i += WORKGROUP) {
            activations[HIDDEN + i] = logit(params.sigmoids + first * RUN + i);
        }
        workgroupBarrier();
        for (var i = lane; i < count * KERNELS; i += WORKGROUP) {
            attention[out + params.sigmoids + first * KERNELS + i] = normalised(
                HIDDEN + i / KERNELS * RUN,
                i % KERNELS,
            );
        }
        workgroupBarrier();
    }
}
