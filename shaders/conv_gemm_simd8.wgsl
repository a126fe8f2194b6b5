// import conv, dispatch, simd8, store, vectors, x

// Implicit GEMM for subgroups of eight invocations (lanes), without workgroup memory or barriers.
// It is made for software adapters, where a load costs as much as a dozen multiplications, whatever
// its width, and a broadcast within the subgroup next to nothing.
//
// A workgroup is one subgroup. It computes 16 output channels, two a lane, x RUNS runs of eight
// neighbouring positions. To load, the lanes are the positions of a run; to multiply, each lane
// takes the inputs of all positions in turn, by broadcast. Constants beside those of lib/conv.wgsl:
// RUNS (1 or 2).

struct RunTile {
    b: u32,
    g: u32,
    // First of the lane's two output channels in its group.
    co: u32,
    // First position of the first run.
    position: u32,
}

fn run_tile_of(number: u32, lane: u32) -> RunTile {
    let tiles = ceil_div(positions(), 8u * RUNS);
    let blocks = ceil_div(params.c_out, 16u);
    let co = number / tiles % blocks * 16u + 2u * lane;
    let group = number / (tiles * blocks);
    return RunTile(group / params.groups, group % params.groups, co, number % tiles * 8u * RUNS);
}

// What a lane's position of a run reads through a tap: element of the group's first channel, and
// its factor.
struct Window {
    inside: bool,
    element: u32,
    mix: f32,
}

// Output column, row and depth of a position. Positions past the map take the last place, and are
// never stored.
fn run_place_of(position: u32) -> vec3<u32> {
    let p = min(position, positions() - 1u);
    return vec3<u32>(
        p % params.out_w,
        p / params.out_w % params.out_h,
        p / (params.out_w * params.out_h),
    );
}

fn window(tile: RunTile, k: u32, place: vec3<u32>, kz: u32, ky: u32, kx: u32) -> Window {
    let column = tap_position(place.x, STRIDE_W, kx, DILATION_W, params.pad_w);
    let row = tap_position(place.y, STRIDE_H, ky, DILATION_H, params.pad_h);
    let z = tap_position(place.z, STRIDE_D, kz, DILATION_D, params.pad_d);
    let inside = z < params.in_d && row < params.in_h && column < params.in_w;
    let position = select(0u, (z * params.in_h + row) * params.in_w + column, inside);
    let size = params.in_d * params.in_h * params.in_w;
    let first = element(
        X_NHWC,
        tile.b,
        params.groups * params.c_in,
        tile.g * params.c_in,
        size,
        position,
    );
    let p = (place.z * params.out_h + place.y) * params.out_w + place.x;
    return Window(inside, params.x_base + first, mix_at(tile.b, k, p));
}

// Four neighbouring input channels of a group, from ci on. Those past the last count as 0.
struct Channels {
    // Of their elements, from the group's first channel on.
    offsets: vec4<u32>,
    exist: vec4<bool>,
    gains: vec4<f32>,
}

fn run_gain(tile: RunTile, ci: u32) -> f32 {
    let first = params.gains_base + tile.b * params.gain_stride + params.channel_gain_offset;
    return gains[first + tile.g * params.c_in + ci];
}

fn channels_from(tile: RunTile, ci: u32) -> Channels {
    let all = vec4<u32>(ci, ci + 1u, ci + 2u, ci + 3u);
    let real = min(all, vec4<u32>(params.ci_end - 1u));
    let stride = select(params.in_d * params.in_h * params.in_w, 1u, X_NHWC);
    var factors = vec4<f32>(1.0);
    if CHANNEL_GAIN {
        factors = vec4<f32>(
            run_gain(tile, real.x),
            run_gain(tile, real.y),
            run_gain(tile, real.z),
            run_gain(tile, real.w),
        );
    }
    return Channels(real * stride, all < vec4<u32>(params.ci_end), factors);
}

fn inputs(window: Window, channels: Channels) -> vec4<f32> {
    let first = window.element;
    var values = vec4<f32>(
        x_value(first + channels.offsets.x),
        x_value(first + channels.offsets.y),
        x_value(first + channels.offsets.z),
        x_value(first + channels.offsets.w),
    );
    if CHANNEL_GAIN {
        values *= channels.gains;
    }
    values = select(vec4<f32>(), values, channels.exist & vec4<bool>(window.inside));
    if MAP != 0u {
        // Padding too: a mixing weight that is NaN makes the output NaN, whatever is under the
        // taps.
        values *= window.mix;
    }
    return values;
}

// Sums of a run: for each of the lane's two channels, the first four positions and the last four.
struct RunSums {
    even_low: vec4<f32>,
    even_high: vec4<f32>,
    odd_low: vec4<f32>,
    odd_high: vec4<f32>,
}

