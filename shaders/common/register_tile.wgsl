// What the kernels that keep their tile in registers share. An invocation computes 8 output channels x 4 positions; the positions of a
// workgroup are 4 runs of WORKGROUP neighbours, its channels are the same 8 for all, so that loads of x coalesce and a weight is one
// address for the whole workgroup.

struct Tile {
    b: u32,
    // Group, and first of the 8 output channels in it.
    g: u32,
    co: u32,
    // First of the 4 positions; the others follow at distances of WORKGROUP.
    position: u32,
}

fn tile_of(number: u32, lane: u32) -> Tile {
    let runs = ceil_div(positions(), 4u * WORKGROUP);
    let blocks = ceil_div(params.c_out, 8u);
    let position = number % runs * 4u * WORKGROUP + lane;
    let co = number / runs % blocks * 8u;
    return Tile(number / (runs * blocks * params.groups), number / (runs * blocks) % params.groups, co, position);
}

// First weight of the tile's n-th channel in kernel k. Rows past the last channel read the last one; their sums are never stored.
fn tile_weights(tile: Tile, k: u32, n: u32) -> u32 {
    return weights_of(tile.b, k, tile.g * params.c_out + min(tile.co + n, params.c_out - 1u));
}

fn store_channel(tile: Tile, n: u32, sums: vec4<f32>) {
    if tile.co + n >= params.c_out {
        return;
    }
    let channel = tile.g * params.c_out + tile.co + n;
    let size = positions();
    let p = tile.position;
    if p < size { finish(tile.b, channel, p, sums.x); }
    if p + WORKGROUP < size { finish(tile.b, channel, p + WORKGROUP, sums.y); }
    if p + 2u * WORKGROUP < size { finish(tile.b, channel, p + 2u * WORKGROUP, sums.z); }
    if p + 3u * WORKGROUP < size { finish(tile.b, channel, p + 3u * WORKGROUP, sums.w); }
}
