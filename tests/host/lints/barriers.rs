//! A lint over naga's IR: every barrier is reached by all invocations of a workgroup. WGSL demands
//! it, and browsers refuse shaders that do not show it; naga does not look. Loops count as run
//! alike by all.

use std::collections::HashSet;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{AddressSpace, Block, Expression, Function, Handle, Module, Statement};

/// A walk through the entry point.
struct Walk<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    of_entry: &'a FunctionInfo,
    function: &'a Function,
    /// Results of calls that are uniform because their arguments are: naga judges a function
    /// without them.
    uniform_calls: HashSet<Handle<Expression>>,
    /// Whether some invocations may have left by now, while others go on.
    has_left: bool,
    found: Vec<&'static str>,
}

impl Walk<'_> {
    fn is_uniform(&self, expression: Handle<Expression>) -> bool {
        match self.function.expressions[expression] {
            Expression::CallResult(_) => self.uniform_calls.contains(&expression),
            Expression::Binary { left, right, .. } => {
                self.is_uniform(left) && self.is_uniform(right)
            }
            Expression::Unary { expr, .. } => self.is_uniform(expr),
            _ => self.of_entry[expression].uniformity.non_uniform_result.is_none(),
        }
    }

    /// Whether a function computes with nothing but its arguments and uniform data.
    fn is_pure(&self, callee: Handle<Function>) -> bool {
        let info = &self.info[callee];
        let mut globals = self.module.global_variables.iter();
        self.module.functions[callee].local_variables.is_empty()
            && globals.all(|(handle, variable)| {
                info[handle].is_empty() || variable.space == AddressSpace::Uniform
            })
    }

    /// `branches` is how many `if` and `switch` bodies are around, `is_shared` whether all
    /// invocations agree about all of them.
    fn block(&mut self, block: &Block, branches: usize, is_shared: bool) {
        for statement in block {
            match statement {
                Statement::ControlBarrier(_) if branches > 0 => {
                    self.found.push("a barrier in a branch")
                }
                Statement::ControlBarrier(_) if self.has_left => {
                    self.found.push("a barrier that some do not reach")
                }
                Statement::Return { .. } => self.has_left |= !is_shared,
                Statement::Call { function, arguments, result } => {
                    let is_uniform =
                        self.is_pure(*function) && arguments.iter().all(|&a| self.is_uniform(a));
                    self.uniform_calls.extend(result.filter(|_| is_uniform));
                }
                Statement::Block(inner) => self.block(inner, branches, is_shared),
                Statement::Loop { body, continuing, .. } => {
                    self.block(body, branches, is_shared);
                    self.block(continuing, branches, is_shared);
                }
                Statement::If { condition, accept, reject } => {
                    let is_shared = is_shared && self.is_uniform(*condition);
                    // What a variant's constants decide is no branch: one side is never there.
                    let is_branch =
                        !matches!(self.function.expressions[*condition], Expression::Literal(_));
                    let branches = branches + usize::from(is_branch);
                    [accept, reject]
                        .into_iter()
                        .for_each(|inner| self.block(inner, branches, is_shared));
                }
                Statement::Switch { selector, cases } => {
                    let is_shared = is_shared && self.is_uniform(*selector);
                    cases.iter().for_each(|case| self.block(&case.body, branches + 1, is_shared));
                }
                _ => {}
            }
        }
    }
}

/// Barriers that not all invocations of a workgroup reach. Functions that are called may have none
/// at all.
pub(crate) fn stray_barriers(module: &Module, info: &ModuleInfo) -> Vec<&'static str> {
    let has_barrier =
        |function: &Function| format!("{:?}", function.body).contains("ControlBarrier");
    let in_helpers = module.functions.iter().filter(|(_, function)| has_barrier(function));
    let found = in_helpers.map(|_| "a barrier in a helper").collect();
    let (function, of_entry) = (&module.entry_points[0].function, info.get_entry_point(0));
    let mut walk = Walk {
        module,
        info,
        of_entry,
        function,
        uniform_calls: HashSet::new(),
        has_left: false,
        found,
    };
    walk.block(&function.body, 0, true);
    walk.found
}

#[test]
fn stray_barriers_are_found() {
    let fixtures: [(&str, &[&str]); 11] = [
        ("workgroupBarrier();", &[]),
        ("if COUNT > 3u { workgroupBarrier(); }", &[]),
        ("if size > COUNT { workgroupBarrier(); }", &["a barrier in a branch"]),
        ("if linear(id.x, id.y) >= size { return; } workgroupBarrier();", &[]),
        (
            "if -1 * i32(id.x) > 3 { return; } \
             for (var i = 0u; i < size; i++) { workgroupBarrier(); }",
            &[],
        ),
        ("if lane == 0u { workgroupBarrier(); }", &["a barrier in a branch"]),
        (
            "switch lane { case 0u: { return; } default: { workgroupBarrier(); } }",
            &["a barrier in a branch"],
        ),
        ("if lane >= size { return; } workgroupBarrier();", &["a barrier that some do not reach"]),
        (
            "if linear(id.x, lane) >= size { return; } workgroupBarrier();",
            &["a barrier that some do not reach"],
        ),
        (
            "if size > 3u { if data[id.x] > 1u { return; } } workgroupBarrier();",
            &["a barrier that some do not reach"],
        ),
        ("meet();", &["a barrier in a helper"]),
    ];
    for (body, expected) in fixtures {
        let helper = if body.contains("meet") { "fn meet() { workgroupBarrier(); }" } else { "" };
        let source = format!(
            "const COUNT: u32 = 4u;
             @group(0) @binding(0) var<uniform> size: u32;
             @group(0) @binding(1) var<storage, read_write> data: array<u32>;
             fn linear(x: u32, y: u32) -> u32 {{ return x + size * y; }}
             {helper}
             @compute @workgroup_size(64)
             fn main(@builtin(workgroup_id) id: vec3<u32>, \
                     @builtin(local_invocation_index) lane: u32) {{ {body} }}"
        );
        let (module, info) = super::fixture(&source);
        assert_eq!(stray_barriers(&module, &info), expected, "{body}");
    }
}
