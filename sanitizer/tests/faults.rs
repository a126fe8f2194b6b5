//! Each sort of fault, planted and found at its line; and right shaders, in which nothing is found.

use wgsl_sanitizer::{Binding, Buffer, Dispatch, Finding, Kind, Shader, run};

/// Runs a shader on `y`, eight words that nobody has written, and `x`, eight words 0 to 7.
fn findings(body: &str, workgroups: u32) -> (String, Vec<Finding>, Vec<u32>) {
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> total: atomic<u32>;
var<workgroup> part: array<u32, 8>;
@compute @workgroup_size(8)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
) {{
{body}
}}"
    );
    let shader = Shader::new(&source).expect("valid");
    let bindings = [0, 1, 2].map(|number| {
        let range = if number == 2 { 0..4 } else { 0..32 };
        Binding { group: 0, binding: number, buffer: number as usize, range }
    });
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let x: Vec<u32> = (0..8).collect();
    let mut buffers = [Buffer::unwritten(32), Buffer::new(words(&x)), Buffer::new(words(&[0]))];
    let dispatch =
        Dispatch::new(&shader, "main", &bindings, [workgroups, 1, 1]).most_iterations(100);
    let found = run(&dispatch, &mut buffers).expect("runs");
    let y = buffers[0].bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (source, found, y)
}

/// The one fault of a shader, and the line of the body that it is in.
fn found(body: &str) -> (Kind, u32) {
    let (source, found, _) = findings(body, 1);
    let [finding] = &found[..] else { panic!("one fault: {found:?}") };
    (finding.kind, finding.line(&source) - 10)
}

fn nothing(body: &str) -> Vec<u32> {
    let (source, found, y) = findings(body, 1);
    assert!(found.is_empty(), "{}", found[0].describe(&source));
    y
}

