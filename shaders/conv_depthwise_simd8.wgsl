// import conv, dispatch, store_vec4, taps_3x3, x, x_wide

// Depthwise convolution (one input channel a group, any channel multiplier) with 3 x 3 taps and
// stride 1, for subgroups of eight invocations (lanes), for software adapters; see
// conv_gemm_simd8.wgsl.
//
// A lane computes a line: a row of outputs, eight at a time. Lines are numbered over samples,
// channels and rows, so that neighbouring lanes have neighbouring rows. A lane loads the middle one
// of the three rows that its taps read, and takes the others from the lanes beside it. What the
// first lane needs above and the last one below is loaded by all together, two inputs each.
//
// Where no padding is above a map, a line that stores nothing comes before each channel, to load
// the map's first row; likewise below. A channel has seven lines at least, so that the lines of a
// subgroup belong to one channel or two. Constants beside those of lib/conv.wgsl and
// lib/store_vec4.wgsl: MULTIPLIER (output channels of a group). With X_WIDTH 2 the left padding is
// odd, which makes pairs begin where loads do.

struct OutputLine {
    // Number of the output channel over all samples.
    plane: u32,
    // Past the batch in lanes past the last line, which load nothing that they use and store
    // nothing.
    b: u32,
    // Of the output, over all groups.
    channel: u32,
    // Row of outputs. In lines that store nothing it is past the map.
    row: u32,
    // First input of the channel, and the middle row that the taps read.
    input: u32,
    middle: u32,
    // Whether the lines before and behind belong to the same channel.
    has_above: bool,
    has_below: bool,
}

fn output_line_of(number: u32) -> OutputLine {
    let channels = params.groups * params.c_out;
    let before = select(0u, 1u, params.pad_h == 0u);
    let behind = select(0u, 1u, params.out_h + 1u - params.pad_h < params.in_h);
    let lines = before + params.out_h + behind;
    let plane = number / lines;
    let line = number - plane * lines;
    let b = plane / channels;
    let channel = plane - b * channels;
    // Before the first row it wraps to a huge number.
    let row = line - before;
    let middle = select(0x80000000u, row + 1u - params.pad_h, b < params.batch);
    let source = channel / MULTIPLIER;
    let input = params.x_base
        + element(X_NHWC, b, params.groups, source, params.in_h * params.in_w, 0u);
    return OutputLine(plane, b, channel, row, input, middle, line != 0u, line != lines - 1u);
}

fn gain_of(line: OutputLine) -> f32 {
    if CHANNEL_GAIN {
        let first = params.gains_base + line.b * params.gain_stride + params.channel_gain_offset;
        return gains[first + line.channel / MULTIPLIER];
    }
    return 1.0;
}

// Where a lane loads inputs: a row of a channel, if it is in the map.
struct LineSource {
    inside: bool,
    first: u32,
    gain: f32,
}

fn line_source_of(channel: u32, row: u32, gain: f32) -> LineSource {
    let inside = row < params.in_h;
    let step = select(1u, params.groups, X_NHWC);
    return LineSource(inside, channel + select(0u, row, inside) * params.in_w * step, gain);
}

// An input with the channels innermost.
fn input_of_line(source: LineSource, column: u32) -> f32 {
    let inside = source.inside && column < params.in_w;
    return select(
        0.0,
        source.gain * x_value(source.first + select(0u, column, inside) * params.groups),
        inside,
    );
}

// Four neighbouring inputs.
fn four_of_line(source: LineSource, column: u32) -> vec4<f32> {
    if X_NHWC {
        return vec4<f32>(
            input_of_line(source, column),
            input_of_line(source, column + 1u),
            input_of_line(source, column + 2u),
            input_of_line(source, column + 3u),
        );
    }
    var four = x_four(source.first + column, source.first + params.in_w - 1u);
    if CHANNEL_GAIN {
        four *= source.gain;
    }
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    return select(
        vec4<f32>(),
        four,
        (columns < vec4<u32>(params.in_w)) & vec4<bool>(source.inside),
    );
}

// Where a lane has the lines above and below from: the lanes beside it, unless it is the first or
// the last; and whether they are its channel's.
struct Beside {
    lane_above: u32,
    lane_below: u32,
    is_first: bool,
    is_last: bool,
    has_above: bool,
    has_below: bool,
}

// `ends` are two inputs a lane: of lanes 0 to 3 those that the first lane needs, of lanes 4 to 7
// those that the last one needs.
fn above(own: vec4<f32>, ends: vec2<f32>, half: u32, beside: Beside) -> vec4<f32> {
    let at = 2u * half;
    let end = vec4<f32>(subgroupShuffle(ends, at), subgroupShuffle(ends, at + 1u));
    return select(
        vec4<f32>(),
        select(subgroupShuffle(own, beside.lane_above), end, beside.is_first),
        beside.has_above,
    );
}

fn below(own: vec4<f32>, ends: vec2<f32>, half: u32, beside: Beside) -> vec4<f32> {
    let at = 4u + 2u * half;
    let end = vec4<f32>(subgroupShuffle(ends, at), subgroupShuffle(ends, at + 1u));
    return select(
        vec4<f32>(),
        select(subgroupShuffle(own, beside.lane_below), end, beside.is_last),
        beside.has_below,
    );
}

