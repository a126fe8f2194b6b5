//! Every store to storage whose index differs between invocations stands behind a test. WGSL clamps
//! indices, so that a store past the end is not seen as one: it lands on another element of the
//! buffer, which may be another invocation's.
//!
//! For each store (atomic operations too) this proves: each of the ids (of the workgroup, of the
//! invocation in it) and memory, as far as the index is computed from it, is part of the smaller
//! side of an unsigned comparison that every path to the store passes: an `if` or loop condition
//! around it, or an earlier one whose other branch leaves; in the function or in its callers. The
//! larger side is the same for all invocations: constants and parameters.
//!
//! It does not prove that the bound is the right one or is compared with the index itself, nor that
//! the compared variable keeps its value until the store, nor anything of indices that ids choose
//! by branching only. Tests on devices show that. Loads are left out: kernels rely on a load of a
//! wrong element, which they then drop, being harmless.

use std::collections::{BTreeSet, HashMap, HashSet};

use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable,
    Module, ScalarKind, Statement, UnaryOperator,
};

use super::flow::{Call, Flow, Frame, Sources};

/// Stores that no sufficient test guards.
pub(crate) fn unguarded_stores(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let flow = Flow::new(module, info);
    let mut walk = Walk { module, flow: &flow, seen: HashSet::new(), found: BTreeSet::new() };
    walk.function(&flow.entry(), Sources::NONE);
    walk.found.into_iter().collect()
}

/// What a condition bounds where it is true, and where it is false.
#[derive(Clone, Copy, Default)]
struct Bounds {
    if_true: Sources,
    if_false: Sources,
}

impl Bounds {
    fn not(self) -> Self {
        Self { if_true: self.if_false, if_false: self.if_true }
    }

    fn and(self, other: Self) -> Self {
        Self { if_true: self.if_true | other.if_true, if_false: self.if_false & other.if_false }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

/// How a path goes on after a block.
struct End {
    bounded: Sources,
    leaves: bool,
}

/// A walk along all paths from the entry point.
struct Walk<'a> {
    module: &'a Module,
    flow: &'a Flow<'a>,
    /// Calls that were looked at, and what was bounded there.
    seen: HashSet<(Call, Sources)>,
    found: BTreeSet<String>,
}

/// A function on that walk.
struct Scope<'a> {
    frame: &'a Frame<'a>,
    /// naga makes `a && b` an `if` that sets a nameless local: what each of these bounds.
    conditions: HashMap<Handle<LocalVariable>, Bounds>,
}

impl Walk<'_> {
    fn function(&mut self, frame: &Frame<'_>, bounded: Sources) {
        let mut scope = Scope { frame, conditions: HashMap::new() };
        self.block(&mut scope, &frame.function.body, bounded);
    }

    fn block(&mut self, scope: &mut Scope<'_>, block: &Block, mut bounded: Sources) -> End {
        for statement in block {
            match statement {
                Statement::Store { pointer, .. } | Statement::Atomic { pointer, .. } => {
                    self.store(scope.frame, *pointer, bounded);
                }
                Statement::Call { function, arguments, .. } => {
                    let sources = scope.frame.all(arguments);
                    if self.seen.insert(((*function, sources.clone()), bounded)) {
                        self.function(&self.flow.callee(*function, sources), bounded);
                    }
                }
                Statement::Block(inner) => {
                    let end = self.block(scope, inner, bounded);
                    if end.leaves {
                        return end;
                    }
                    bounded = end.bounded;
                }
                Statement::If { condition, accept, reject } => {
                    let bounds = scope.bounds(self.module, *condition);
                    let accepted = self.block(scope, accept, bounded | bounds.if_true);
                    let rejected = self.block(scope, reject, bounded | bounds.if_false);
                    scope.remember(self.module, bounds, accept, reject);
                    match (accepted.leaves, rejected.leaves) {
                        (true, true) => return accepted,
                        (true, false) => bounded = rejected.bounded,
                        (false, true) => bounded = accepted.bounded,
                        (false, false) => bounded = accepted.bounded & rejected.bounded,
                    }
                }
                Statement::Loop { body, continuing, .. } => {
                    self.block(scope, body, bounded);
                    self.block(scope, continuing, bounded);
                }
                Statement::Switch { cases, .. } => {
                    for case in cases {
                        self.block(scope, &case.body, bounded);
                    }
                }
                Statement::Return { .. }
                | Statement::Break
                | Statement::Continue
                | Statement::Kill => {
                    return End { bounded, leaves: true };
                }
                _ => {}
            }
        }
        End { bounded, leaves: false }
    }

    fn store(&mut self, frame: &Frame<'_>, pointer: Handle<Expression>, bounded: Sources) {
        let space = frame.info[pointer].ty.inner_with(&self.module.types).pointer_space();
        if !matches!(space, Some(AddressSpace::Storage { .. })) {
            return;
        }
        let missing = (index_sources(frame, pointer) & Sources::WILD).without(bounded);
        if missing != Sources::NONE {
            self.found.insert(format!(
                "a store whose index depends on {}, which nothing bounds",
                missing.names()
            ));
        }
    }
}

