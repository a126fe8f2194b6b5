// import dispatch

// Aggregation for subgroups of eight invocations (lanes), for software adapters, where a load costs
// the same whatever its width: kernels of bank and rows lie in blocks of 16 channels, and are read
// and written eight weights at a time, a bank load serving eight samples.
//
//   w[b, i]      = s[b, tap(i)] * sum_k alpha[b, k] * bank[k, i]
//   w[b, W + co] = sum_k alpha[b, k] * bias[k, co]
//
// w being sample_weights. The gains of channels and filters are left to the convolution.
//
// A workgroup is one subgroup; it goes through UNITS pieces of eight times eight weights. All bases
// but bias_base and attention_base are multiples of 8. Constants that the host joins in front:
// KERNELS, TAPS, UNITS, HAS_MIX, HAS_BIAS, SPATIAL_GAIN, WORKGROUP.

struct AggregateWideParams {
    // First element of each operand inside its binding.
    bank_base: u32,
    bias_base: u32,
    attention_base: u32,
    sample_weights_base: u32,

    batch: u32,
    c_out: u32,
    // Elements of one kernel of the bank.
    weights: u32,
    sample_stride: u32,
    attention_stride: u32,
    mix_offset: u32,
    spatial_gain_offset: u32,
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> params: AggregateWideParams;
// [KERNELS, W / 8], eight weights each; W, the weights of a kernel, is a multiple of 16.
@group(0) @binding(1) var<storage, read> bank: array<vec4<u64>>;
// [KERNELS, channels out]
@group(0) @binding(2) var<storage, read> bias: array<f32>;
// [batch, attention_stride]: alpha and the gains s, each at its own offset.
@group(0) @binding(3) var<storage, read> attention: array<f32>;
// [batch, sample_stride / 8]: the kernel, then the bias.
@group(0) @binding(4) var<storage, read_write> sample_weights: array<vec4<u64>>;

// Eight neighbouring elements: those of even and of odd number.
struct Eight {
    even: vec4<f32>,
    odd: vec4<f32>,
}

fn unpacked(words: vec4<u64>) -> Eight {
    return Eight(
        bitcast<vec4<f32>>(vec4<u32>(words)),
        bitcast<vec4<f32>>(vec4<u32>(words >> vec4<u32>(32u))),
    );
}

fn packed_eight(eight: Eight) -> vec4<u64> {
    let even = vec4<u64>(bitcast<vec4<u32>>(eight.even));
    let odd = vec4<u64>(bitcast<vec4<u32>>(eight.odd));
    return even | (odd << vec4<u32>(32u));
}

fn bias_of(k: u32, channel: u32) -> f32 {
    return bias[params.bias_base + k * params.c_out + min(channel, params.c_out - 1u)];
}

// Kernel k's part of unit i of a row: eight weights, or past them eight biases. There is no kernel
// past the last.
fn source(k: u32, i: u32) -> Eight {
    if k >= KERNELS {
        return Eight();
    }
    if HAS_BIAS && i >= params.weights / 8u {
        let first = i * 8u - params.weights;
        return Eight(
            vec4<f32>(
                bias_of(k, first),
                bias_of(k, first + 2u),
                bias_of(k, first + 4u),
                bias_of(k, first + 6u),
            ),
            vec4<f32>(
                bias_of(k, first + 1u),
                bias_of(k, first + 3u),
                bias_of(k, first + 5u),
                bias_of(k, first + 7u),
            ),
        );
    }
    return unpacked(bank[(params.bank_base + k * params.weights) / 8u + i]);
}

// Each lane the mixing weight of a sample, for kernel k. Those past the last kernel are 0, like the
// kernel: an infinite one times 0 is NaN.
fn mix_of_lane(row: u32, k: u32) -> f32 {
    if !HAS_MIX {
        return 1.0;
    }
    return select(0.0, attention[row + params.mix_offset + min(k, KERNELS - 1u)], k < KERNELS);
}

@compute @workgroup_size(WORKGROUP)
fn aggregate_wide(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let units = params.sample_stride / 8u;
    let blocks = (units + 8u * UNITS - 1u) / (8u * UNITS);
    let b = number / blocks * 8u;
    let samples = min(8u, params.batch - b);
    // The attention of the lane's sample; lanes past the batch repeat the last.
    let own = params.attention_base + min(b + lane, params.batch - 1u) * params.attention_stride;
    for (var k = 0u; k < KERNELS; k += 4u) {
        let mix0 = mix_of_lane(own, k);
        let mix1 = mix_of_lane(own, k + 1u);
        let mix2 = mix_of_lane(own, k + 2u);
        let mix3 = mix_of_lane(own, k + 3u);
        for (var unit = 0u; unit < UNITS; unit++) {
            let place = number % blocks * 8u * UNITS + unit * 8u + lane;
            // Lanes past the row repeat its last unit.
            let i = min(place, units - 1u);
            let w0 = source(k, i);
            let w1 = source(k + 1u, i);
            let w2 = source(k + 2u, i);
            let w3 = source(k + 3u, i);
            let is_weight = i * 8u < params.weights;
            let tap = i / 2u % TAPS;
            for (var sample = 0u; sample < samples; sample++) {
                let a0 = subgroupShuffle(mix0, sample);
                let a1 = subgroupShuffle(mix1, sample);
                let a2 = subgroupShuffle(mix2, sample);
                let a3 = subgroupShuffle(mix3, sample);
                var sum = Eight(
                    a0 * w0.even + a1 * w1.even + a2 * w2.even + a3 * w3.even,
                    a0 * w0.odd + a1 * w1.odd + a2 * w2.odd + a3 * w3.odd,
                );
                if SPATIAL_GAIN {
                    let row = params.attention_base + (b + sample) * params.attention_stride;
                    let gain = select(
                        1.0,
                        attention[row + params.spatial_gain_offset + tap],
                        is_weight,
                    );
                    sum.even *= gain;
                    sum.odd *= gain;
                }
                if place < units {
                    let first = params.sample_weights_base + (b + sample) * params.sample_stride;
                    let target_unit = first / 8u + i;
                    if k > 0u {
                        let before = unpacked(sample_weights[target_unit]);
                        sum.even += before.even;
                        sum.odd += before.odd;
                    }
                    sample_weights[target_unit] = packed_eight(sum);
                }
            }
        }
    }
}
