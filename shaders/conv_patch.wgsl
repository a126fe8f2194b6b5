// 3 x 3 convolution with stride 1 for subgroups of eight invocations (lanes), for software adapters; see conv_lanes.wgsl.
//
// A workgroup is one subgroup. It computes 7 rows x 4 columns x 16 output channels, two a lane. For each input channel it needs a patch of
// 9 x 6 inputs: the lanes load the first eight rows, one each, and then the ninth row, one input each. From there on the patch is
// broadcast, and every input is used by up to nine taps of both channels.

struct Tile {
    b: u32,
    g: u32,
    // First of the lane's two output channels in its group.
    co: u32,
    row: u32,
    column: u32,
}

fn tile_of(number: u32, lane: u32) -> Tile {
    let across = ceil_div(params.out_w, TILE_COLUMNS);
    let tiles = across * ceil_div(params.out_h, TILE_ROWS);
    let blocks = ceil_div(params.c_out, 16u);
    let group = number / (tiles * blocks);
    return Tile(
        group / params.groups,
        group % params.groups,
        number / tiles % blocks * 16u + 2u * lane,
        number % tiles / across * TILE_ROWS,
        number % tiles % across * TILE_COLUMNS,
    );
}

// Where a lane reads an input, in the group's first channel, if it is inside the map.
struct Place {
    inside: bool,
    element: u32,
}

fn place(tile: Tile, patch_row: u32, patch_column: u32) -> Place {
    let row = tile.row + patch_row - params.pad_h;
    let column = tile.column + patch_column - params.pad_w;
    let inside = row < params.in_h && column < params.in_w;
    let position = select(0u, row * params.in_w + column, inside);
    let size = params.in_h * params.in_w;
    let first = element(X_NHWC, tile.b, params.groups * params.c_in, tile.g * params.c_in, size, position);
    return Place(inside, params.x_base + first);
}

fn input(place: Place, offset: u32) -> f32 {
    return select(0.0, x_value(place.element + offset), place.inside);
}

// The line that a lane holds, on all lanes.
fn line_of(line: Line, lane: u32) -> Line {
    return Line(subgroupShuffle(line.left, lane), subgroupShuffle(line.right, lane));
}

// The line of which each lane holds one input.
fn line_across(value: f32) -> Line {
    return Line(
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
fn conv_patch(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = tile_of(number, lane);
    let weights = first_weights(tile.b, 0u, tile.g, tile.co);
    let place0 = place(tile, lane, 0u);
    let place1 = place(tile, lane, 1u);
    let place2 = place(tile, lane, 2u);
    let place3 = place(tile, lane, 3u);
    let place4 = place(tile, lane, 4u);
    let place5 = place(tile, lane, 5u);
    let ninth = place(tile, 8u, min(lane, 5u));
    let stride = select(params.in_h * params.in_w, 1u, X_NHWC);

    var even = Sums();
    var odd = Sums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let offset = ci * stride;
        var own = Line(
            vec4<f32>(input(place0, offset), input(place1, offset), input(place2, offset), input(place3, offset)),
            vec2<f32>(input(place4, offset), input(place5, offset)),
        );
        var last = input(ninth, offset);
        if CHANNEL_GAIN {
            let channel = params.channel_gain_offset + tile.g * params.c_in + ci;
            let gain = gains[params.gains_base + tile.b * params.gain_stride + channel];
            own.left *= gain;
            own.right *= gain;
            last *= gain;
        }
        let w0 = two_weights(weights, ci * 9u);
        let w1 = two_weights(weights, ci * 9u + 1u);
        let w2 = two_weights(weights, ci * 9u + 2u);
        let w3 = two_weights(weights, ci * 9u + 3u);
        let w4 = two_weights(weights, ci * 9u + 4u);
        let w5 = two_weights(weights, ci * 9u + 5u);
        let w6 = two_weights(weights, ci * 9u + 6u);
        let w7 = two_weights(weights, ci * 9u + 7u);
        let w8 = two_weights(weights, ci * 9u + 8u);
        let patch_lines = Patch(
            line_of(own, 0u),
            line_of(own, 1u),
            line_of(own, 2u),
            line_of(own, 3u),
            line_of(own, 4u),
            line_of(own, 5u),
            line_of(own, 6u),
            line_of(own, 7u),
            line_across(last),
        );
        let first = Taps(vec3<f32>(w0.x, w1.x, w2.x), vec3<f32>(w3.x, w4.x, w5.x), vec3<f32>(w6.x, w7.x, w8.x));
        let second = Taps(vec3<f32>(w0.y, w1.y, w2.y), vec3<f32>(w3.y, w4.y, w5.y), vec3<f32>(w6.y, w7.y, w8.y));
        accumulate(&even, patch_lines, first);
        accumulate(&odd, patch_lines, second);
    }
    let first_channel = tile.g * params.c_out + tile.co;
    if tile.co < params.c_out { store_patch(tile.b, first_channel, tile.row, tile.column, even); }
    if tile.co + 1u < params.c_out { store_patch(tile.b, first_channel + 1u, tile.row, tile.column, odd); }
}
