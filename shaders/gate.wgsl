// import conv, dispatch, numbers, store

// Gates: each element times its gains, maybe after a dynamic ReLU.
//
//   sum[b, c, p] = r(x[b, c, p]) * first[b, c, ..] * second[b, c, ..]
//   r(v)         = max(a1 v + b1, a2 v + b2)                     with DYNAMIC_RELU, else v
//
// `first` is a gain of the channel (FILTER_GAIN), or one for every position or place along an axis
// (MAP); `second` one for every place along an axis (SECOND: 0 none, 2 to 4 as MAP). Absent ones
// count as 1. What follows is as in lib/conv.wgsl. An invocation computes one output. Constants
// beside those of lib/conv.wgsl: DYNAMIC_RELU, SECOND. Coefficients of the dynamic ReLU stand in
// place of weights: [batch, channels, 4], a1, a2, b1, b2.

// Second gains, where other kernels have weights again. [batch, channels, size of the axis]
@group(0) @binding(7) var<storage, read> wide_weights: array<f32>;

// WGSL's max may drop a NaN.
fn maximum(a: f32, b: f32) -> f32 {
    return select(at_least(b, a), a, is_nan(a));
}

fn dynamic_relu(b: u32, channel: u32, value: f32) -> f32 {
    let first = params.sample_weights_base + b * params.sample_stride + 4u * channel;
    return maximum(
        sample_weights[first] * value + sample_weights[first + 2u],
        sample_weights[first + 1u] * value + sample_weights[first + 3u],
    );
}

fn second_at(b: u32, channel: u32, position: u32) -> f32 {
    var place = position % params.out_w;
    var size = params.out_w;
    switch SECOND {
        case 2u: { place = position / (params.out_w * params.out_h); size = params.out_d; }
        case 3u: { place = position / params.out_w % params.out_h; size = params.out_h; }
        default: {}
    }
    return wide_weights[params.wide_weights_base + (b * params.groups + channel) * size + place];
}

@compute @workgroup_size(WORKGROUP)
fn gate(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    let size = positions();
    if index >= params.batch * params.groups * size {
        return;
    }
    let position = index % size;
    let channel = index / size % params.groups;
    let b = index / (size * params.groups);

    var value = x_at(b, channel, position);
    if DYNAMIC_RELU {
        value = dynamic_relu(b, channel, value);
    }
    if MAP != 0u {
        value *= mix_at(b, channel, position);
    }
    if SECOND != 0u {
        value *= second_at(b, channel, position);
    }
    store_output(b, channel, position, value);
}
