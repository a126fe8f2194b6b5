//! What the values of a shader are computed from, followed through locals, pointers to them and
//! calls.
//!
//! Every function is looked at once for each combination of what its arguments are computed from,
//! so that a helper called with a constant in one place and with data in another is judged in both.
//! Order of statements does not count: a local is computed from all that is ever stored in it. Only
//! operands count, not the branch that chose among values.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::{BitAnd, BitOr, BitOrAssign};
use std::rc::Rc;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, Module, Statement,
};

/// What a value may be computed from, beside constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sources(u8);

impl Sources {
    pub(crate) const NONE: Self = Self(0);
    /// The parameter block and the size of the dispatch: the host chose them.
    pub(crate) const PARAMS: Self = Self(1);
    pub(crate) const WORKGROUP_ID: Self = Self(2);
    pub(crate) const LOCAL_ID: Self = Self(4);
    /// Memory that shaders write, or that holds a caller's data.
    pub(crate) const DATA: Self = Self(8);
    /// All that differs between invocations.
    pub(crate) const WILD: Self = Self(2 | 4 | 8);

    pub(crate) fn is_wild(self) -> bool {
        self & Self::WILD != Self::NONE
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Names, for messages.
    pub(crate) fn names(self) -> String {
        let all = [
            (Self::PARAMS, "parameters"),
            (Self::WORKGROUP_ID, "the workgroup"),
            (Self::LOCAL_ID, "the invocation"),
            (Self::DATA, "data"),
        ];
        let named = all.iter().filter(|(source, _)| self & *source != Self::NONE);
        named.map(|(_, name)| *name).collect::<Vec<_>>().join(" and ")
    }

    fn of_builtin(builtin: BuiltIn) -> Self {
        match builtin {
            BuiltIn::NumWorkGroups | BuiltIn::WorkGroupSize => Self::PARAMS,
            BuiltIn::WorkGroupId => Self::WORKGROUP_ID,
            BuiltIn::GlobalInvocationId => Self::WORKGROUP_ID | Self::LOCAL_ID,
            _ => Self::LOCAL_ID,
        }
    }

    /// What a load gives. Where in memory it reads does not tell what it finds there, so indices do
    /// not count.
    fn of_memory(space: AddressSpace) -> Option<Self> {
        match space {
            AddressSpace::Function | AddressSpace::Uniform => None,
            _ => Some(Self::DATA),
        }
    }
}

impl BitOr for Sources {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Sources {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOrAssign for Sources {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl FromIterator<Sources> for Sources {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, BitOr::bitor)
    }
}

/// A function, called with arguments of known sources.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) function: &'a Function,
    pub(crate) info: &'a FunctionInfo,
    expressions: Vec<Sources>,
    /// Arguments; pointers have the sources of what they point to, in the end with what the
    /// function stores there.
    arguments: Vec<Sources>,
    locals: HashMap<Handle<naga::LocalVariable>, Sources>,
    result: Sources,
}

impl Frame<'_> {
    /// What an expression is computed from; for a pointer, what it points to.
    pub(crate) fn of(&self, expression: Handle<Expression>) -> Sources {
        self.expressions[expression.index()]
    }

    pub(crate) fn all(&self, expressions: &[Handle<Expression>]) -> Vec<Sources> {
        expressions.iter().map(|&expression| self.of(expression)).collect()
    }

    fn union(&self, expressions: impl IntoIterator<Item = Handle<Expression>>) -> Sources {
        expressions.into_iter().map(|expression| self.of(expression)).collect()
    }

    /// Adds to what an expression, or the variable that it points into, is computed from. Says
    /// whether that is news.
    fn add(&mut self, expression: Handle<Expression>, sources: Sources) -> bool {
        let place = match self.function.expressions[expression] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                return self.add(base, sources);
            }
            Expression::LocalVariable(local) => self.locals.entry(local).or_default(),
            Expression::FunctionArgument(argument) => &mut self.arguments[argument as usize],
            // Memory has the sources of its space, whatever is stored there.
            Expression::GlobalVariable(_) => return false,
            _ => &mut self.expressions[expression.index()],
        };
        let before = *place;
        *place |= sources;
        *place != before
    }
}

/// A function, and what its arguments are computed from.
pub(crate) type Call = (Handle<Function>, Vec<Sources>);

