// A device allows 65,535 workgroups a dimension; the host folds longer dispatches into up to three.
// Kernels think in one dimension: this is the workgroup's number there.
fn workgroup_number(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + grid.x * (id.y + grid.y * id.z);
}
