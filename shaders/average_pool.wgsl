// import dispatch, x, x_wide

// Average pooling over one axis: means[o, i] = mean over s of x[o, s, i]. One workgroup a mean, or
// with ALONE one invocation.
//
// Global pooling of [batch, channels, positions] has inner = 1; of [batch, positions, channels]
// inner = channels.
//
// The invocations of a workgroup sum every WORKGROUP-th element each, in chunks: chunks of sums
// lose less to rounding than one long sum. The order is fixed, so the result is the same in every
// run. Constants that the host joins in front: WORKGROUP (a power of two), CHUNK (elements that an
// invocation sums at a time), ALONE, FOURS (with ALONE: inner is 1 and size a multiple of four, and
// loads take several elements, X_WIDTH).

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
// Binding 1 is x [outer, size, inner]: see elem/.
// [outer, inner]
@group(0) @binding(2) var<storage, read_write> means: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

fn pool_element(first: u32, i: u32) -> f32 {
    return x_value(first + i * params.inner);
}

// Sum of every `stride`-th element of a plane, from `begin` on.
fn sum_of(plane: u32, begin: u32, stride: u32) -> f32 {
    let first = params.x_base
        + plane / params.inner * params.size * params.inner + plane % params.inner;
    var sum = 0.0;
    for (var start = 0u; start < params.size; start += CHUNK * stride) {
        let end = min(params.size, start + CHUNK * stride);
        var chunk = 0.0;
        var i = start + begin;
        // Four loads a trip, which need not wait for each other.
        for (; i + 3u * stride < end; i += 4u * stride) {
            chunk += (pool_element(first, i) + pool_element(first, i + stride))
                + (pool_element(first, i + 2u * stride) + pool_element(first, i + 3u * stride));
        }
        for (; i < end; i += stride) {
            chunk += pool_element(first, i);
        }
        sum += chunk;
    }
    return sum;
}

// Sum of a plane, whose elements are neighbours, four at a time.
fn sum_by_fours(plane: u32) -> f32 {
    let first = params.x_base + plane * params.size;
    var sum = vec4<f32>();
    for (var start = 0u; start < params.size; start += CHUNK) {
        let end = min(params.size, start + CHUNK);
        var chunk = vec4<f32>();
        for (var i = start; i < end; i += 4u) {
            chunk += x_four(first + i, first + i + 3u);
        }
        sum += chunk;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

@compute @workgroup_size(WORKGROUP)
fn average_pool(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if ALONE {
        let plane = number * WORKGROUP + lane;
        if plane < params.planes {
            var sum: f32;
            if FOURS {
                sum = sum_by_fours(plane);
            } else {
                sum = sum_of(plane, 0u, 1u);
            }
            means[params.means_base + plane] = sum / f32(params.size);
        }
        return;
    }

    if number >= params.planes {
        return;
    }
    partial[lane] = sum_of(number, lane, WORKGROUP);
    workgroupBarrier();

    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        means[params.means_base + number] = partial[0] / f32(params.size);
    }
}