/// The sources of a module's values.
pub(crate) struct Flow<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    callees: RefCell<HashMap<Call, Rc<Frame<'a>>>>,
}

impl<'a> Flow<'a> {
    pub(crate) fn new(module: &'a Module, info: &'a ModuleInfo) -> Self {
        Self { module, info, callees: RefCell::default() }
    }

    /// The entry point.
    pub(crate) fn entry(&self) -> Rc<Frame<'a>> {
        let function = &self.module.entry_points[0].function;
        let builtin = |binding: &Option<Binding>| match binding {
            Some(Binding::BuiltIn(builtin)) => Sources::of_builtin(*builtin),
            _ => Sources::LOCAL_ID | Sources::WORKGROUP_ID,
        };
        let arguments =
            function.arguments.iter().map(|argument| builtin(&argument.binding)).collect();
        Rc::new(self.frame(function, self.info.get_entry_point(0), arguments))
    }

    /// A function called with arguments of these sources. WGSL has no recursion, so this ends.
    pub(crate) fn callee(
        &self,
        function: Handle<Function>,
        arguments: Vec<Sources>,
    ) -> Rc<Frame<'a>> {
        let key = (function, arguments);
        if let Some(frame) = self.callees.borrow().get(&key) {
            return frame.clone();
        }
        let frame = Rc::new(self.frame(
            &self.module.functions[function],
            &self.info[function],
            key.1.clone(),
        ));
        self.callees.borrow_mut().insert(key, frame.clone());
        frame
    }

    /// Every function that the entry point reaches, once for each combination of sources that its
    /// arguments take.
    pub(crate) fn frames(&self) -> Vec<Rc<Frame<'a>>> {
        let mut waiting = vec![self.entry()];
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        while let Some(frame) = waiting.pop() {
            each_statement(&frame.function.body, &mut |statement| {
                if let Statement::Call { function, arguments, .. } = statement {
                    let sources = frame.all(arguments);
                    if seen.insert((*function, sources.clone())) {
                        waiting.push(self.callee(*function, sources));
                    }
                }
            });
            all.push(frame);
        }
        all
    }

    fn frame(
        &self,
        function: &'a Function,
        info: &'a FunctionInfo,
        arguments: Vec<Sources>,
    ) -> Frame<'a> {
        let expressions = vec![Sources::NONE; function.expressions.len()];
        let mut frame = Frame {
            function,
            info,
            expressions,
            arguments,
            locals: HashMap::new(),
            result: Sources::NONE,
        };
        // Sources only ever grow, so this ends.
        while self.pass(&mut frame) {}
        frame
    }

    /// One round over expressions and statements. Says whether anything was added.
    fn pass(&self, frame: &mut Frame<'_>) -> bool {
        let mut has_grown = false;
        for (local, variable) in frame.function.local_variables.iter() {
            let sources = frame.union(variable.init);
            let place = frame.locals.entry(local).or_default();
            has_grown |= *place | sources != *place;
            *place |= sources;
        }
        for (handle, expression) in frame.function.expressions.iter() {
            let sources = self.expression(frame, expression);
            let place = &mut frame.expressions[handle.index()];
            has_grown |= *place | sources != *place;
            *place |= sources;
        }
        each_statement(&frame.function.body, &mut |statement| {
            has_grown |= self.statement(frame, statement)
        });
        has_grown
    }

    fn expression(&self, frame: &Frame<'_>, expression: &Expression) -> Sources {
        match expression {
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => {
                Sources::NONE
            }
            Expression::Override(_) | Expression::ArrayLength(_) => Sources::PARAMS,
            Expression::FunctionArgument(argument) => frame.arguments[*argument as usize],
            Expression::LocalVariable(local) => {
                frame.locals.get(local).copied().unwrap_or_default()
            }
            Expression::GlobalVariable(global) => match self.module.global_variables[*global].space
            {
                AddressSpace::Uniform => Sources::PARAMS,
                _ => Sources::DATA,
            },
            Expression::Load { pointer } => {
                let space = frame.info[*pointer].ty.inner_with(&self.module.types).pointer_space();
                space.and_then(Sources::of_memory).unwrap_or_else(|| frame.of(*pointer))
            }
            Expression::Compose { components, .. } => frame.union(components.iter().copied()),
            Expression::Access { base, index } => frame.union([*base, *index]),
            Expression::AccessIndex { base, .. } => frame.of(*base),
            Expression::Splat { value, .. } => frame.of(*value),
            Expression::Swizzle { vector, .. } => frame.of(*vector),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => frame.of(*expr),
            Expression::Binary { left, right, .. } => frame.union([*left, *right]),
            Expression::Select { condition, accept, reject } => {
                frame.union([*condition, *accept, *reject])
            }
            Expression::Relational { argument, .. } => frame.of(*argument),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                frame.union([Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten())
            }
            // Set by its statement.
            Expression::CallResult(_) => Sources::NONE,
            // Results of atomics, and what compute kernels here do not use.
            _ => Sources::DATA,
        }
    }

    fn statement(&self, frame: &mut Frame<'_>, statement: &Statement) -> bool {
        match statement {
            Statement::Store { pointer, value } => frame.add(*pointer, frame.of(*value)),
            Statement::Return { value: Some(value) } => {
                let before = frame.result;
                frame.result |= frame.of(*value);
                frame.result != before
            }
            Statement::Call { function, arguments, result } => {
                let callee = self.callee(*function, frame.all(arguments));
                let mut has_grown = result.is_some_and(|result| frame.add(result, callee.result));
                for (&argument, &sources) in arguments.iter().zip(&callee.arguments) {
                    let is_pointer = frame.info[argument]
                        .ty
                        .inner_with(&self.module.types)
                        .pointer_space()
                        .is_some();
                    has_grown |= is_pointer && frame.add(argument, sources);
                }
                has_grown
            }
            _ => false,
        }
    }
}

