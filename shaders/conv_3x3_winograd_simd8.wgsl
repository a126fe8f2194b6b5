// import conv, dispatch, patch_simd8, simd8, store, taps_3x3, vectors

// 3 x 3 convolution with stride 1 by Winograd's minimal filtering along the rows, F(1 x 4, 3 x 3),
// for subgroups of eight invocations (lanes), for software adapters; see conv_gemm_simd8.wgsl. Four
// outputs of a row take six products for each row of taps instead of twelve: of the numbers B' d, d
// being the six inputs that they read, with the numbers G g, g being the three taps; A' brings the
// sums of products back. (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
// 2016, section 4.1, along one axis.)
//
// A workgroup is one subgroup. It computes 7 rows x 8 columns x 16 output channels, two a lane. For
// each input channel it needs a patch of 9 x 10 inputs: the lanes load the first eight rows, one
// each, and take it to the domain of the products, where it is broadcast; then the ninth row, a
// pair of inputs each. The taps go there as they are loaded: kernels lie and are mixed as for every
// other kernel.

const FILTERED_ROWS: u32 = 7u;
const FILTERED_COLUMNS: u32 = 8u;

// What belongs to four outputs of a row: inputs, taps or sums of products, in the domain of the
// products.
struct FilteredSix {
    low: vec4<f32>,
    high: vec2<f32>,
}

// What belongs to the eight outputs of a row.
struct FilteredLine {
    left: FilteredSix,
    right: FilteredSix,
}

// B' d
fn six_inputs(d0: f32, d1: f32, d2: f32, d3: f32, d4: f32, d5: f32) -> FilteredSix {
    let outer = d4 - 4.0 * d2;
    let outer_odd = d3 - 4.0 * d1;
    let inner = d4 - d2;
    let inner_odd = 2.0 * (d3 - d1);
    return FilteredSix(
        vec4<f32>(
            4.0 * d0 - 5.0 * d2 + d4,
            outer + outer_odd,
            outer - outer_odd,
            inner + inner_odd,
        ),
        vec2<f32>(inner - inner_odd, 4.0 * d1 - 5.0 * d3 + d5),
    );
}

// G g
fn six_taps(g: vec3<f32>) -> FilteredSix {
    let outer = (g.x + g.z) * (-1.0 / 6.0);
    let outer_odd = g.y * (1.0 / 6.0);
    let inner = g.x * (1.0 / 24.0) + g.z * (1.0 / 6.0);
    let inner_odd = g.y * (1.0 / 12.0);
    return FilteredSix(
        vec4<f32>(0.25 * g.x, outer - outer_odd, outer + outer_odd, inner + inner_odd),
        vec2<f32>(inner - inner_odd, g.z),
    );
}

// A' m
fn four_outputs(m: FilteredSix) -> vec4<f32> {
    let outer = m.low.y + m.low.z;
    let outer_odd = m.low.y - m.low.z;
    let inner = m.low.w + m.high.x;
    let inner_odd = m.low.w - m.high.x;
    return vec4<f32>(
        m.low.x + outer + inner,
        outer_odd + 2.0 * inner_odd,
        outer + 4.0 * inner,
        outer_odd + 8.0 * inner_odd + m.high.y,
    );
}

// The line of ten inputs in pairs, of which the outer two are not used.
fn line_from(
    x0: vec2<f32>,
    x1: vec2<f32>,
    x2: vec2<f32>,
    x3: vec2<f32>,
    x4: vec2<f32>,
    x5: vec2<f32>,
) -> FilteredLine {
    return FilteredLine(
        six_inputs(x0.y, x1.x, x1.y, x2.x, x2.y, x3.x),
        six_inputs(x2.y, x3.x, x3.y, x4.x, x4.y, x5.x),
    );
}

fn six_of(six: FilteredSix, lane: u32) -> FilteredSix {
    return FilteredSix(subgroupShuffle(six.low, lane), subgroupShuffle(six.high, lane));
}

// The line that a lane holds, on all lanes.
fn filtered_line_of(line: FilteredLine, lane: u32) -> FilteredLine {
    return FilteredLine(six_of(line.left, lane), six_of(line.right, lane));
}

// The line of which each lane holds a pair of inputs.
fn filtered_line_across(pair: vec2<f32>) -> FilteredLine {
    return line_from(
        subgroupShuffle(pair, 0u),
        subgroupShuffle(pair, 1u),
        subgroupShuffle(pair, 2u),
        subgroupShuffle(pair, 3u),
        subgroupShuffle(pair, 4u),
        subgroupShuffle(pair, 5u),
    );
}

// The taps of one output channel.
struct Filter {
    top: FilteredSix,
    middle: FilteredSix,
    bottom: FilteredSix,
}

fn filter_of(w: Taps3x3) -> Filter {
    return Filter(six_taps(w.top), six_taps(w.middle), six_taps(w.bottom));
}

fn add_six(
    sums: FilteredSix,
    top: FilteredSix,
    middle: FilteredSix,
    bottom: FilteredSix,
    w: Filter,
) -> FilteredSix {
    return FilteredSix(
        sums.low + w.top.low * top.low + w.middle.low * middle.low + w.bottom.low * bottom.low,
        sums.high
            + w.top.high * top.high + w.middle.high * middle.high + w.bottom.high * bottom.high,
    );
}