// Eleven neighbouring inputs of a row. Eight outputs read the first ten.
struct Run {
    before: vec3<f32>,
    left: vec4<f32>,
    right: vec4<f32>,
}

fn left_taps(sums: vec4<f32>, run: Run, w: vec3<f32>) -> vec4<f32> {
    let first = vec4<f32>(run.before, run.left.x);
    let second = vec4<f32>(run.before.yz, run.left.xy);
    let third = vec4<f32>(run.before.z, run.left.xyz);
    return sums + w.x * first + w.y * second + w.z * third;
}

fn right_taps(sums: vec4<f32>, run: Run, w: vec3<f32>) -> vec4<f32> {
    let first = vec4<f32>(run.left.yzw, run.right.x);
    let second = vec4<f32>(run.left.zw, run.right.xy);
    let third = vec4<f32>(run.left.w, run.right.xyz);
    return sums + w.x * first + w.y * second + w.z * third;
}

// Lanes load a tap each, of the first lane's channel and of the last one's, and all but the ninth
// tap are broadcast.
fn taps_of(line: OutputLine, lane: u32) -> Taps3x3 {
    let first = weights_of(line.b, 0u, line.channel);
    let of_first = sample_weights[subgroupShuffle(first, 0u) + lane * WEIGHT_STEP];
    let of_last = sample_weights[subgroupShuffle(first, 7u) + lane * WEIGHT_STEP];
    let ninth = sample_weights[first + 8u * WEIGHT_STEP];
    let is_last = line.plane != subgroupShuffle(line.plane, 0u);
    return Taps3x3(
        vec3<f32>(
            tap(of_first, of_last, 0u, is_last),
            tap(of_first, of_last, 1u, is_last),
            tap(of_first, of_last, 2u, is_last),
        ),
        vec3<f32>(
            tap(of_first, of_last, 3u, is_last),
            tap(of_first, of_last, 4u, is_last),
            tap(of_first, of_last, 5u, is_last),
        ),
        vec3<f32>(tap(of_first, of_last, 6u, is_last), tap(of_first, of_last, 7u, is_last), ninth),
    );
}

fn tap(of_first: f32, of_last: f32, n: u32, is_last: bool) -> f32 {
    return select(subgroupShuffle(of_first, n), subgroupShuffle(of_last, n), is_last);
}

fn store_four_of_line(line: OutputLine, column: u32, sums: vec4<f32>) {
    if line.b < params.batch && line.row < params.out_h && column < params.out_w {
        store_outputs(
            line.b,
            line.channel,
            line.row * params.out_w + column,
            sums,
            min(4u, params.out_w - column),
        );
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_depthwise_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let lane = index % 8u;
    let line = output_line_of(number * WORKGROUP + index);
    let beside = Beside(
        max(lane, 1u) - 1u,
        min(lane + 1u, 7u),
        lane == 0u,
        lane == 7u,
        line.has_above,
        line.has_below,
    );
    let gain = gain_of(line);
    let own = line_source_of(line.input, line.middle, gain);
    // Lanes 0 to 3 load for the first lane, lanes 4 to 7 for the last.
    let edge_lane = select(7u, 0u, lane < 4u);
    let beyond = subgroupShuffle(line.middle, edge_lane) + select(1u, 0xffffffffu, lane < 4u);
    let end = line_source_of(
        subgroupShuffle(line.input, edge_lane),
        beyond,
        subgroupShuffle(gain, edge_lane),
    );

    let taps = taps_of(line, lane);
    let start = 0u - params.pad_w - 1u;
    let first = four_of_line(own, start);
    let first_ends = four_of_line(end, start + lane % 4u * 2u).xy;
    var top_before = above(first, first_ends, 0u, beside).yzw;
    var middle_before = first.yzw;
    var bottom_before = below(first, first_ends, 0u, beside).yzw;
    for (var column = 0u; column < params.out_w; column += 8u) {
        let next = column + 3u - params.pad_w;
        let left = four_of_line(own, next);
        let right = four_of_line(own, next + 4u);
        let ends = four_of_line(end, next + lane % 4u * 2u).xy;
        let top_run = Run(
            top_before,
            above(left, ends, 0u, beside),
            above(right, ends, 1u, beside),
        );
        let middle_run = Run(middle_before, left, right);
        let bottom_run = Run(
            bottom_before,
            below(left, ends, 0u, beside),
            below(right, ends, 1u, beside),
        );
        let top_left = left_taps(vec4<f32>(), top_run, taps.top);
        let top_right = right_taps(vec4<f32>(), top_run, taps.top);
        let middle_left = left_taps(top_left, middle_run, taps.middle);
        let middle_right = right_taps(top_right, middle_run, taps.middle);
        store_four_of_line(line, column, left_taps(middle_left, bottom_run, taps.bottom));
        store_four_of_line(line, column + 4u, right_taps(middle_right, bottom_run, taps.bottom));
        top_before = top_run.right.yzw;
        middle_before = middle_run.right.yzw;
        bottom_before = bottom_run.right.yzw;
    }
}
