// Average pooling over one axis: means[o, i] = mean over s of x[o, s, i]. One workgroup a mean.
//
// x      [outer, size, inner]
// means  [outer, inner]
//
// Global pooling of [batch, channels, positions] has inner = 1; of [batch, positions, channels] inner = channels.
//
// Each invocation sums every WORKGROUP-th element, in chunks: chunks of sums lose less to rounding than one long sum. The order is
// fixed, so the result is the same in every run.
// Constants that the host joins in front: WORKGROUP (a power of two), CHUNK (trips of the inner loop).

struct PoolParams {
    // First element of each operand inside its binding.
    x_base: u32,
    means_base: u32,

    // outer * inner
    planes: u32,
    size: u32,
    inner: u32,
}

@group(0) @binding(0) var<uniform> params: PoolParams;
// Binding 1 is x; shaders/elem/ declares it in each element type, with x_value.
@group(0) @binding(2) var<storage, read_write> means: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn average_pool(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let plane = workgroup_number(id, grid);
    if plane >= params.planes {
        return;
    }

    let outer = plane / params.inner;
    let first = params.x_base + outer * params.size * params.inner + plane % params.inner;
    var sum = 0.0;
    for (var start = 0u; start < params.size; start += CHUNK * WORKGROUP) {
        let end = min(params.size, start + CHUNK * WORKGROUP);
        var chunk = 0.0;
        for (var i = start + lane; i < end; i += WORKGROUP) {
            chunk += x_value(first + i * params.inner);
        }
        sum += chunk;
    }
    partial[lane] = sum;
    workgroupBarrier();

    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        means[params.means_base + plane] = partial[0] / f32(params.size);
    }
}