/// What the indices on the way to an element are computed from.
fn index_sources(frame: &Frame<'_>, pointer: Handle<Expression>) -> Sources {
    match frame.function.expressions[pointer] {
        Expression::Access { base, index } => frame.of(index) | index_sources(frame, base),
        Expression::AccessIndex { base, .. } => index_sources(frame, base),
        _ => Sources::NONE,
    }
}

impl Scope<'_> {
    fn bounds(&self, module: &Module, condition: Handle<Expression>) -> Bounds {
        match self.frame.function.expressions[condition] {
            Expression::Unary { op: UnaryOperator::LogicalNot, expr } => {
                self.bounds(module, expr).not()
            }
            Expression::Load { pointer } => match self.frame.function.expressions[pointer] {
                Expression::LocalVariable(local) => {
                    self.conditions.get(&local).copied().unwrap_or_default()
                }
                _ => Bounds::default(),
            },
            Expression::Binary { op, left, right } => self.comparison(module, op, left, right),
            _ => Bounds::default(),
        }
    }

    fn comparison(
        &self,
        module: &Module,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Bounds {
        let kind = self.frame.info[left].ty.inner_with(&module.types).scalar_kind();
        if matches!(op, BinaryOperator::And | BinaryOperator::LogicalAnd)
            && kind == Some(ScalarKind::Bool)
        {
            return self.bounds(module, left).and(self.bounds(module, right));
        }
        if matches!(op, BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr)
            && kind == Some(ScalarKind::Bool)
        {
            return self.bounds(module, left).or(self.bounds(module, right));
        }
        // Below a bound, an i32 may still be negative.
        if kind != Some(ScalarKind::Uint) {
            return Bounds::default();
        }
        let [left, right] = [left, right].map(|side| self.frame.of(side) & Sources::WILD);
        // A side that differs between invocations bounds nothing.
        let if_less = if right.is_wild() { Sources::NONE } else { left };
        let if_greater = if left.is_wild() { Sources::NONE } else { right };
        match op {
            BinaryOperator::Less | BinaryOperator::LessEqual => {
                Bounds { if_true: if_less, if_false: if_greater }
            }
            BinaryOperator::Greater | BinaryOperator::GreaterEqual => {
                Bounds { if_true: if_greater, if_false: if_less }
            }
            BinaryOperator::Equal => {
                Bounds { if_true: if_less | if_greater, if_false: Sources::NONE }
            }
            BinaryOperator::NotEqual => {
                Bounds { if_true: Sources::NONE, if_false: if_less | if_greater }
            }
            _ => Bounds::default(),
        }
    }

    /// Notes what a nameless local bounds, if this `if` is how naga writes `a && b` (set to b, or
    /// else to false) or `a || b` (unless a: set to b, or else to true).
    fn remember(&mut self, module: &Module, condition: Bounds, accept: &Block, reject: &Block) {
        let function = self.frame.function;
        let (Some((local, right)), Some((other, literal))) =
            (condition_store(function, accept), condition_store(function, reject))
        else {
            return;
        };
        if local != other {
            return;
        }
        let right = self.bounds(module, right);
        let bounds = match function.expressions[literal] {
            Expression::Literal(Literal::Bool(false)) => condition.and(right),
            Expression::Literal(Literal::Bool(true)) => condition.not().or(right),
            _ => return,
        };
        self.conditions.insert(local, bounds);
    }
}

