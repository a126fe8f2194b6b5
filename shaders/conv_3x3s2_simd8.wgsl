// import conv, dispatch, patch_15x9, patch_simd8, simd8, tile_7x4, tile_7x4_simd8

// 3 x 3 convolution with stride 2 for subgroups of eight invocations (lanes), for software
// adapters; see conv_gemm_simd8.wgsl.
//
// A workgroup is one subgroup. It computes 7 rows x 4 columns x 16 output channels, two a lane. For
// each input channel it needs a patch of 15 x 9 inputs, of which a lane loads two rows: its own and
// the eighth after it. From there on the patch is broadcast.

// Where a lane reads a row of the patch.
struct StridedPlace {
    two0: Two,
    two1: Two,
    two2: Two,
    two3: Two,
    two4: Two,
}

fn strided_place_of(tile: PatchTile, patch_row: u32) -> StridedPlace {
    return StridedPlace(
        two_at(tile, patch_row, 0u),
        two_at(tile, patch_row, 1u),
        two_at(tile, patch_row, 2u),
        two_at(tile, patch_row, 3u),
        two_at(tile, patch_row, 4u),
    );
}

fn strided_line_at(place: StridedPlace, offset: u32, gain: f32) -> StridedLine {
    let x0 = two_inputs(place.two0, offset, gain);
    let x1 = two_inputs(place.two1, offset, gain);
    let x2 = two_inputs(place.two2, offset, gain);
    let x3 = two_inputs(place.two3, offset, gain);
    let x4 = two_inputs(place.two4, offset, gain);
    return StridedLine(vec4<f32>(x0.y, x1.y, x2.y, x3.y), vec4<f32>(x1.x, x2.x, x3.x, x4.x), x4.y);
}

// The line that a lane holds, on all lanes.
fn strided_line_of(line: StridedLine, lane: u32) -> StridedLine {
    return StridedLine(
        subgroupShuffle(line.even, lane),
        subgroupShuffle(line.odd, lane),
        subgroupShuffle(line.last, lane),
    );
}

@compute @workgroup_size(WORKGROUP)
fn conv_3x3s2_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = patch_tile_of(number, lane, TILE_ROWS, TILE_COLUMNS);
    let weights = first_weights(tile.b, 0u, tile.g, tile.co);
    let upper_place = strided_place_of(tile, lane);
    let lower_place = strided_place_of(tile, lane + 8u);
    let stride = select(params.in_h * params.in_w, 1u, X_NHWC);

    var even = Sums7x4();
    var odd = Sums7x4();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let gain = patch_gain(tile, ci);
        let upper = strided_line_at(upper_place, ci * stride, gain);
        let lower = strided_line_at(lower_place, ci * stride, gain);
        let w = two_by_nine(weights, ci);
        let l0 = strided_line_of(upper, 0u);
        let l1 = strided_line_of(upper, 1u);
        let l2 = strided_line_of(upper, 2u);
        even.r0 = nine_strided_taps(even.r0, l0, l1, l2, w.even);
        odd.r0 = nine_strided_taps(odd.r0, l0, l1, l2, w.odd);
        let l3 = strided_line_of(upper, 3u);
        let l4 = strided_line_of(upper, 4u);
        even.r1 = nine_strided_taps(even.r1, l2, l3, l4, w.even);
        odd.r1 = nine_strided_taps(odd.r1, l2, l3, l4, w.odd);
        let l5 = strided_line_of(upper, 5u);
        let l6 = strided_line_of(upper, 6u);
        even.r2 = nine_strided_taps(even.r2, l4, l5, l6, w.even);
        odd.r2 = nine_strided_taps(odd.r2, l4, l5, l6, w.odd);
        let l7 = strided_line_of(upper, 7u);
        let l8 = strided_line_of(lower, 0u);
        even.r3 = nine_strided_taps(even.r3, l6, l7, l8, w.even);
        odd.r3 = nine_strided_taps(odd.r3, l6, l7, l8, w.odd);
        let l9 = strided_line_of(lower, 1u);
        let l10 = strided_line_of(lower, 2u);
        even.r4 = nine_strided_taps(even.r4, l8, l9, l10, w.even);
        odd.r4 = nine_strided_taps(odd.r4, l8, l9, l10, w.odd);
        let l11 = strided_line_of(lower, 3u);
        let l12 = strided_line_of(lower, 4u);
        even.r5 = nine_strided_taps(even.r5, l10, l11, l12, w.even);
        odd.r5 = nine_strided_taps(odd.r5, l10, l11, l12, w.odd);
        let l13 = strided_line_of(lower, 5u);
        let l14 = strided_line_of(lower, 6u);
        even.r6 = nine_strided_taps(even.r6, l12, l13, l14, w.even);
        odd.r6 = nine_strided_taps(odd.r6, l12, l13, l14, w.odd);
    }
    store_two(tile, even, odd);
}
