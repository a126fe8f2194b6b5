// Implicit GEMM in cooperative matrices: products of MATRIX x MATRIX numbers that a subgroup computes together, on hardware made for them.
//
// A workgroup computes TILE channels x TILE positions. Its tile is four quarters of 2 x 2 matrices, one a subgroup; where there are more subgroups
// than quarters, several compute the same quarter, and write the same numbers.
//
// The sum runs over blocks of BLOCK input channels, in each over the taps, and in each over the channels of the block. So a step has one tap. Its
// weights and what the tap reads are gathered in workgroup memory and rounded to Operand; sums are in f32.
//
// Constants beside those of common/conv.wgsl:
//
// MATRIX                     8 or 16, rows and columns of a matrix
// BLOCK                      input channels of a step, a multiple of MATRIX; WORKGROUP is a multiple of it and of TILE
// Operand, IS_HALF           f16 or f32, and whether it is f16
// MatrixA, MatrixB, MatrixC  matrices of weights, of inputs (both of Operand) and of sums
//
// No maps.

// Positions and channels of a workgroup: two quarters of two matrices.
const TILE: u32 = 4u * MATRIX;
// Rows are padded to keep them out of each other's banks. Matrices must begin at multiples of 16 bytes.
const ROW_W: u32 = BLOCK + 8u;
const ROW_X: u32 = TILE + 8u;
// Elements of a matrix.
const AREA: u32 = MATRIX * MATRIX;

var<workgroup> tile_w: array<Operand, TILE * ROW_W>; // [m][k]
var<workgroup> tile_x: array<Operand, BLOCK * ROW_X>; // [k][n]
// One matrix of each quarter.
var<workgroup> tile_y: array<f32, 4u * AREA>; // [quarter][m][n]

// Past the largest f16 there is only infinity.
fn rounded(value: f32) -> Operand {
    if IS_HALF {
        return Operand(clamp(value, -65504.0, 65504.0));
    }
    return Operand(value);
}

// What tap reads for the invocation's position, in BLOCK channels from ci on; 0 past the last channel.
fn stage_inputs(b: u32, g: u32, ci: u32, tap: u32, position: u32, lane: u32) {
    let out_x = position % params.out_w;
    let out_y = position / params.out_w % params.out_h;
    let out_z = position / (params.out_w * params.out_h);
    let column = tap_position(out_x, STRIDE_W, tap % KERNEL_W, DILATION_W, params.pad_w);
    let row = tap_position(out_y, STRIDE_H, tap / KERNEL_W % KERNEL_H, DILATION_H, params.pad_h);
    let z = tap_position(out_z, STRIDE_D, tap / (KERNEL_W * KERNEL_H), DILATION_D, params.pad_d);
    for (var k = lane / TILE; k < BLOCK; k += WORKGROUP / TILE) {
        let channel = min(ci + k, params.ci_end - 1u);
        let value = input_at(b, g * params.c_in + channel, z, row, column);
        tile_x[k * ROW_X + lane % TILE] = rounded(select(0.0, value, ci + k < params.ci_end));
    }
}

// Weights of TILE output channels from first_m on, in the same channels. Sums of output channels past the last are never stored.
fn stage_weights(b: u32, g: u32, ci: u32, tap: u32, first_m: u32, lane: u32) {
    let k = lane % BLOCK;
    let channel = min(ci + k, params.ci_end - 1u);
    for (var m = lane / BLOCK; m < TILE; m += WORKGROUP / BLOCK) {
        let co = min(first_m + m, params.c_out - 1u);
        let value = rows[weights_of(b, 0u, g * params.c_out + co) + (channel * TAPS + tap) * WEIGHT_STEP];
        tile_w[m * ROW_W + k] = rounded(select(0.0, value, ci + k < params.ci_end));
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_matrix(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // The number of the workgroup, as common/dispatch.wgsl has it; naga counts what a function returns as differing between invocations, and refuses matrices behind a test of it.
    let number = id.x + grid.x * (id.y + grid.y * id.z);
    if number >= params.workgroups {
        return;
    }
    let size = positions();
    let tiles_n = ceil_div(size, TILE);
    let tiles_m = ceil_div(params.c_out, TILE);
    let first_n = number % tiles_n * TILE;
    let first_m = number / tiles_n % tiles_m * TILE;
    let g = number / (tiles_n * tiles_m) % params.groups;
    let b = number / (tiles_n * tiles_m * params.groups);

    // The subgroup's quarter of the tile.
    let quarter = subgroup % 4u;
    let m = quarter / 2u * 2u * MATRIX;
    let n = quarter % 2u * 2u * MATRIX;

    // Not every back end knows a matrix of zeros.
    for (var i = lane; i < 4u * AREA; i += WORKGROUP) {
        tile_y[i] = 0.0;
    }
    workgroupBarrier();
    var sum00 = coopLoadT<MatrixC>(&tile_y[quarter * AREA], MATRIX);
    var sum01 = sum00;
    var sum10 = sum00;
    var sum11 = sum00;

    let steps = ceil_div(params.ci_end - params.ci_begin, BLOCK) * TAPS;
    for (var step = 0u; step < steps; step++) {
        let ci = params.ci_begin + step / TAPS * BLOCK;
        stage_inputs(b, g, ci, step % TAPS, first_n + lane % TILE, lane);
        stage_weights(b, g, ci, step % TAPS, first_m, lane);
        workgroupBarrier();
        for (var k = 0u; k < BLOCK; k += MATRIX) {
            let w0 = coopLoadT<MatrixA>(&tile_w[m * ROW_W + k], ROW_W);
            let w1 = coopLoadT<MatrixA>(&tile_w[(m + MATRIX) * ROW_W + k], ROW_W);
            let x0 = coopLoadT<MatrixB>(&tile_x[k * ROW_X + n], ROW_X);
            let x1 = coopLoadT<MatrixB>(&tile_x[k * ROW_X + n + MATRIX], ROW_X);
            sum00 = coopMultiplyAdd(w0, x0, sum00);
            sum01 = coopMultiplyAdd(w0, x1, sum01);
            sum10 = coopMultiplyAdd(w1, x0, sum10);
            sum11 = coopMultiplyAdd(w1, x1, sum11);
        }
        workgroupBarrier();
    }

    // The same matrix of each quarter in turn: where in it an element lies is known only in memory.
    for (var part = 0u; part < 4u; part++) {
        switch part {
            case 0u: { coopStoreT(sum00, &tile_y[quarter * AREA], MATRIX); }
            case 1u: { coopStoreT(sum01, &tile_y[quarter * AREA], MATRIX); }
            case 2u: { coopStoreT(sum10, &tile_y[quarter * AREA], MATRIX); }
            default: { coopStoreT(sum11, &tile_y[quarter * AREA], MATRIX); }
        }
        workgroupBarrier();
        for (var i = lane; i < 4u * AREA; i += WORKGROUP) {
            let of_quarter = i / AREA;
            let co = first_m + (of_quarter / 2u * 2u + part / 2u) * MATRIX + i / MATRIX % MATRIX;
            let position = first_n + (of_quarter % 2u * 2u + part % 2u) * MATRIX + i % MATRIX;
            if co < params.c_out && position < size {
                finish(b, g * params.c_out + co, position, tile_y[i]);
            }
        }
        workgroupBarrier();
    }
}