fn add_filtered(
    sums: FilteredLine,
    top: FilteredLine,
    middle: FilteredLine,
    bottom: FilteredLine,
    w: Filter,
) -> FilteredLine {
    return FilteredLine(
        add_six(sums.left, top.left, middle.left, bottom.left, w),
        add_six(sums.right, top.right, middle.right, bottom.right, w),
    );
}

// Sums of products of one output channel.
struct FilteredSums {
    r0: FilteredLine,
    r1: FilteredLine,
    r2: FilteredLine,
    r3: FilteredLine,
    r4: FilteredLine,
    r5: FilteredLine,
    r6: FilteredLine,
}

struct FilteredPatch {
    l0: FilteredLine,
    l1: FilteredLine,
    l2: FilteredLine,
    l3: FilteredLine,
    l4: FilteredLine,
    l5: FilteredLine,
    l6: FilteredLine,
    l7: FilteredLine,
    l8: FilteredLine,
}

fn accumulate_filtered(sums: ptr<function, FilteredSums>, p: FilteredPatch, w: Filter) {
    (*sums).r0 = add_filtered((*sums).r0, p.l0, p.l1, p.l2, w);
    (*sums).r1 = add_filtered((*sums).r1, p.l1, p.l2, p.l3, w);
    (*sums).r2 = add_filtered((*sums).r2, p.l2, p.l3, p.l4, w);
    (*sums).r3 = add_filtered((*sums).r3, p.l3, p.l4, p.l5, w);
    (*sums).r4 = add_filtered((*sums).r4, p.l4, p.l5, p.l6, w);
    (*sums).r5 = add_filtered((*sums).r5, p.l5, p.l6, p.l7, w);
    (*sums).r6 = add_filtered((*sums).r6, p.l6, p.l7, p.l8, w);
}

fn filtered_row_of(sums: FilteredSums, n: u32) -> FilteredLine {
    switch n {
        case 0u: { return sums.r0; }
        case 1u: { return sums.r1; }
        case 2u: { return sums.r2; }
        case 3u: { return sums.r3; }
        case 4u: { return sums.r4; }
        case 5u: { return sums.r5; }
        default: { return sums.r6; }
    }
}

fn store_filtered(b: u32, channel: u32, row: u32, column: u32, sums: FilteredSums) {
    for (var n = 0u; n < min(FILTERED_ROWS, params.out_h - row); n++) {
        let line = filtered_row_of(sums, n);
        let left = four_outputs(line.left);
        let right = four_outputs(line.right);
        for (var i = 0u; i < min(FILTERED_COLUMNS, params.out_w - column); i++) {
            let sum = select(component(left, i % 4u), component(right, i % 4u), i >= 4u);
            store_output(b, channel, (row + n) * params.out_w + column + i, sum);
        }
    }
}

fn store_two_filtered(tile: PatchTile, even: FilteredSums, odd: FilteredSums) {
    let channel = tile.g * params.c_out + tile.co;
    if tile.co < params.c_out {
        store_filtered(tile.b, channel, tile.row, tile.column, even);
    }
    if tile.co + 1u < params.c_out {
        store_filtered(tile.b, channel + 1u, tile.row, tile.column, odd);
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_3x3_winograd_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = patch_tile_of(number, lane, FILTERED_ROWS, FILTERED_COLUMNS);
    let weights = first_weights(tile.b, 0u, tile.g, tile.co);
    let two0 = two_at(tile, lane, 0u);
    let two1 = two_at(tile, lane, 1u);
    let two2 = two_at(tile, lane, 2u);
    let two3 = two_at(tile, lane, 3u);
    let two4 = two_at(tile, lane, 4u);
    let two5 = two_at(tile, lane, 5u);
    let ninth = two_at(tile, 8u, min(lane, 5u));
    let stride = select(params.in_h * params.in_w, 1u, X_NHWC);

    var even = FilteredSums();
    var odd = FilteredSums();
    for (var ci = params.ci_begin; ci < params.ci_end; ci++) {
        let offset = ci * stride;
        let gain = patch_gain(tile, ci);
        let x0 = two_inputs(two0, offset, gain);
        let x1 = two_inputs(two1, offset, gain);
        let x2 = two_inputs(two2, offset, gain);
        let x3 = two_inputs(two3, offset, gain);
        let x4 = two_inputs(two4, offset, gain);
        let x5 = two_inputs(two5, offset, gain);
        let last = two_inputs(ninth, offset, gain);
        let w = two_by_nine(weights, ci);
        let own = line_from(x0, x1, x2, x3, x4, x5);
        let patch_lines = FilteredPatch(
            filtered_line_of(own, 0u),
            filtered_line_of(own, 1u),
            filtered_line_of(own, 2u),
            filtered_line_of(own, 3u),
            filtered_line_of(own, 4u),
            filtered_line_of(own, 5u),
            filtered_line_of(own, 6u),
            filtered_line_of(own, 7u),
            filtered_line_across(last),
        );
        accumulate_filtered(&even, patch_lines, filter_of(w.even));
        accumulate_filtered(&odd, patch_lines, filter_of(w.odd));
    }
    store_two_filtered(tile, even, odd);
}