#[test]
fn barriers_order_what_they_are_for() {
    let sum = "part[lane] = x[lane];\nworkgroupBarrier();\ny[lane] = part[7u - lane];";
    assert_eq!(nothing(sum), [7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(found(&sum.replace("workgroupBarrier();", "")), (Kind::Race, 3));
    // Storage has a barrier of its own.
    let storage = "y[lane] = x[lane];\nstorageBarrier();\nif lane > 0u { y[lane - 1u] = y[lane]; }";
    let (_, all, _) = findings(storage, 1);
    assert!(
        !all.is_empty() && all.iter().all(|finding| finding.kind == Kind::Race),
        "reads race with writes: {all:?}"
    );
    let apart = "y[lane] = x[lane];\nstorageBarrier();\nlet v = y[7u - lane];\nstorageBarrier();\n\
                 y[lane] = v;";
    assert_eq!(nothing(apart), [7, 6, 5, 4, 3, 2, 1, 0]);
    let (_, all, _) = findings(&apart.replacen("storageBarrier();", "workgroupBarrier();", 1), 1);
    assert!(all.iter().any(|finding| finding.kind == Kind::Race), "{all:?}");
}

#[test]
fn a_tree_of_sums_needs_each_of_its_barriers_and_its_branch() {
    let tree = "part[lane] = x[lane];
workgroupBarrier();
for (var half = 4u; half > 0u; half /= 2u) {
    if lane < half { part[lane] += part[lane + half]; }
    workgroupBarrier();
}
if lane == 0u { y[0] = part[0]; }";
    assert_eq!(nothing(tree)[0], 28);
    assert_eq!(found(&tree.replacen("workgroupBarrier();", "", 1)), (Kind::Race, 4));
    let (_, all, _) = findings(&tree.replace("    workgroupBarrier();\n", ""), 1);
    assert!(all.iter().any(|finding| finding.kind == Kind::Race), "{all:?}");
    let (_, all, _) = findings(&tree.replace("lane < half", "lane + half < 8u"), 1);
    assert!(all.iter().any(|finding| finding.kind == Kind::Race), "{all:?}");
}

#[test]
fn workgroups_and_invocations_race_for_storage() {
    let (_, found, _) = findings("if lane == 0u { y[0] = id.x; }", 2);
    assert!(matches!(
        &found[..],
        [finding] if finding.kind == Kind::Race && finding.other_invocation == Some([0, 0])
    ));
    // The same value from all is a race too.
    let (_, found, _) = findings("y[0] = 3u;", 1);
    assert_eq!(found[0].kind, Kind::Race);
    let (_, found, _) =
        findings("atomicAdd(&total, lane);\nif lane == 0u { y[id.x] = x[id.x]; }", 2);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn places_past_the_end_are_found_where_they_are_used() {
    assert_eq!(found("y[lane + 1u] = 3u;"), (Kind::OutOfBounds, 1));
    assert_eq!(found("let v = x[lane + 1u];\ny[lane] = v;"), (Kind::ReadPastEnd, 1));
    assert_eq!(
        found("part[lane] = 1u;\ny[lane] = part[lane] + part[lane + 8u];"),
        (Kind::OutOfBounds, 2)
    );
    assert_eq!(
        found("var own = array<u32, 4>(1u, 2u, 3u, 4u);\ny[lane] = own[lane];"),
        (Kind::OutOfBounds, 2)
    );
    assert_eq!(nothing("y[lane] = select(x[min(lane + 1u, 7u)], 9u, lane == 7u);")[6..], [7, 9]);
}

#[test]
fn what_nothing_wrote_is_not_read() {
    assert_eq!(found("y[lane] = part[lane];"), (Kind::Unwritten, 1));
    assert_eq!(found("y[lane] += 1u;"), (Kind::Unwritten, 1));
    assert_eq!(
        found("if lane > 0u { part[lane] = 1u; }\ny[lane] = part[lane];"),
        (Kind::Unwritten, 2)
    );
}

#[test]
fn control_flow_that_parts_is_found_at_barriers_and_in_subgroups() {
    let (_, all, _) = findings("if lane == 3u { return; }\nworkgroupBarrier();\ny[lane] = 1u;", 1);
    assert_eq!(all[0].kind, Kind::DivergentBarrier);
    let (_, all, _) = findings("y[lane] = subgroupShuffle(lane, in_subgroup ^ 8u);", 1);
    assert_eq!(all[0].kind, Kind::InactiveLane);
    assert_eq!(nothing("y[lane] = subgroupAdd(x[lane]);"), [28; 8]);
    assert_eq!(
        nothing("y[lane] = subgroupShuffle(lane, 7u - in_subgroup);"),
        [7, 6, 5, 4, 3, 2, 1, 0]
    );
    assert_eq!(nothing("y[lane] = subgroupBroadcast(x[lane], 3u);"), [3; 8]);
    assert_eq!(nothing("y[lane] = subgroupExclusiveAdd(x[lane]);"), [0, 0, 1, 3, 6, 10, 15, 21]);
}

#[test]
fn arithmetic_that_has_no_right_result_is_found() {
    assert_eq!(found("y[lane] = 1u << (x[lane] + 30u);"), (Kind::Shift, 1));
    assert_eq!(found("y[lane] = 8u / x[lane];"), (Kind::Division, 1));
    assert_eq!(found("y[lane] = u32(-f32(x[lane]));"), (Kind::Conversion, 1));
    assert_eq!(
        found("y[lane] = 0u;\nloop { if x[lane] == 99u { break; } }"),
        (Kind::EndlessLoop, 2)
    );
}

#[test]
fn control_flow_is_that_of_wgsl() {
    let switched = "var v = 0u;
for (var i = 0u; i < 5u; i++) {
    switch (x[lane] + i) % 4u {
        case 0u: { continue; }
        case 1u, 2u: { v += 10u; }
        default: { if lane == 2u { break; } v += 1u; }
    }
    if i == 3u { break; }
}
y[lane] = v;";
    let expected = |lane: u32| {
        let mut v = 0;
        for i in 0..5 {
            match (lane + i) % 4 {
                0 => continue,
                1 | 2 => v += 10,
                _ if lane == 2 => {}
                _ => v += 1,
            }
            if i == 3 {
                break;
            }
        }
        v
    };
    assert_eq!(nothing(switched), (0..8).map(expected).collect::<Vec<_>>());
    let matrices = "let m = mat2x3<f32>(1.0, 2.0, 3.0, 4.0, 5.0, 6.0);
let v = transpose(m) * (m * vec2<f32>(1.0, f32(lane)));
y[lane] = u32(v.x + 1000.0 * v.y + dot(vec2<f32>(1.0), vec2<f32>(0.0)));";
    let expected =
        (0..8).map(|lane| (14 + 32 * lane) + 1000 * (32 + 77 * lane)).collect::<Vec<_>>();
    assert_eq!(nothing(matrices), expected);
}

#[test]
fn atomic_accesses_do_not_race_with_each_other() {
    let stored = "atomicStore(&total, 1u);\ny[lane] = atomicLoad(&total);";
    assert_eq!(nothing(stored), [1; 8]);
    assert_eq!(nothing("y[lane] = atomicMax(&total, lane) + atomicSub(&total, 0u);")[0], 7);
    let exchanged = "let r = atomicCompareExchangeWeak(&total, lane, lane + 1u);
y[lane] = r.old_value * 10u + u32(r.exchanged);";
    assert_eq!(nothing(exchanged), [1, 11, 21, 31, 41, 51, 61, 71]);
}

#[test]
fn a_loop_without_an_end_ends_the_run_and_nothing_else_is_told() {
    let source = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
fn f(a: u32) -> u32 { var i = a; while i != 99u { } return i; }
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) {
    for (var i = 0u; i < 9u; i++) { y[lane] = f(lane); }
    workgroupBarrier();
}";
    let shader = Shader::new(source).expect("valid");
    let bindings = [Binding { group: 0, binding: 0, buffer: 0, range: 0..16 }];
    let dispatch = Dispatch::new(&shader, "main", &bindings, [2, 1, 1]).most_iterations(100);
    let found = run(&dispatch, &mut [Buffer::unwritten(16)]).expect("runs");
    assert!(
        matches!(&found[..], [one] if one.kind == Kind::EndlessLoop && one.line(source) == 2),
        "{found:?}"
    );
}

#[test]
fn functions_pointers_and_variables_are_those_of_wgsl() {
    let (source, found, y) = findings("y[lane] = 0u;", 1);
    assert!(found.is_empty() && y == [0; 8], "{source}");
    let source = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
struct Pair { a: u32, b: array<u32, 2> }
var<private> calls: u32 = 3u;
var<workgroup> seed: u32;
fn first_above(least: u32) -> u32 {
    for (var i = 0u; i < 9u; i++) {
        if i * i > least { return i; }
    }
    return 99u;
}
fn bump(p: ptr<function, Pair>, by: u32) { (*p).b[by % 2u] += by; calls += 1u; }
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 1u { seed = 100u; }
    let s = workgroupUniformLoad(&seed);
    var pair = Pair(1u, array<u32, 2>(2u, 3u));
    bump(&pair, lane);
    bump(&pair, 1u);
    var sum = 0u;
    loop {
        var fresh: u32;
        fresh += 1u;
        sum += fresh;
        continuing { break if sum > lane; }
    }
    y[lane] = s + pair.b[0] + 10u * pair.b[1] + 1000u * calls + 10000u * sum \
        + 100000u * first_above(lane * 20u);
}";
    let shader = Shader::new(source).expect("valid");
    let bindings = [Binding { group: 0, binding: 0, buffer: 0, range: 0..16 }];
    let dispatch = Dispatch::new(&shader, "main", &bindings, [1; 3]).clears_workgroup_memory(true);
    let mut buffers = [Buffer::unwritten(16)];
    let found = run(&dispatch, &mut buffers).expect("runs");
    assert!(found.is_empty(), "{}", found[0].describe(source));
    let expected = (0..4_u32).map(|lane| {
        let mut b = [2, 3];
        b[lane as usize % 2] += lane;
        b[1] += 1;
        let above = (0..9).find(|i| i * i > lane * 20).unwrap_or(99);
        100 + b[0] + 10 * b[1] + 5000 + 10_000 * (lane + 1) + 100_000 * above
    });
    let expected: Vec<u8> = expected.flat_map(u32::to_le_bytes).collect();
    assert_eq!(buffers[0].bytes, expected);
    assert!(buffers[0].is_written(0..16) && !Buffer::unwritten(4).is_written(0..4));
}

#[test]
fn many_readers_are_remembered() {
    // Five others read before the first writes.
    let read = "let v = x[0];\npart[lane] = v;\nworkgroupBarrier();\nlet w = part[5];\n\
                if lane == 5u { part[5] = w; }\ny[lane] = w;";
    let (_, found, _) = findings(read, 1);
    assert!(matches!(&found[..], [one] if one.kind == Kind::Race), "{found:?}");
    // Read in one workgroup, written in the next.
    let across = "if id.x == 0u { y[lane] = 1u; y[lane] += atomicLoad(&total); }
if id.x == 1u && lane == 0u { y[3] = 2u; }";
    let (_, found, _) = findings(across, 2);
    assert!(found.iter().all(|one| one.kind == Kind::Race) && !found.is_empty(), "{found:?}");
}

#[test]
fn what_is_guarded_is_no_fault() {
    // The index of lane 0 wraps, and is never used.
    let guarded = "let v = vec4<u32>(1u, 2u, 3u, 4u);
y[lane] = 9u;
if lane > 0u && lane < 5u { y[lane] = v[lane - 1u]; }";
    assert_eq!(nothing(guarded), [9, 1, 2, 3, 4, 9, 9, 9]);
    // Shorter than the array that is bound: inside the buffer, but not of the array.
    let source = "struct P { a: array<vec4<u32>, 2>, n: vec4<u32> }
@group(0) @binding(0) var<uniform> p: P;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) { \
    y[lane] = p.a[lane].x; }";
    let shader = Shader::new(source).expect("valid");
    let binding = |binding, buffer, range| Binding { group: 0, binding, buffer, range };
    let bindings = [binding(0, 0, 0..48), binding(1, 1, 0..16)];
    let dispatch = Dispatch::new(&shader, "main", &bindings, [1; 3]);
    let found =
        run(&dispatch, &mut [Buffer::new(vec![0; 48]), Buffer::unwritten(16)]).expect("runs");
    assert!(matches!(&found[..], [one] if one.kind == Kind::OutOfBounds), "{found:?}");
    assert!(shader.writes(0, 1) && !shader.writes(0, 0) && !shader.has_atomics(0, 1));
}

