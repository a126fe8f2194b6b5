// import conv, simd8, taps_3x3, x_wide

// What the kernels for subgroups of eight and 3 x 3 taps read: which tile a workgroup computes, and
// the patch of inputs that its lanes load. Constant: X_WIDTH (2 where a pair of inputs is one load:
// left paddings are odd and input rows even).

struct PatchTile {
    b: u32,
    g: u32,
    // First of the lane's two output channels in its group.
    co: u32,
    row: u32,
    column: u32,
}

// Tiles have this many rows and columns of outputs.
fn patch_tile_of(number: u32, lane: u32, rows: u32, columns: u32) -> PatchTile {
    let across = ceil_div(params.out_w, columns);
    let tiles = across * ceil_div(params.out_h, rows);
    let blocks = ceil_div(params.c_out, 16u);
    let group = number / (tiles * blocks);
    return PatchTile(
        group / params.groups,
        group % params.groups,
        number / tiles % blocks * 16u + 2u * lane,
        number % tiles / across * rows,
        number % tiles % across * columns,
    );
}

// Element of the group's first channel at a place of the map; that of the first place if it is
// outside.
fn place_element(tile: PatchTile, row: u32, column: u32, inside: bool) -> u32 {
    let position = select(0u, row * params.in_w + column, inside);
    let size = params.in_h * params.in_w;
    return params.x_base + element(
        X_NHWC,
        tile.b,
        params.groups * params.c_in,
        tile.g * params.c_in,
        size,
        position,
    );
}

// Row of the map that a row of the patch is, and likewise for columns. Those before the first wrap
// to huge numbers.
fn map_row(tile: PatchTile, patch_row: u32) -> u32 {
    return tile.row * STRIDE_H + patch_row - params.pad_h;
}

fn map_column(tile: PatchTile, patch_column: u32) -> u32 {
    return tile.column * STRIDE_W + patch_column - params.pad_w;
}

// Where a lane reads two neighbouring inputs, and which of them are inside the map.
struct Two {
    first: u32,
    second: u32,
    inside: vec2<bool>,
}

// Pairs begin one column left of the patch, which is an even one where the padding is odd.
fn two_at(tile: PatchTile, patch_row: u32, pair: u32) -> Two {
    let row = map_row(tile, patch_row);
    let left = map_column(tile, 2u * pair - 1u);
    let inside = vec2<bool>(
        row < params.in_h && left < params.in_w,
        row < params.in_h && left + 1u < params.in_w,
    );
    return Two(
        place_element(tile, row, left, inside.x),
        place_element(tile, row, left + 1u, inside.y),
        inside,
    );
}

// Two inputs times the channel's gain. Those outside of the map are 0, whatever the gain is.
fn two_inputs(two: Two, offset: u32, gain: f32) -> vec2<f32> {
    return select(vec2<f32>(), gain * x_two(two.first + offset, two.second + offset), two.inside);
}

fn patch_gain(tile: PatchTile, ci: u32) -> f32 {
    if CHANNEL_GAIN {
        let channel = params.channel_gain_offset + tile.g * params.c_in + ci;
        return gains[params.gains_base + tile.b * params.gain_stride + channel];
    }
    return 1.0;
}

// The taps of a lane's two channels.
struct TwoTaps {
    even: Taps3x3,
    odd: Taps3x3,
}

fn two_by_nine(first: vec2<u32>, ci: u32) -> TwoTaps {
    let w0 = two_weights(first, ci * 9u);
    let w1 = two_weights(first, ci * 9u + 1u);
    let w2 = two_weights(first, ci * 9u + 2u);
    let w3 = two_weights(first, ci * 9u + 3u);
    let w4 = two_weights(first, ci * 9u + 4u);
    let w5 = two_weights(first, ci * 9u + 5u);
    let w6 = two_weights(first, ci * 9u + 6u);
    let w7 = two_weights(first, ci * 9u + 7u);
    let w8 = two_weights(first, ci * 9u + 8u);
    return TwoTaps(
        Taps3x3(
            vec3<f32>(w0.x, w1.x, w2.x),
            vec3<f32>(w3.x, w4.x, w5.x),
            vec3<f32>(w6.x, w7.x, w8.x),
        ),
        Taps3x3(
            vec3<f32>(w0.y, w1.y, w2.y),
            vec3<f32>(w3.y, w4.y, w5.y),
            vec3<f32>(w6.y, w7.y, w8.y),
        ),
    );
}
