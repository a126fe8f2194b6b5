// import conv, dispatch, store, vectors

// Depthwise convolution: one input channel a group (c_in == 1), any channel multiplier. An
// invocation computes four neighbouring outputs of a row, so that a weight is loaded once for four
// sums.

fn column_of(out_x: u32, kx: u32) -> u32 {
    return tap_position(out_x, STRIDE_W, kx, DILATION_W, params.pad_w);
}

@compute @workgroup_size(WORKGROUP)
fn conv_depthwise(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let strips = ceil_div(params.out_w, 4u);
    let channels = params.groups * params.c_out;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * params.out_d * params.out_h * strips {
        return;
    }

    let out_x = index % strips * 4u;
    let line = index / strips;
    let out_y = line % params.out_h;
    let out_z = line / params.out_h % params.out_d;
    let plane = line / (params.out_h * params.out_d);
    let channel = plane % channels;
    let b = plane / channels;
    let input = channel / params.c_out;

    let weights = weights_of(b, 0u, channel);
    var sums = vec4<f32>();
    for (var kz = 0u; kz < KERNEL_D; kz++) {
        let z = tap_position(out_z, STRIDE_D, kz, DILATION_D, params.pad_d);
        for (var ky = 0u; ky < KERNEL_H; ky++) {
            let row = tap_position(out_y, STRIDE_H, ky, DILATION_H, params.pad_h);
            for (var kx = 0u; kx < KERNEL_W; kx++) {
                let tap = (kz * KERNEL_H + ky) * KERNEL_W + kx;
                let w = sample_weights[weights + tap * WEIGHT_STEP];
                sums += w * vec4<f32>(
                    input_at(b, input, z, row, column_of(out_x, kx)),
                    input_at(b, input, z, row, column_of(out_x + 1u, kx)),
                    input_at(b, input, z, row, column_of(out_x + 2u, kx)),
                    input_at(b, input, z, row, column_of(out_x + 3u, kx)),
                );
            }
        }
    }

    let position = (out_z * params.out_h + out_y) * params.out_w + out_x;
    for (var i = 0u; i < min(4u, params.out_w - out_x); i++) {
        store_output(b, channel, position + i, component(sums, i));
    }
}
