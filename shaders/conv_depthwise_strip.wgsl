// import conv, dispatch, store_vec4, x, x_wide

// Depthwise convolution (one input channel a group, any channel multiplier) with up to 7 x 7 taps
// and strides of 1 and 2. An invocation computes a strip: eight columns of an output channel, row
// by row. Lines of inputs that the next row of outputs reads too are kept.
//
// Constant beside those of lib/conv.wgsl and lib/store_vec4.wgsl: SHIFT (columns that a line begins
// left of the first one that is read, so that pairs begin where loads do: 0 or 1).

// Neighbouring inputs of a row. Compilers leave out the loads of those that no tap reads.
struct Line {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    e: vec4<f32>,
    f: vec4<f32>,
}

// Where an invocation loads: a channel, and its gain.
struct ChannelSource {
    // First input.
    first: u32,
    gain: f32,
}

fn channel_source_of(b: u32, channel: u32) -> ChannelSource {
    let first = x_element(b, channel, 0u);
    if CHANNEL_GAIN {
        let gain = params.gains_base + b * params.gain_stride + params.channel_gain_offset;
        return ChannelSource(first, gains[gain + channel]);
    }
    return ChannelSource(first, 1.0);
}

// Four neighbouring inputs times the channel's gain. Those outside of the map are 0, whatever the
// gain is.
fn four_in_row(source: ChannelSource, row: u32, column: u32) -> vec4<f32> {
    let columns = vec4<u32>(column, column + 1u, column + 2u, column + 3u);
    let inside = (columns < vec4<u32>(params.in_w)) & vec4<bool>(row < params.in_h);
    let places = select(vec4<u32>(), vec4<u32>(row * params.in_w) + columns, inside);
    var four: vec4<f32>;
    if X_NHWC {
        four = vec4<f32>(
            x_value(source.first + places.x * params.groups),
            x_value(source.first + places.y * params.groups),
            x_value(source.first + places.z * params.groups),
            x_value(source.first + places.w * params.groups),
        );
    } else {
        let begin = source.first + select(0u, row, row < params.in_h) * params.in_w;
        four = x_four(begin + column, begin + params.in_w - 1u);
    }
    return select(vec4<f32>(), source.gain * four, inside);
}

fn line_at(source: ChannelSource, row: u32, column: u32) -> Line {
    let line = Line(
        four_in_row(source, row, column),
        four_in_row(source, row, column + 4u),
        four_in_row(source, row, column + 8u),
        four_in_row(source, row, column + 12u),
        four_in_row(source, row, column + 16u),
        four_in_row(source, row, column + 20u),
    );
    if SHIFT == 1u {
        return Line(
            vec4<f32>(line.a.yzw, line.b.x),
            vec4<f32>(line.b.yzw, line.c.x),
            vec4<f32>(line.c.yzw, line.d.x),
            vec4<f32>(line.d.yzw, line.e.x),
            vec4<f32>(line.e.yzw, line.f.x),
            vec4<f32>(line.f.yzw, 0.0),
        );
    }
    return line;
}

// What the right four of eight outputs read.
fn right_of(line: Line) -> Line {
    let none = vec4<f32>();
    if STRIDE_W == 1u {
        return Line(line.b, line.c, line.d, none, none, none);
    }
    return Line(line.c, line.d, line.e, line.f, none, none);
}

// Weights of a row of taps; those past the last tap are some weight, and not used.
struct Taps {
    left: vec4<f32>,
    right: vec3<f32>,
}

fn weight_at(first: u32, number: u32) -> f32 {
    return sample_weights[first + min(number, TAPS - 1u) * WEIGHT_STEP];
}

// Those by which one of the last seven lines is filtered, the last line by the last row.
fn taps_of(first: u32, line: u32) -> Taps {
    let row = (line + KERNEL_H - 7u) * KERNEL_W;
    return Taps(
        vec4<f32>(
            weight_at(first, row),
            weight_at(first, row + 1u),
            weight_at(first, row + 2u),
            weight_at(first, row + 3u),
        ),
        vec3<f32>(
            weight_at(first, row + 4u),
            weight_at(first, row + 5u),
            weight_at(first, row + 6u),
        ),
    );
}

// Four sums, and the inputs that tap kx of their row reads.
fn with_tap(sums: vec4<f32>, kx: u32, w: f32, inputs: vec4<f32>) -> vec4<f32> {
    if kx < KERNEL_W {
        return sums + w * inputs;
    }
    return sums;
}

