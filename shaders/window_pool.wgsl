// import conv, dispatch, numbers, store

// Pooling in windows: of the inputs that a window covers, the largest or the mean.
//
//   sum[b, c, p] = max over the taps inside the map of x[b, c, q(p, tap)]        with LARGEST
//                = sum over these taps of x[b, c, q(p, tap)] / taps              else
//
// q, and what follows, as in lib/conv.wgsl. `taps` are those inside the map, or with COUNTS_PADDING
// all. An invocation computes one output. A NaN is larger than any number. Constants beside those
// of lib/conv.wgsl: LARGEST, COUNTS_PADDING.

// WGSL's max may drop a NaN.
fn larger(a: f32, b: f32) -> f32 {
    return select(at_least(b, a), a, is_nan(a));
}

@compute @workgroup_size(WORKGROUP)
fn window_pool(
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
    let out_x = position % params.out_w;
    let out_y = position / params.out_w % params.out_h;
    let out_z = position / (params.out_w * params.out_h);

    var pooled = 0.0;
    var taps = 0u;
    for (var kz = 0u; kz < KERNEL_D; kz++) {
        let z = tap_position(out_z, STRIDE_D, kz, DILATION_D, params.pad_d);
        for (var ky = 0u; ky < KERNEL_H; ky++) {
            let row = tap_position(out_y, STRIDE_H, ky, DILATION_H, params.pad_h);
            for (var kx = 0u; kx < KERNEL_W; kx++) {
                let column = tap_position(out_x, STRIDE_W, kx, DILATION_W, params.pad_w);
                if z < params.in_d && row < params.in_h && column < params.in_w {
                    let value = x_at(b, channel, (z * params.in_h + row) * params.in_w + column);
                    if LARGEST {
                        pooled = select(larger(pooled, value), value, taps == 0u);
                    } else {
                        pooled += value;
                    }
                    taps++;
                }
            }
        }
    }
    if !LARGEST {
        pooled /= f32(select(taps, TAPS, COUNTS_PADDING));
    }
    store_output(b, channel, position, pooled);
}
