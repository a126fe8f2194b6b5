// import conv, dispatch, store

// A map at other places: enlarged, with a border, or as it is inside a larger tensor.
//
//   sum[b, c, p] = x[b, c, q(p)]
//   RULE 0, nearest:    q = floor(p in / out)
//   RULE 1, linear:     q = (p + 1/2) in / out - 1/2, within the map, between two neighbours
//   RULE 2, reflection: q = p - pad, mirrored at the first and at the last
//   RULE 3, edge:       q = p - pad, within the map
//
// along each axis. What follows is as in lib/conv.wgsl. y may have more channels than x (c_out,
// c_in, of one group): those of x are written. An invocation computes one output. Constants beside
// those of lib/conv.wgsl: RULE.

// Places that an output reads along an axis, and the share of the second.
struct Source {
    low: u32,
    high: u32,
    share: f32,
}

fn sampled(out: u32, in_size: u32, out_size: u32, pad: u32) -> Source {
    let last = in_size - 1u;
    switch RULE {
        case 0u: {
            let low = out * in_size / out_size;
            return Source(low, low, 0.0);
        }
        case 1u: {
            // In parts of 2 out_size, so that no place is rounded.
            let parts = 2u * out_size;
            let place = max((2u * out + 1u) * in_size, out_size) - out_size;
            let low = place / parts;
            return Source(low, min(low + 1u, last), f32(place % parts) / f32(parts));
        }
        case 2u: {
            let place = select(out - pad, pad - out, out < pad);
            let low = select(place, 2u * last - place, place > last);
            return Source(low, low, 0.0);
        }
        default: {
            let low = min(max(out, pad) - pad, last);
            return Source(low, low, 0.0);
        }
    }
}

fn share_of(place: Source, corner: u32) -> f32 {
    return select(1.0 - place.share, place.share, corner == 1u);
}

@compute @workgroup_size(WORKGROUP)
fn resample(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_number(id, grid) * WORKGROUP + lane;
    let size = positions();
    if index >= params.batch * params.c_in * size {
        return;
    }
    let position = index % size;
    let channel = index / size % params.c_in;
    let b = index / (size * params.c_in);
    let along = sampled(position % params.out_w, params.in_w, params.out_w, params.pad_w);
    let place_h = position / params.out_w % params.out_h;
    let down = sampled(place_h, params.in_h, params.out_h, params.pad_h);
    let deep = sampled(
        position / (params.out_w * params.out_h),
        params.in_d,
        params.out_d,
        params.pad_d,
    );

    var sum = 0.0;
    for (var corner = 0u; corner < select(1u, 8u, RULE == 1u); corner++) {
        let at_w = corner % 2u;
        let at_h = corner / 2u % 2u;
        let at_d = corner / 4u;
        let share = share_of(along, at_w) * share_of(down, at_h) * share_of(deep, at_d);
        let plane = select(deep.low, deep.high, at_d == 1u);
        let row = plane * params.in_h + select(down.low, down.high, at_h == 1u);
        let place = row * params.in_w + select(along.low, along.high, at_w == 1u);
        // A neighbour that does not count may be infinite.
        if share > 0.0 {
            sum += share * x_at(b, channel, place);
        }
    }
    store_output(b, channel, position, sum);
}
