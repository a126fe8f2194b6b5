// import conv, dispatch, store

// Direct convolution: one invocation computes one output. The simplest correct kernel, the
// yardstick of the others.

@compute @workgroup_size(WORKGROUP)
fn conv_direct(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let size = positions();
    let channels = params.groups * params.c_out;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * size {
        return;
    }

    let position = index % size;
    let channel = index / size % channels;
    let b = index / (size * channels);
    let first_input = channel / params.c_out * params.c_in;
    let out_x = position % params.out_w;
    let out_y = position / params.out_w % params.out_h;
    let out_z = position / (params.out_w * params.out_h);

    var total = 0.0;
    for (var k = 0u; k < MIXED; k++) {
        let weights = weights_of(b, k, channel);
        var sum = 0.0;
        for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
            for (var kz = 0u; kz < KERNEL_D; kz++) {
                let z = tap_position(out_z, STRIDE_D, kz, DILATION_D, params.pad_d);
                for (var ky = 0u; ky < KERNEL_H; ky++) {
                    let row = tap_position(out_y, STRIDE_H, ky, DILATION_H, params.pad_h);
                    for (var kx = 0u; kx < KERNEL_W; kx++) {
                        let column = tap_position(out_x, STRIDE_W, kx, DILATION_W, params.pad_w);
                        let tap = (kz * KERNEL_H + ky) * KERNEL_W + kx;
                        sum += sample_weights[weights + (ci * TAPS + tap) * WEIGHT_STEP]
                            * input_at(b, first_input + ci, z, row, column);
                    }
                }
            }
        }
        total += mix_at(b, k, position) * sum;
    }
    store_output(b, channel, position, total);
}
