// import conv, dispatch, patch_9x6, taps_3x3, tile_7x4

// Depthwise convolution (one input channel a group, any channel multiplier) with 3 x 3 taps and
// stride 1. An invocation computes 7 rows x 4 columns of one output channel, so that an input is
// loaded once for up to nine taps.

// Where six neighbouring inputs of a row lie, and which of them are inside the map.
struct Columns {
    left: vec4<u32>,
    right: vec2<u32>,
    left_inside: vec4<bool>,
    right_inside: vec2<bool>,
}

fn columns_from(first: u32) -> Columns {
    let left = vec4<u32>(first, first + 1u, first + 2u, first + 3u);
    let right = vec2<u32>(first + 4u, first + 5u);
    return Columns(left, right, left < vec4<u32>(params.in_w), right < vec2<u32>(params.in_w));
}

// An input under zero padding. A place in the padding reads some element of the map and drops it:
// cheaper than a branch.
fn patch_input(b: u32, channel: u32, row: u32, column: u32, inside: bool) -> f32 {
    return select(0.0, x_at(b, channel, select(0u, row * params.in_w + column, inside)), inside);
}

fn patch_line_at(b: u32, channel: u32, row: u32, columns: Columns) -> PatchLine {
    let left = columns.left_inside & vec4<bool>(row < params.in_h);
    let right = columns.right_inside & vec2<bool>(row < params.in_h);
    return PatchLine(
        vec4<f32>(
            patch_input(b, channel, row, columns.left.x, left.x),
            patch_input(b, channel, row, columns.left.y, left.y),
            patch_input(b, channel, row, columns.left.z, left.z),
            patch_input(b, channel, row, columns.left.w, left.w),
        ),
        vec2<f32>(
            patch_input(b, channel, row, columns.right.x, right.x),
            patch_input(b, channel, row, columns.right.y, right.y),
        ),
    );
}

@compute @workgroup_size(WORKGROUP)
fn conv_depthwise_3x3(
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

    let first = row - params.pad_h;
    let columns = columns_from(column - params.pad_w);
    let patch_lines = Patch9x6(
        patch_line_at(b, source, first, columns),
        patch_line_at(b, source, first + 1u, columns),
        patch_line_at(b, source, first + 2u, columns),
        patch_line_at(b, source, first + 3u, columns),
        patch_line_at(b, source, first + 4u, columns),
        patch_line_at(b, source, first + 5u, columns),
        patch_line_at(b, source, first + 6u, columns),
        patch_line_at(b, source, first + 7u, columns),
        patch_line_at(b, source, first + 8u, columns),
    );
    var sums = Sums7x4();
    accumulate_9x6(&sums, patch_lines, taps_at(weights_of(b, 0u, channel)));
    store_7x4(b, channel, row, column, sums);
}