#[test]
fn reads_past_the_end_give_what_is_asked_for() {
    let source = "@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(2) fn main(@builtin(local_invocation_index) lane: u32) { \
    y[lane] = x[lane + arrayLength(&x) - 1u]; }";
    let shader = Shader::new(source).expect("valid");
    let binding = |binding, buffer, range| Binding { group: 0, binding, buffer, range };
    let bindings = [binding(0, 0, 0..8), binding(1, 1, 0..8)];
    let dispatch = Dispatch::new(&shader, "main", &bindings, [1; 3]).past_end(7);
    let mut buffers = [Buffer::new(vec![1; 8]), Buffer::unwritten(8)];
    let found = run(&dispatch, &mut buffers).expect("runs");
    assert!(matches!(&found[..], [one] if one.kind == Kind::ReadPastEnd), "{found:?}");
    assert_eq!(buffers[1].bytes, [1, 1, 1, 1, 7, 0, 0, 0]);
}

#[test]
fn a_barrier_can_be_taken_out() {
    let source = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
var<workgroup> part: array<u32, 4>;
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) {
    part[lane] = lane;
    if true { workgroupBarrier(); }
    y[lane] = part[3u - lane];
    workgroupBarrier();
}";
    let shader = Shader::new(source).expect("valid");
    assert_eq!(shader.barriers(), 2);
    let kinds = |number: usize| {
        let (blind, line) = shader.without_barrier(number, source).expect("is there");
        let bindings = [Binding { group: 0, binding: 0, buffer: 0, range: 0..16 }];
        let dispatch = Dispatch::new(&blind, "main", &bindings, [1; 3]);
        let found = run(&dispatch, &mut [Buffer::unwritten(16)]).expect("runs");
        (line, found.into_iter().map(|finding| finding.kind).collect::<Vec<_>>())
    };
    assert_eq!(kinds(0), (5, vec![Kind::Race]));
    assert_eq!(kinds(1), (7, vec![]));
    assert!(shader.without_barrier(2, source).is_err());
}

