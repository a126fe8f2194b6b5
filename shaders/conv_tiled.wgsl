// import conv, dispatch, store, vectors

// Implicit GEMM: per sample and group, Y[co, p] = sum_r W[co, r] * X[r, p], r running over (k, ci,
// tap), with X never stored: its tile is gathered from x while it is staged in workgroup memory.
//
// A workgroup computes TILE_M channels x TILE_N positions, TILE_K reduction steps at a time; an
// invocation 4 x 4 of them. Constants beside those of lib/conv.wgsl: TILE_M, TILE_N (multiples of
// 4), TILE_K; WORKGROUP = TILE_M / 4 * TILE_N / 4.

var<workgroup> tile_w: array<f32, TILE_K * TILE_M>; // [k][m]
var<workgroup> tile_x: array<f32, TILE_K * TILE_N>; // [k][n]

// X[r, position] of sample b, group g: the input that the tap reads, times the mixing weight of
// kernel k.
fn gather(b: u32, g: u32, r: u32, position: u32) -> f32 {
    let channels = params.ci_end - params.ci_begin;
    let ci = params.ci_begin + r / TAPS % channels;
    let k = r / (TAPS * channels);
    let tap = r % TAPS;
    let out_x = position % params.out_w;
    let out_y = position / params.out_w % params.out_h;
    let out_z = position / (params.out_w * params.out_h);
    let column = tap_position(out_x, STRIDE_W, tap % KERNEL_W, DILATION_W, params.pad_w);
    let row = tap_position(out_y, STRIDE_H, tap / KERNEL_W % KERNEL_H, DILATION_H, params.pad_h);
    let z = tap_position(out_z, STRIDE_D, tap / (KERNEL_W * KERNEL_H), DILATION_D, params.pad_d);
    let value = input_at(b, g * params.c_in + ci, z, row, column);
    if MAP != 0u {
        return value * mix_at(b, k, position);
    }
    return value;
}

@compute @workgroup_size(WORKGROUP)
fn conv_tiled(
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
    let b = number / (tiles_n * tiles_m * params.groups);

    let m = lane / (TILE_N / 4u) * 4u;
    let n = lane % (TILE_N / 4u) * 4u;
    // Reduction steps of one kernel, and of all that are mixed.
    let of_kernel = (params.ci_end - params.ci_begin) * TAPS;
    let reduction = MIXED * of_kernel;

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();

    for (var first_r = 0u; first_r < reduction; first_r += TILE_K) {
        for (var i = lane; i < TILE_K * TILE_M; i += WORKGROUP) {
            let co = first_m + i % TILE_M;
            let r = first_r + i / TILE_M;
            var value = 0.0;
            if co < params.c_out && r < reduction {
                let weights = weights_of(b, r / of_kernel, g * params.c_out + co);
                let step = params.ci_begin * TAPS + r % of_kernel;
                value = sample_weights[weights + step * WEIGHT_STEP];
            }
            tile_w[i] = value;
        }
        for (var i = lane; i < TILE_K * TILE_N; i += WORKGROUP) {
            let position = first_n + i % TILE_N;
            let r = first_r + i / TILE_N;
            var value = 0.0;
            if position < size && r < reduction {
                value = gather(b, g, r, position);
            }
            tile_x[i] = value;
        }
        workgroupBarrier();

        for (var k = 0u; k < TILE_K; k++) {
            let w = k * TILE_M + m;
            let p = k * TILE_N + n;
            let inputs = vec4<f32>(tile_x[p], tile_x[p + 1u], tile_x[p + 2u], tile_x[p + 3u]);
            sum0 += tile_w[w] * inputs;
            sum1 += tile_w[w + 1u] * inputs;
            sum2 += tile_w[w + 2u] * inputs;
            sum3 += tile_w[w + 3u] * inputs;
        }
        workgroupBarrier();
    }

    // Loops, though they cost a few selections: written out, what follows the sum would be compiled
    // 16 times.
    for (var i = 0u; i < 4u; i++) {
        let co = first_m + m + i;
        let sums = select(select(sum0, sum1, i == 1u), select(sum2, sum3, i == 3u), i >= 2u);
        for (var j = 0u; j < 4u; j++) {
            let position = first_n + n + j;
            if co < params.c_out && position < size {
                store_output(b, g * params.c_out + co, position, component(sums, j));
            }
        }
    }
}