fn four_filtered(sums: vec4<f32>, line: Line, w: Taps) -> vec4<f32> {
    if STRIDE_W == 2u {
        return four_filtered_by_twos(sums, line, w);
    }
    var sum = with_tap(sums, 0u, w.left.x, line.a);
    sum = with_tap(sum, 1u, w.left.y, vec4<f32>(line.a.yzw, line.b.x));
    sum = with_tap(sum, 2u, w.left.z, vec4<f32>(line.a.zw, line.b.xy));
    sum = with_tap(sum, 3u, w.left.w, vec4<f32>(line.a.w, line.b.xyz));
    sum = with_tap(sum, 4u, w.right.x, line.b);
    sum = with_tap(sum, 5u, w.right.y, vec4<f32>(line.b.yzw, line.c.x));
    return with_tap(sum, 6u, w.right.z, vec4<f32>(line.b.zw, line.c.xy));
}

fn four_filtered_by_twos(sums: vec4<f32>, line: Line, w: Taps) -> vec4<f32> {
    let even = vec4<f32>(line.a.xz, line.b.xz);
    let odd = vec4<f32>(line.a.yw, line.b.yw);
    var sum = with_tap(sums, 0u, w.left.x, even);
    sum = with_tap(sum, 1u, w.left.y, odd);
    sum = with_tap(sum, 2u, w.left.z, vec4<f32>(even.yzw, line.c.x));
    sum = with_tap(sum, 3u, w.left.w, vec4<f32>(odd.yzw, line.c.y));
    sum = with_tap(sum, 4u, w.right.x, vec4<f32>(even.zw, line.c.xz));
    sum = with_tap(sum, 5u, w.right.y, vec4<f32>(odd.zw, line.c.yw));
    return with_tap(sum, 6u, w.right.z, vec4<f32>(even.w, line.c.xz, line.d.x));
}

struct Sums {
    left: vec4<f32>,
    right: vec4<f32>,
}

// Sums, and what one of the last seven lines adds to them, if a row of taps is left for it.
fn filtered(sums: Sums, number: u32, line: Line, w: Taps) -> Sums {
    if number + KERNEL_H >= 7u {
        return Sums(
            four_filtered(sums.left, line, w),
            four_filtered(sums.right, right_of(line), w),
        );
    }
    return sums;
}

// The last seven lines that were loaded. A row of outputs reads KERNEL_H of them.
struct Lines {
    l0: Line,
    l1: Line,
    l2: Line,
    l3: Line,
    l4: Line,
    l5: Line,
    l6: Line,
}

fn moved(lines: Lines, last: Line) -> Lines {
    return Lines(lines.l1, lines.l2, lines.l3, lines.l4, lines.l5, lines.l6, last);
}

@compute @workgroup_size(WORKGROUP)
fn conv_depthwise_strip(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let across = ceil_div(params.out_w, 8u);
    let channels = params.groups * params.c_out;
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    if index >= params.batch * channels * across {
        return;
    }
    let column = index % across * 8u;
    let channel = index / across % channels;
    let b = index / (across * channels);

    let first = weights_of(b, 0u, channel);
    let w0 = taps_of(first, 0u);
    let w1 = taps_of(first, 1u);
    let w2 = taps_of(first, 2u);
    let w3 = taps_of(first, 3u);
    let w4 = taps_of(first, 4u);
    let w5 = taps_of(first, 5u);
    let w6 = taps_of(first, 6u);

    let source = channel_source_of(b, channel / params.c_out);
    let left = column * STRIDE_W - params.pad_w - SHIFT;
    var next = 0u - params.pad_h;
    var lines = Lines();
    for (var ky = STRIDE_H; ky < KERNEL_H; ky++) {
        lines = moved(lines, line_at(source, next, left));
        next++;
    }
    for (var row = 0u; row < params.out_h; row++) {
        lines = moved(lines, line_at(source, next, left));
        if STRIDE_H == 2u {
            lines = moved(lines, line_at(source, next + 1u, left));
        }
        next += STRIDE_H;
        var sums = filtered(Sums(), 0u, lines.l0, w0);
        sums = filtered(sums, 1u, lines.l1, w1);
        sums = filtered(sums, 2u, lines.l2, w2);
        sums = filtered(sums, 3u, lines.l3, w3);
        sums = filtered(sums, 4u, lines.l4, w4);
        sums = filtered(sums, 5u, lines.l5, w5);
        sums = filtered(sums, 6u, lines.l6, w6);
        let position = row * params.out_w + column;
        let count = min(8u, params.out_w - column);
        store_outputs(b, channel, position, sums.left, min(4u, count));
        if count > 4u {
            store_outputs(b, channel, position + 4u, sums.right, count - 4u);
        }
    }
}