#[test]
fn what_is_not_interpreted_is_named() {
    let refusal = |source: &str, subgroup_size: usize, range: std::ops::Range<usize>| {
        let shader = Shader::new(source).expect("valid");
        let bindings =
            [0, 1].map(|binding| Binding { group: 0, binding, buffer: 0, range: range.clone() });
        let dispatch =
            Dispatch::new(&shader, "main", &bindings, [1; 3]).subgroup_size(subgroup_size);
        run(&dispatch, &mut [Buffer::unwritten(64)]).expect_err("is refused").to_string()
    };
    let of = |head: &str, body: &str| {
        format!("{head}\n@compute @workgroup_size(4) fn main() {{ {body} }}")
    };
    assert_eq!(
        refusal("override N: u32 = 8; @compute @workgroup_size(N) fn main() {}", 32, 0..4),
        "not interpreted: overrides"
    );
    assert!(
        refusal(&of("", "subgroupBarrier();"), 32, 0..4)
            .starts_with("not interpreted: ControlBarrier")
    );
    assert!(refusal(&of("", ""), 5, 0..4).contains("powers of two up to 128"));
    assert!(
        refusal("@compute @workgroup_size(16384, 16384, 16384) fn main() {}", 32, 0..4)
            .contains("1024 invocations")
    );
    let huge = of("var<workgroup> a: array<u32, 500000000>;", "a[1] = 1u;");
    assert!(refusal(&huge, 32, 0..4).contains("more than 16777216 numbers"));
    let two = "@group(0) @binding(0) var<storage, read_write> a: array<u32>;
@group(0) @binding(1) var<storage, read> b: array<u32>;";
    assert!(refusal(&of(two, "a[0] = b[0];"), 32, 0..16).contains("overlaps another binding"));
    let header = "struct S { n: u32, data: array<u32> }
@group(0) @binding(0) var<storage, read_write> s: S;";
    assert_eq!(refusal(&of(header, "s.n = 1u;"), 32, 0..2), "s: larger than what is bound");
}

#[test]
fn what_is_bound_wrongly_is_named() {
    let source = "@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;
        @compute @workgroup_size(1) fn main() { out[0] = vec4<u32>(1u); }";
    let shader = Shader::new(source).expect("valid");
    let error = |bindings: &[Binding]| {
        let dispatch = Dispatch::new(&shader, "main", bindings, [1; 3]);
        run(&dispatch, &mut [Buffer::unwritten(8)]).expect_err("cannot run").to_string()
    };
    assert_eq!(error(&[]), "out: bound to nothing");
    let binding = |range| Binding { group: 0, binding: 3, buffer: 0, range };
    assert_eq!(error(&[binding(0..16)]), "out: bound past the end of the buffer");
    let dispatch = Dispatch::new(&shader, "other", &[], [1; 3]);
    assert_eq!(
        run(&dispatch, &mut []).expect_err("is not there").to_string(),
        "no compute shader \"other\""
    );
    assert!(Shader::new("fn (").is_err());
}
