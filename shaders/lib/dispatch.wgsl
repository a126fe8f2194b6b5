// A device allows 65,535 workgroups a dimension; the host folds longer dispatches into up to three.
// Kernels think in one dimension: this is the workgroup's number there.
//
// Entry points take their built-ins one by one, not as a struct: front ends count a struct as
// non-uniform if one member is, and would refuse barriers behind a test of the number.
fn workgroup_number(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + grid.x * (id.y + grid.y * id.z);
}
