// Attention branch after pooling, for DY-CNN (only the softmax head) and ODConv (four heads). One workgroup a sample.
//
//   hidden[a]   = relu( sum_c W0[a, c] * means[b, c] + b0[a] )
//   logit[j]    = ( sum_a W1[j, a] * hidden[a] + b1[j] ) / temperature
//   out[b, j]   = sigmoid(logit[j])                       for the first `sigmoids` logits: gains
//   out[b, j]   = softmax over the last KERNELS logits     mixing weights
//
// means      [batch, channels]
// hidden     [channels, HIDDEN] (W0 transposed, so that neighbouring invocations read neighbours), then b0 [HIDDEN]
// heads      [HIDDEN, outputs] (W1 transposed), then b1 [outputs]; outputs = sigmoids + KERNELS
// attention  [batch, outputs]
//
// Constants that the host joins in front: HIDDEN, KERNELS, WORKGROUP.

struct MlpParams {
    // First element of each operand inside its binding.
    means_base: u32,
    hidden_base: u32,
    heads_base: u32,
    attention_base: u32,

    batch: u32,
    channels: u32,
    sigmoids: u32,
    temperature: f32,
}

@group(0) @binding(0) var<uniform> params: MlpParams;
@group(0) @binding(1) var<storage, read> means: array<f32>;
@group(0) @binding(2) var<storage, read> hidden: array<f32>;
@group(0) @binding(3) var<storage, read> heads: array<f32>;
@group(0) @binding(4) var<storage, read_write> attention: array<f32>;

var<workgroup> activations: array<f32, HIDDEN>;
// At least one element: a layer whose kernel attention is skipped has no softmax.
var<workgroup> mix_logits: array<f32, max(KERNELS, 1u)>;

// Both branches keep exp's argument at or below 0, where it cannot overflow.
fn sigmoid(z: f32) -> f32 {
    let e = exp(-abs(z));
    return select(e, 1.0, z >= 0.0) / (1.0 + e);
}

fn logit(j: u32) -> f32 {
    let outputs = params.sigmoids + KERNELS;
    var sum = 0.0;
    for (var a = 0u; a < HIDDEN; a++) {
        sum += heads[params.heads_base + a * outputs + j] * activations[a];
    }
    return (sum + heads[params.heads_base + HIDDEN * outputs + j]) / params.temperature;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let b = workgroup_number(id, grid);
    if b >= params.batch {
        return;
    }
    let out = params.attention_base + b * (params.sigmoids + KERNELS);

    for (var a = lane; a < HIDDEN; a += WORKGROUP) {
        var sum = 0.0;
        for (var c = 0u; c < params.channels; c++) {
            sum += hidden[params.hidden_base + c * HIDDEN + a] * means[params.means_base + b * params.channels + c];
        }
        activations[a] = max(sum + hidden[params.hidden_base + params.channels * HIDDEN + a], 0.0);
    }
    workgroupBarrier();

    for (var j = lane; j < params.sigmoids; j += WORKGROUP) {
        attention[out + j] = sigmoid(logit(j));
    }
    for (var k = lane; k < KERNELS; k += WORKGROUP) {
        mix_logits[k] = logit(params.sigmoids + k);
    }
    workgroupBarrier();

    // Every invocation that owns a mixing weight finds the maximum and the sum by itself: KERNELS is small.
    for (var k = lane; k < KERNELS; k += WORKGROUP) {
        var largest = mix_logits[0];
        for (var i = 1u; i < KERNELS; i++) {
            largest = max(largest, mix_logits[i]);
        }
        var sum = 0.0;
        for (var i = 0u; i < KERNELS; i++) {
            sum += exp(mix_logits[i] - largest);
        }
        attention[out + params.sigmoids + k] = exp(mix_logits[k] - largest) / sum;
    }
}