/// Calls `visit` with every statement of a block, inner ones too.
pub(crate) fn each_statement(block: &Block, visit: &mut impl FnMut(&Statement)) {
    for statement in block {
        visit(statement);
        match statement {
            Statement::Block(inner) => each_statement(inner, visit),
            Statement::If { accept, reject, .. } => {
                [accept, reject].into_iter().for_each(|b| each_statement(b, visit))
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| each_statement(&case.body, visit))
            }
            Statement::Loop { body, continuing, .. } => {
                [body, continuing].into_iter().for_each(|b| each_statement(b, visit));
            }
            _ => {}
        }
    }
}

#[test]
fn sources_are_followed_through_locals_pointers_and_calls() {
    let helpers = "fn twice(v: u32) -> u32 { return 2u * v; }
                   fn put(p: ptr<function, u32>, v: u32) { *p = v; }
                   fn nested(p: ptr<function, u32>) { put(p, params.n); }";
    let group_and_lane = Sources::WORKGROUP_ID | Sources::LOCAL_ID;
    let fixtures = [
        ("3u", Sources::NONE),
        ("twice(4u)", Sources::NONE),
        ("twice(params.n) + grid.x", Sources::PARAMS),
        ("twice(lane)", Sources::LOCAL_ID),
        ("group.x + 1u", Sources::WORKGROUP_ID),
        ("global.x", group_and_lane),
        ("min(lane, select(params.n, 1u, group.y > 2u))", group_and_lane | Sources::PARAMS),
        ("data[lane]", Sources::DATA),
        ("shared_data[lane]", Sources::DATA),
        ("atomicAdd(&counts[0], 1u)", Sources::DATA),
        ("later", Sources::LOCAL_ID),
        ("pointed", Sources::PARAMS | Sources::DATA),
    ];
    for (expression, expected) in fixtures {
        let body = format!(
            "var later = 0u; \
             for (var i = 0u; i < 2u; i++) {{ let copy = later; later = copy + lane; }}
             var pointed = data[0]; nested(&pointed);
             out[0] = {expression};"
        );
        let (module, info) = super::fixture_of(helpers, &body);
        let entry = Flow::new(&module, &info).entry();
        let Some(Statement::Store { value, .. }) = entry
            .function
            .body
            .iter()
            .rfind(|statement| matches!(statement, Statement::Store { .. }))
        else {
            panic!("the fixture ends with a store");
        };
        assert_eq!(entry.of(*value), expected, "{expression}: {}", entry.of(*value).names());
    }
}
