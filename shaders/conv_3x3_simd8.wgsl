// import conv, dispatch, patch_9x6, patch_simd8, simd8, tile_7x4, tile_7x4_simd8, x

// 3 x 3 convolution with stride 1 for subgroups of eight invocations (lanes), for software
// adapters; see conv_gemm_simd8.wgsl.
//
// A workgroup is one subgroup. It computes 7 rows x 4 columns x 16 output channels, two a lane. For
// each input channel it needs a patch of 9 x 6 inputs: the lanes load the first eight rows, one
// each, and then the ninth row, one input each. From there on the patch is broadcast, and every
// input is used by up to nine taps of both channels.

// Where a lane reads an input of the ninth row, if it is inside the map.
struct Ninth {
    inside: bool,
    element: u32,
}

fn ninth_of(tile: PatchTile, lane: u32) -> Ninth {
    let row = map_row(tile, 8u);
    let column = map_column(tile, min(lane, 5u));
    let inside = row < params.in_h && column < params.in_w;
    return Ninth(inside, place_element(tile, row, column, inside));
}

// The line that a lane holds, on all lanes.
fn patch_line_of(line: PatchLine, lane: u32) -> PatchLine {
    return PatchLine(subgroupShuffle(line.left, lane), subgroupShuffle(line.right, lane));
}

// The line of which each lane holds one input.
fn patch_line_across(value: f32) -> PatchLine {
    return PatchLine(
        vec4<f32>(
            subgroupShuffle(value, 0u),
            subgroupShuffle(value, 1u),
            subgroupShuffle(value, 2u),
            subgroupShuffle(value, 3u),
        ),
        vec2<f32>(subgroupShuffle(value, 4u), subgroupShuffle(value, 5u)),
    );
}

@compute @workgroup_size(WORKGROUP)
fn conv_3x3_simd8(
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
    let two0 = two_at(tile, lane, 0u);
    let two1 = two_at(tile, lane, 1u);
    let two2 = two_at(tile, lane, 2u);
    let two3 = two_at(tile, lane, 3u);
    let ninth = ninth_of(tile, lane);
    let stride = select(params.in_h * params.in_w, 1u, X_NHWC);

    var even = Sums7x4();
    var odd = Sums7x4();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let offset = ci * stride;
        let gain = patch_gain(tile, ci);
        let x0 = two_inputs(two0, offset, gain);
        let x1 = two_inputs(two1, offset, gain);
        let x2 = two_inputs(two2, offset, gain);
        let x3 = two_inputs(two3, offset, gain);
        let own = PatchLine(vec4<f32>(x0.y, x1, x2.x), vec2<f32>(x2.y, x3.x));
        let last = select(0.0, gain * x_value(ninth.element + offset), ninth.inside);
        let w = two_by_nine(weights, ci);
        let patch_lines = Patch9x6(
            patch_line_of(own, 0u),
            patch_line_of(own, 1u),
            patch_line_of(own, 2u),
            patch_line_of(own, 3u),
            patch_line_of(own, 4u),
            patch_line_of(own, 5u),
            patch_line_of(own, 6u),
            patch_line_of(own, 7u),
            patch_line_across(last),
        );
        accumulate_9x6(&even, patch_lines, w.even);
        accumulate_9x6(&odd, patch_lines, w.odd);
    }
    store_two(tile, even, odd);
}