fn low_lanes(value: f32) -> vec4<f32> {
    return vec4<f32>(
        subgroupBroadcast(value, 0u),
        subgroupBroadcast(value, 1u),
        subgroupBroadcast(value, 2u),
        subgroupBroadcast(value, 3u),
    );
}

fn high_lanes(value: f32) -> vec4<f32> {
    return vec4<f32>(
        subgroupBroadcast(value, 4u),
        subgroupBroadcast(value, 5u),
        subgroupBroadcast(value, 6u),
        subgroupBroadcast(value, 7u),
    );
}

// Weights of the lane's two channels for four input channels.
struct RunWeights {
    even: vec4<f32>,
    odd: vec4<f32>,
}

// Weights of the lane's two channels for input channel ci. Those past the last count as 0, like
// their inputs: an infinite weight times 0 is NaN.
fn weights_at(first: vec2<u32>, ci: u32, tap: u32) -> vec2<f32> {
    let weights = two_weights(first, min(ci, params.ci_end - 1u) * TAPS + tap);
    return select(vec2<f32>(), weights, ci < params.ci_end);
}

// Four sums at a time go through all four channels: so they stay in registers.
fn four_sums(
    sums: vec4<f32>,
    w: vec4<f32>,
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
) -> vec4<f32> {
    return sums + w.x * x0 + w.y * x1 + w.z * x2 + w.w * x3;
}

fn accumulate_run(sums: ptr<function, RunSums>, four: vec4<f32>, w: RunWeights) {
    let low0 = low_lanes(four.x);
    let low1 = low_lanes(four.y);
    let low2 = low_lanes(four.z);
    let low3 = low_lanes(four.w);
    (*sums).even_low = four_sums((*sums).even_low, w.even, low0, low1, low2, low3);
    (*sums).odd_low = four_sums((*sums).odd_low, w.odd, low0, low1, low2, low3);
    let high0 = high_lanes(four.x);
    let high1 = high_lanes(four.y);
    let high2 = high_lanes(four.z);
    let high3 = high_lanes(four.w);
    (*sums).even_high = four_sums((*sums).even_high, w.even, high0, high1, high2, high3);
    (*sums).odd_high = four_sums((*sums).odd_high, w.odd, high0, high1, high2, high3);
}

// Stores four positions of one channel.
fn store_four_of_run(tile: RunTile, channel: u32, position: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if channel < params.c_out && position + i < positions() {
            store_output(tile.b, tile.g * params.c_out + channel, position + i, component(sums, i));
        }
    }
}

fn store_run(tile: RunTile, position: u32, sums: RunSums) {
    for (var n = 0u; n < 4u; n++) {
        let even = select(sums.even_low, sums.even_high, n == 1u);
        let odd = select(sums.odd_low, sums.odd_high, n == 3u);
        store_four_of_run(
            tile,
            tile.co + n / 2u,
            position + n % 2u * 4u,
            select(even, odd, n >= 2u),
        );
    }
}

@compute @workgroup_size(WORKGROUP)
fn conv_gemm_simd8(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(id, grid);
    if number >= params.workgroups {
        return;
    }
    let tile = run_tile_of(number, lane);
    let place0 = run_place_of(tile.position + lane);
    let place1 = run_place_of(tile.position + lane + 8u);
    var sums0 = RunSums();
    var sums1 = RunSums();
    for (var k = 0u; k < MIXED; k++) {
        let weights = first_weights(tile.b, k, tile.g, tile.co);
        for (var kz = 0u; kz < KERNEL_D; kz++) {
            for (var ky = 0u; ky < KERNEL_H; ky++) {
                for (var kx = 0u; kx < KERNEL_W; kx++) {
                    let tap = (kz * KERNEL_H + ky) * KERNEL_W + kx;
                    let window0 = window(tile, k, place0, kz, ky, kx);
                    let window1 = window(tile, k, place1, kz, ky, kx);
                    for (var ci = params.ci_begin; ci < params.ci_end; ci += 4u) {
                        let w0 = two_weights(weights, ci * TAPS + tap);
                        let w1 = weights_at(weights, ci + 1u, tap);
                        let w2 = weights_at(weights, ci + 2u, tap);
                        let w3 = weights_at(weights, ci + 3u, tap);
                        let w = RunWeights(
                            vec4<f32>(w0.x, w1.x, w2.x, w3.x),
                            vec4<f32>(w0.y, w1.y, w2.y, w3.y),
                        );
                        // All loads come first: each splits the driver's code in many small pieces.
                        let channels = channels_from(tile, ci);
                        let x0 = inputs(window0, channels);
                        let x1 = inputs(window1, channels);
                        accumulate_run(&sums0, x0, w);
                        if RUNS > 1u { accumulate_run(&sums1, x1, w); }
                    }
                }
            }
        }
    }
    store_run(tile, tile.position, sums0);
    if RUNS > 1u { store_run(tile, tile.position + 8u, sums1); }
}
