// import dispatch, numbers

// Recurrence of a gated recurrent unit (GRU), from projections of the inputs on.
//
//   r = sigmoid(x_r + W_r h + b_r)
//   z = sigmoid(x_z + W_z h + b_z)
//   n = tanh(x_n + r * (W_n h + b_n))
//   h = (1 - z) * n + z * h                     0 before the first step
//
// x_r, x_z, x_n are the projections of the step, with their bias. One workgroup takes a sample in
// one direction, step after step; the second direction goes from the last step to the first. A long
// sequence is several dispatches, each of which takes up the state that the one before has stored.
// Constants that the host joins in front: WORKGROUP, HIDDEN (units of a direction).

struct GruParams {
    // First element of each operand inside its binding.
    projections_base: u32,
    weights_base: u32,
    states_base: u32,

    batch: u32,
    directions: u32,
    steps: u32,
    // Steps of this dispatch, counted in the direction's own order.
    step_begin: u32,
    step_end: u32,
}

@group(0) @binding(0) var<uniform> params: GruParams;
// [batch, directions, 3, HIDDEN, steps]: r, z, n.
@group(0) @binding(1) var<storage, read> projections: array<f32>;
// [directions, HIDDEN + 1, 3, HIDDEN]: weights of each unit of the state before, then biases.
@group(0) @binding(2) var<storage, read> weights: array<f32>;
// [batch, directions, HIDDEN, steps]
@group(0) @binding(3) var<storage, read_write> states: array<f32>;

// The state before the step.
var<workgroup> before: array<f32, HIDDEN>;

// Step in time of a direction's own n-th step.
fn time_of(direction: u32, n: u32) -> u32 {
    return select(n, params.steps - 1u - n, direction == 1u);
}

fn state_element(sequence: u32, unit: u32, time: u32) -> u32 {
    return params.states_base + (sequence * HIDDEN + unit) * params.steps + time;
}

// What the state before makes of each gate of a unit.
fn recurrent(direction: u32, unit: u32) -> vec3<f32> {
    let first = params.weights_base + direction * (HIDDEN + 1u) * 3u * HIDDEN + unit;
    let biases = first + HIDDEN * 3u * HIDDEN;
    var sum = vec3<f32>(weights[biases], weights[biases + HIDDEN], weights[biases + 2u * HIDDEN]);
    for (var j = 0u; j < HIDDEN; j++) {
        let r = first + j * 3u * HIDDEN;
        let z = r + HIDDEN;
        sum += before[j] * vec3<f32>(weights[r], weights[z], weights[z + HIDDEN]);
    }
    return sum;
}

// The state of a unit after a step.
fn after(sequence: u32, unit: u32, time: u32) -> f32 {
    let gates = recurrent(sequence % params.directions, unit);
    let first = params.projections_base + (sequence * 3u * HIDDEN + unit) * params.steps + time;
    let gate = HIDDEN * params.steps;
    let r = sigmoid(projections[first] + gates.x);
    let z = sigmoid(projections[first + gate] + gates.y);
    let n = 2.0 * sigmoid(2.0 * (projections[first + 2u * gate] + r * gates.z)) - 1.0;
    return (1.0 - z) * n + z * before[unit];
}

@compute @workgroup_size(WORKGROUP)
fn gru(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sequence = workgroup_number(id, grid);
    if sequence >= params.batch * params.directions {
        return;
    }
    let direction = sequence % params.directions;
    for (var n = params.step_begin; n < params.step_end; n++) {
        for (var unit = lane; unit < HIDDEN; unit += WORKGROUP) {
            var state = 0.0;
            if n > 0u {
                state = states[state_element(sequence, unit, time_of(direction, n - 1u))];
            }
            before[unit] = state;
        }
        workgroupBarrier();
        for (var unit = lane; unit < HIDDEN; unit += WORKGROUP) {
            let time = time_of(direction, n);
            states[state_element(sequence, unit, time)] = after(sequence, unit, time);
        }
        workgroupBarrier();
    }
}
