// import conv, dispatch, patch_15x9, taps_3x3, tile_7x4

// Depthwise convolution (one input channel a group, any channel multiplier) with 3 x 3 taps and
// stride 2. An invocation computes 7 rows x 4 columns of one output channel, of which every second
// row of inputs is used twice.

fn inputs_from(b: u32, channel: u32, row: u32, column: u32) -> StridedLine {
    return StridedLine(
        vec4<f32>(
            input_at(b, channel, 0u, row, column),
            input_at(b, channel, 0u, row, column + 2u),
            input_at(b, channel, 0u, row, column + 4u),
            input_at(b, channel, 0u, row, column + 6u),
        ),
        vec4<f32>(
            input_at(b, channel, 0u, row, column + 1u),
            input_at(b, channel, 0u, row, column + 3u),
            input_at(b, channel, 0u, row, column + 5u),
            input_at(b, channel, 0u, row, column + 7u),
        ),
        input_at(b, channel, 0u, row, column + 8u),
    );
}

@compute @workgroup_size(WORKGROUP)
fn conv_depthwise_3x3s2(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let across = ceil_div(params.out_w, TILE_COLUMNS);
    let tiles = across * ceil_div(params.out_h, TILE_ROWS);
    let channels = params.groups * params.c_out;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * tiles {
        return;
    }
    let tile = index % tiles;
    let channel = index / tiles % channels;
    let b = index / (tiles * channels);
    let source = channel / params.c_out;
    let row = tile / across * TILE_ROWS;
    let column = tile % across * TILE_COLUMNS;

    // The first inputs; before the map they wrap to huge numbers.
    let top = 2u * row - params.pad_h;
    let left = 2u * column - params.pad_w;
    let w = taps_at(weights_of(b, 0u, channel));
    var sums = Sums7x4();
    let l0 = inputs_from(b, source, top, left);
    let l1 = inputs_from(b, source, top + 1u, left);
    let l2 = inputs_from(b, source, top + 2u, left);
    sums.r0 = nine_strided_taps(sums.r0, l0, l1, l2, w);
    let l3 = inputs_from(b, source, top + 3u, left);
    let l4 = inputs_from(b, source, top + 4u, left);
    sums.r1 = nine_strided_taps(sums.r1, l2, l3, l4, w);
    let l5 = inputs_from(b, source, top + 5u, left);
    let l6 = inputs_from(b, source, top + 6u, left);
    sums.r2 = nine_strided_taps(sums.r2, l4, l5, l6, w);
    let l7 = inputs_from(b, source, top + 7u, left);
    let l8 = inputs_from(b, source, top + 8u, left);
    sums.r3 = nine_strided_taps(sums.r3, l6, l7, l8, w);
    let l9 = inputs_from(b, source, top + 9u, left);
    let l10 = inputs_from(b, source, top + 10u, left);
    sums.r4 = nine_strided_taps(sums.r4, l8, l9, l10, w);
    let l11 = inputs_from(b, source, top + 11u, left);
    let l12 = inputs_from(b, source, top + 12u, left);
    sums.r5 = nine_strided_taps(sums.r5, l10, l11, l12, w);
    let l13 = inputs_from(b, source, top + 13u, left);
    let l14 = inputs_from(b, source, top + 14u, left);
    sums.r6 = nine_strided_taps(sums.r6, l12, l13, l14, w);
    store_7x4(b, channel, row, column, sums);
}
