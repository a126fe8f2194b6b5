// import conv, patch_simd8, tile_7x4

// Stores the tiles of a lane, of two output channels.

fn store_two(tile: PatchTile, even: Sums7x4, odd: Sums7x4) {
    let channel = tile.g * params.c_out + tile.co;
    if tile.co < params.c_out {
        store_7x4(tile.b, channel, tile.row, tile.column, even);
    }
    if tile.co + 1u < params.c_out {
        store_7x4(tile.b, channel + 1u, tile.row, tile.column, odd);
    }
}
