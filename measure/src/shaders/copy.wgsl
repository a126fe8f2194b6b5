// Copies 64 bytes an invocation, each load beside those of its neighbours.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

const WORKGROUP = 256u;
const EACH = 4u;

@compute @workgroup_size(WORKGROUP)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = (group.y * groups.x + group.x) * WORKGROUP * EACH + local;
    for (var i = 0u; i < EACH; i++) {
        let at = first + i * WORKGROUP;
        if at < arrayLength(&y) {
            y[at] = x[at];
        }
    }
}
