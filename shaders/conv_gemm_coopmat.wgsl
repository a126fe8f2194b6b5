// import conv, numbers, store

// Implicit GEMM in cooperative matrices: products of MATRIX x MATRIX numbers that a subgroup
// computes together, on hardware made for them.
//
// A workgroup computes TILE channels x TILE positions. Its tile is four quarters of 2 x 2 matrices,
// one a subgroup; where there are more subgroups than quarters, several compute the same quarter,
// and write the same numbers.
//
// The sum runs over blocks of BLOCK input channels, in each over the taps, and in each over the
// channels of the block. So a step has one tap. Its weights and what the tap reads are gathered in
// workgroup memory and rounded to Operand; sums are in f32.
//
// Constants beside those of lib/conv.wgsl:
//
// MATRIX                     8 or 16, rows and columns of a matrix
// BLOCK                      input channels of a step, a multiple of MATRIX; WORKGROUP is a
//                            multiple of BLOCK and of TILE, and divides BLOCK * TILE
// Operand, IS_HALF           f16 or f32, and whether it is f16
// MatrixA, MatrixB, MatrixC  matrices of weights, of inputs (both of Operand) and of sums
//
// No maps.

// Positions and channels of a workgroup: two quarters of two matrices.
const TILE: u32 = 4u * MATRIX;
// Rows are padded to keep them out of each other's banks. Matrices must begin at multiples of 16
// bytes.
const ROW: u32 = BLOCK + 8u;
// Inputs that an invocation loads in a step, all of one position; and weights, all of one input
// channel.
const LOADS: u32 = BLOCK * TILE / WORKGROUP;
// Elements of a matrix.
const AREA: u32 = MATRIX * MATRIX;

// In bands of MATRIX rows: drivers then see that matrices begin at a multiple of 16 bytes, and load
// them in whole. The input channels are innermost, which is how hardware holds both operands.
var<workgroup> matrix_w: array<array<Operand, MATRIX * ROW>, 4>; // [band][m][k]
var<workgroup> matrix_x: array<array<Operand, MATRIX * ROW>, 4>; // [band][n][k]
// One matrix of each quarter.
var<workgroup> tile_y: array<array<f32, AREA>, 4>; // [quarter][m][n]

// Finite numbers stay finite: past the largest f16 there is only infinity.
fn rounded(value: f32) -> Operand {
    if IS_HALF {
        return Operand(select(value, clamp(value, -65504.0, 65504.0), is_finite(value)));
    }
    return Operand(value);
}

// What a tap reads for one of the tile's positions, output (column, row, depth) `out`, in some of
// the BLOCK channels from ci on; 0 past the last channel.
fn stage_inputs(b: u32, g: u32, ci: u32, tap: u32, out: vec3<u32>, lane: u32) {
    let column = tap_position(out.x, STRIDE_W, tap % KERNEL_W, DILATION_W, params.pad_w);
    let row = tap_position(out.y, STRIDE_H, tap / KERNEL_W % KERNEL_H, DILATION_H, params.pad_h);
    let z = tap_position(out.z, STRIDE_D, tap / (KERNEL_W * KERNEL_H), DILATION_D, params.pad_d);
    let is_inside = z < params.in_d && row < params.in_h && column < params.in_w;
    let place = select(0u, (z * params.in_h + row) * params.in_w + column, is_inside);
    let n = lane % TILE;
    for (var i = 0u; i < LOADS; i++) {
        let k = lane / TILE * LOADS + i;
        let value = x_at(b, g * params.c_in + ci + k, place);
        matrix_x[n / MATRIX][n % MATRIX * ROW + k] = rounded(
            select(0.0, value, is_inside && ci + k < params.ci_end),
        );
    }
}

// Weights of some of the tile's output channels in one of these channels. Sums of output channels
// past the last are never stored.
fn stage_weights(b: u32, g: u32, ci: u32, tap: u32, first_m: u32, lane: u32) {
    let m = lane % TILE;
    let first = weights_of(b, 0u, g * params.c_out + first_m + m);
    for (var i = 0u; i < LOADS; i++) {
        let k = lane / TILE * LOADS + i;
        let value = sample_weights[first + ((ci + k) * TAPS + tap) * WEIGHT_STEP];
        matrix_w[m / MATRIX][m % MATRIX * ROW + k] = rounded(
            select(0.0, value, ci + k < params.ci_end),
        );
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_gemm_coopmat(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // The number of the workgroup, as common/dispatch.wgsl has it; naga counts what a function
    // returns as differing between invocations, and refuses matrices behind a test of it.
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

    // The subgroup's quarter of the tile, and its first bands.
    let quarter = subgroup % 4u;
    let m = quarter / 2u * 2u;
    let n = quarter % 2u * 2u;

    // What the invocation stages inputs for. Positions past the last read something too, and are
    // never stored.
    let position = first_n + lane % TILE;
    let row = position / params.out_w;
    let out = vec3<u32>(position % params.out_w, row % params.out_h, row / params.out_h);

    // Not every back end knows a matrix of zeros.
    for (var i = lane; i < 4u * AREA; i += WORKGROUP) {
        tile_y[i / AREA][i % AREA] = 0.0;
    }
    workgroupBarrier();
    var sum00 = coopLoadT<MatrixC>(&tile_y[quarter][0], MATRIX);
    var sum01 = sum00;
    var sum10 = sum00;
    var sum11 = sum00;

    let steps = ceil_div(params.ci_end - params.ci_begin, BLOCK) * TAPS;
    for (var step = 0u; step < steps; step++) {
        let ci = params.ci_begin + step / TAPS * BLOCK;
        stage_inputs(b, g, ci, step % TAPS, out, lane);
        stage_weights(b, g, ci, step % TAPS, first_m, lane);
        workgroupBarrier();
        for (var k = 0u; k < BLOCK; k += MATRIX) {
            let w0 = coopLoadT<MatrixA>(&matrix_w[m][k], ROW);
            let w1 = coopLoadT<MatrixA>(&matrix_w[m + 1u][k], ROW);
            let x0 = coopLoad<MatrixB>(&matrix_x[n][k], ROW);
            let x1 = coopLoad<MatrixB>(&matrix_x[n + 1u][k], ROW);
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
            case 0u: { coopStoreT(sum00, &tile_y[quarter][0], MATRIX); }
            case 1u: { coopStoreT(sum01, &tile_y[quarter][0], MATRIX); }
            case 2u: { coopStoreT(sum10, &tile_y[quarter][0], MATRIX); }
            default: { coopStoreT(sum11, &tile_y[quarter][0], MATRIX); }
        }
        workgroupBarrier();
        for (var i = lane; i < 4u * AREA; i += WORKGROUP) {
            let of_quarter = i / AREA;
            let co = first_m + (of_quarter / 2u * 2u + part / 2u) * MATRIX + i / MATRIX % MATRIX;
            let position = first_n + (of_quarter % 2u * 2u + part % 2u) * MATRIX + i % MATRIX;
            if co < params.c_out && position < size {
                store_output(b, g * params.c_out + co, position, tile_y[of_quarter][i % AREA]);
            }
        }
        workgroupBarrier();
    }
}
