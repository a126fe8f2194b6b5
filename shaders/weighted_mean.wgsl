// import dispatch, numbers

// Mean over the positions, weighted.
//
//   means[b, c] = sum_p w[b, c, p] x[b, c, p] / sum_p w[b, c, p]
//   w           = max(weights, least)
//
// An invocation computes one mean. Constant that the host joins in front: WORKGROUP.

struct MeanParams {
    // First element of each operand inside its binding.
    x_base: u32,
    weights_base: u32,
    means_base: u32,

    // batch * channels
    planes: u32,
    size: u32,
    least: f32,
}

@group(0) @binding(0) var<uniform> params: MeanParams;
// [batch, channels, positions]
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [batch, channels, positions]
@group(0) @binding(2) var<storage, read> weights: array<f32>;
// [batch, channels]
@group(0) @binding(3) var<storage, read_write> means: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn weighted_mean(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let plane = workgroup_number(id, grid) * WORKGROUP + lane;
    if plane >= params.planes {
        return;
    }
    var sum = 0.0;
    var total = 0.0;
    for (var i = plane * params.size; i < (plane + 1u) * params.size; i++) {
        let weight = at_least(weights[params.weights_base + i], params.least);
        sum += weight * x[params.x_base + i];
        total += weight;
    }
    means[params.means_base + plane] = sum / total;
}