/// The nameless local that a block ends with setting, and what it is set to. Programs cannot name,
/// and so not set, these.
fn condition_store(
    function: &Function,
    block: &Block,
) -> Option<(Handle<LocalVariable>, Handle<Expression>)> {
    let Some(Statement::Store { pointer, value }) = block.last() else { return None };
    let Expression::LocalVariable(local) = function.expressions[*pointer] else { return None };
    function.local_variables[local].name.is_none().then_some((local, *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELPERS: &str = "fn put(i: u32) { out[i] = 1u; }
                           fn put_below(i: u32) { if i >= params.n { return; } put(i); }
                           fn add(i: u32) { atomicAdd(&counts[i], 1u); }
                           fn index(g: vec3<u32>, lane: u32) -> u32 { return g.x * 64u + lane; }";

    fn findings(body: &str) -> Vec<String> {
        let (module, info) = super::super::fixture_of(HELPERS, body);
        unguarded_stores(&module, &info)
    }

    #[test]
    fn guarded_stores_pass() {
        let fixtures = [
            "out[0] = lane; out[params.n] = global.x;",
            "if global.x < params.n { out[global.x] = 1u; }",
            "if !(params.n <= global.x) { out[global.x] = 1u; }",
            "if global.x >= params.n { return; } out[global.x] = 1u;",
            "if global.x < params.n { } else { return; } out[global.x] = 1u;",
            "let i = index(group, lane); if i >= params.n * params.m { return; } put(i + 3u);",
            "put_below(global.x);",
            "if group.x >= params.n || lane >= params.m { return; } \
             out[group.x * params.m + lane] = 1u;",
            "if group.x < params.n && lane < params.m && params.n > 3u { \
             out[group.x + lane] = 1u; }",
            "if (group.x < params.n) & (lane < params.m) { out[group.x + lane] = 1u; }",
            "if group.x >= params.n { return; } for (var i = lane; i < params.m; i += 64u) { \
             out[group.x + i] = 1u; }",
            "if group.x >= params.n { return; } workgroupBarrier(); \
             if lane == 0u { add(group.x + lane); }",
            "loop { if lane >= params.n { break; } out[lane] = 1u; }",
            "let i = data[lane]; if i < params.n { out[i] = 1u; }",
            "switch params.m { case 1u: { if lane < params.n { out[lane] = 1u; } } default: {} }",
            "shared_data[lane] = 1u;",
        ];
        for body in fixtures {
            assert_eq!(findings(body), [""; 0], "{body}");
        }
    }

    #[test]
    fn unguarded_stores_are_found() {
        let fixtures = [
            ("out[global.x] = 1u;", "the workgroup and the invocation"),
            ("put(lane);", "the invocation"),
            ("add(group.x);", "the workgroup"),
            ("atomicStore(&counts[lane], 1u);", "the invocation"),
            ("out[data[0]] = 1u;", "data"),
            ("if lane < params.n { } out[lane] = 1u;", "the invocation"),
            ("if lane >= params.n { out[lane] = 1u; }", "the invocation"),
            ("if lane > params.n { return; } else { } put(group.x);", "the workgroup"),
            ("if lane < params.n { out[group.x * 64u + lane] = 1u; }", "the workgroup"),
            ("if params.m < params.n { out[lane] = 1u; }", "the invocation"),
            ("if lane < data[0] { out[lane] = 1u; }", "the invocation"),
            ("if lane < group.x { out[lane] = 1u; }", "the invocation"),
            ("if i32(lane) - 9 < 3 { out[lane] = 1u; }", "the invocation"),
            (
                "if group.x < params.n || lane < params.m { out[group.x + lane] = 1u; }",
                "the workgroup and the invocation",
            ),
            (
                "if group.x >= params.n && lane >= params.m { return; } put(group.x);",
                "the workgroup",
            ),
            ("if data[lane] < params.n { out[lane] = 1u; }", "the invocation"),
            ("for (var i = lane; i < params.n; i += 64u) { } out[lane] = 1u;", "the invocation"),
            ("for (var i = 0u; i < params.n; i++) { out[lane + i] = 1u; }", "the invocation"),
            ("put_below(lane); put(lane);", "the invocation"),
            (
                "loop { if params.m > 1u { break; } if lane >= params.n { break; } } \
                 out[lane] = 1u;",
                "the invocation",
            ),
        ];
        for (body, missing) in fixtures {
            let expected =
                [format!("a store whose index depends on {missing}, which nothing bounds")];
            assert_eq!(findings(body), expected, "{body}");
        }
    }
}
