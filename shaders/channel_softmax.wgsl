// import dispatch

// Softmax over the channels at every position, with a temperature: turns logits into maps of mixing
// weights.
//
//   maps[b, k, p] = exp(logits[b, k, p] / temperature) / sum_j exp(logits[b, j, p] / temperature)
//
// An invocation owns one position of one sample. The largest logit is taken off first, so that exp
// cannot overflow. Constant that the host joins in front: WORKGROUP.

struct SoftmaxParams {
    // First element of each operand inside its binding.
    logits_base: u32,
    maps_base: u32,
    temperature_base: u32,

    batch: u32,
    channels: u32,
    size: u32,
}

@group(0) @binding(0) var<uniform> params: SoftmaxParams;
// [batch, channels, size]
@group(0) @binding(1) var<storage, read> logits: array<f32>;
// [batch, channels, size]
@group(0) @binding(2) var<storage, read_write> maps: array<f32>;
// [1], which the host may change between two runs.
@group(0) @binding(3) var<storage, read> temperature: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn channel_softmax(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * params.size {
        return;
    }
    let divisor = temperature[params.temperature_base];
    let first = index / params.size * params.channels * params.size + index % params.size;

    var largest = logits[params.logits_base + first];
    for (var k = 1u; k < params.channels; k++) {
        largest = max(largest, logits[params.logits_base + first + k * params.size]);
    }
    var sum = 0.0;
    for (var k = 0u; k < params.channels; k++) {
        sum += exp((logits[params.logits_base + first + k * params.size] - largest) / divisor);
    }
    for (var k = 0u; k < params.channels; k++) {
        let power = exp((logits[params.logits_base + first + k * params.size] - largest) / divisor);
        maps[params.maps_base + first + k * params.size] = power / sum;
    }
}
