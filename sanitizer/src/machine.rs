//! The workgroups of a dispatch, one after another, and the statements of a workgroup's
//! invocations, all in step.

use std::collections::HashMap;
use std::rc::Rc;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    AddressSpace, Barrier, Binding, Block, BuiltIn, Expression, Function, GlobalVariable, Handle,
    LocalVariable, Module, Span, Statement, SwitchValue,
};

use crate::evaluate::lane_number;
use crate::finding::{Finding, Findings, Kind};
use crate::layout::{Layout, Place, read, write};
use crate::memory::Shared;
use crate::{Buffer, Dispatch, Error};

/// Which invocations take part.
pub(crate) type Mask = Vec<bool>;

fn is_any(mask: &[bool]) -> bool {
    mask.iter().any(|lane| *lane)
}

/// `into |= mask`
fn join(into: &mut Mask, mask: &[bool]) {
    into.iter_mut().zip(mask).for_each(|(into, lane)| *into |= lane);
}

/// An expression in every invocation.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Components of all invocations, those of the first component first.
    Numbers(Rc<Vec<u64>>),
    Pointer(Rc<Pointer>),
}

/// Where each invocation points to.
#[derive(Clone, Debug)]
pub(crate) struct Pointer {
    pub(crate) object: usize,
    /// First slot.
    pub(crate) slots: Vec<Result<usize, Past>>,
}

/// An index that was past the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// Of an array whose length is that of what is bound.
    Buffer,
    /// Of anything else.
    Array,
}

/// A variable.
#[derive(Debug)]
pub(crate) enum Object {
    Shared {
        memory: Shared,
        is_workgroup: bool,
    },
    /// Of each invocation its own: as [`Value::Numbers`].
    Own(Vec<u64>),
}

impl Object {
    pub(crate) fn slots(&self, width: usize) -> usize {
        match self {
            Self::Shared { memory, .. } => memory.slots.len(),
            Self::Own(numbers) => numbers.len() / width,
        }
    }
}

/// A call of a function.
#[derive(Debug)]
pub(crate) struct Frame<'m> {
    pub(crate) function: &'m Function,
    pub(crate) info: &'m FunctionInfo,
    pub(crate) values: Vec<Option<Value>>,
    pub(crate) arguments: Vec<Value>,
    pub(crate) locals: HashMap<Handle<LocalVariable>, usize>,
    /// Who left the loop or switch, and who goes on with the next iteration, of each that is open.
    breaks: Vec<Mask>,
    continues: Vec<Mask>,
    result: Option<Vec<u64>>,
}

/// A workgroup that runs.
#[derive(Debug)]
pub(crate) struct Machine<'m> {
    pub(crate) module: &'m Module,
    infos: &'m ModuleInfo,
    pub(crate) layout: Layout<'m>,
    pub(crate) globals: HashMap<Handle<GlobalVariable>, usize>,
    pub(crate) objects: Vec<Object>,
    /// Invocations of a workgroup.
    pub(crate) width: usize,
    pub(crate) subgroup_size: usize,
    pub(crate) workgroup: u32,
    /// Barriers passed: for storage, for workgroup memory.
    pub(crate) epochs: [u32; 2],
    /// Iterations that the loops of a workgroup may still make.
    iterations: u64,
    most_iterations: u64,
    /// What reads past the end of a buffer give.
    pub(crate) past_end: u64,
    pub(crate) findings: Findings,
}

pub(crate) fn run(dispatch: &Dispatch<'_>, buffers: &mut [Buffer]) -> Result<Vec<Finding>, Error> {
    let (module, infos) = (&dispatch.shader.module, &dispatch.shader.info);
    let number = module.entry_points.iter().position(|entry| entry.name == dispatch.entry);
    let number = number.ok_or_else(|| Error::NoEntryPoint(dispatch.entry.into()))?;
    let entry = &module.entry_points[number];
    if !module.overrides.is_empty() {
        return Err(Error::unsupported("overrides".into()));
    }
    let width = entry.workgroup_size.iter().map(|size| *size as usize).product::<usize>();
    if width > MOST_INVOCATIONS {
        return Err(Error::unsupported(format!(
            "workgroups of more than {MOST_INVOCATIONS} invocations"
        )));
    }
    if !(dispatch.subgroup_size.is_power_of_two() && dispatch.subgroup_size <= 128) {
        return Err(Error::unsupported(
            "subgroups of other sizes than powers of two up to 128".into(),
        ));
    }
    let mut machine = Machine {
        module,
        infos,
        layout: Layout { types: &module.types },
        globals: HashMap::new(),
        objects: Vec::new(),
        width,
        subgroup_size: dispatch.subgroup_size,
        workgroup: 0,
        epochs: [0; 2],
        iterations: 0,
        most_iterations: dispatch.most_iterations,
        past_end: dispatch.past_end.into(),
        findings: Findings::default(),
    };
    let used = infos.get_entry_point(number);
    let bound = machine.bind(dispatch, buffers, |variable| !used[variable].is_empty())?;
    let first_own = machine.objects.len();
    let [gx, gy, gz] = dispatch.grid;
    let grid = (0..gz).flat_map(|z| (0..gy).flat_map(move |y| (0..gx).map(move |x| [x, y, z])));
    for (workgroup, place) in (0..).zip(grid) {
        machine.workgroup = workgroup;
        machine.epochs = [0; 2];
        machine.iterations = machine.most_iterations;
        machine.objects.truncate(first_own);
        machine.make_variables(dispatch.clears_workgroup_memory)?;
        let arguments =
            machine.builtins(&entry.function, entry.workgroup_size, place, dispatch.grid)?;
        let all = vec![true; width];
        match machine.call(&entry.function, used, arguments, &all) {
            // Found, and told.
            Err(Error::Endless) => break,
            ran => ran?,
        };
    }
    for (object, buffer, places) in bound {
        let Object::Shared { memory, .. } = &machine.objects[object] else { continue };
        let buffer = &mut buffers[buffer];
        for (slot, place) in
            places.into_iter().enumerate().filter(|(slot, _)| memory.is_written(*slot))
        {
            write(&mut buffer.bytes, place, memory.slots[slot]);
            buffer.written[place.byte..place.byte + usize::from(place.scalar.width)].fill(true);
        }
    }
    Ok(machine.findings.into_all())
}

const MOST_INVOCATIONS: usize = 1024;
/// Numbers of a variable, at most.
const MOST_SLOTS: usize = 1 << 24;

/// Whether a shader may write a variable that is bound.
pub(crate) fn may_write(variable: &GlobalVariable) -> bool {
    matches!(
        variable.space,
        AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE)
    )
}

/// A buffer that an object stands for, and where its slots lie in it.
type Bound = (usize, usize, Vec<Place>);

impl<'m> Machine<'m> {
    /// Makes objects of what is bound, and tells which are written back.
    fn bind(
        &mut self,
        dispatch: &Dispatch<'_>,
        buffers: &[Buffer],
        is_used: impl Fn(Handle<GlobalVariable>) -> bool,
    ) -> Result<Vec<Bound>, Error> {
        let mut bound = Vec::new();
        let mut taken: Vec<(&crate::Binding, bool)> = Vec::new();
        for (handle, variable) in self.module.global_variables.iter() {
            let Some(place) = variable.binding.filter(|_| is_used(handle)) else { continue };
            let what = variable.name.clone().unwrap_or_default();
            let wrong = |why: &str| Error::Binding { what: what.clone(), why: why.into() };
            let is_it = |b: &&crate::Binding| (b.group, b.binding) == (place.group, place.binding);
            let binding =
                dispatch.bindings.iter().find(is_it).ok_or_else(|| wrong("bound to nothing"))?;
            let buffer =
                buffers.get(binding.buffer).ok_or_else(|| wrong("there is no such buffer"))?;
            if binding.range.end > buffer.bytes.len() || binding.range.start > binding.range.end {
                return Err(wrong("bound past the end of the buffer"));
            }
            let is_written = may_write(variable);
            let is_shared = |(other, writes): &(&crate::Binding, bool)| {
                let (a, b) = (&binding.range, &other.range);
                let overlap = binding.buffer == other.buffer && a.start < b.end && b.start < a.end;
                overlap && (is_written || *writes)
            };
            if taken.iter().any(is_shared) {
                return Err(wrong("overlaps another binding, and one of them is written"));
            }
            taken.push((binding, is_written));
            self.slots_of(variable.ty)?;
            let places = self.layout.places(variable.ty, binding.range.start, binding.range.end)?;
            if places
                .iter()
                .any(|place| place.byte + usize::from(place.scalar.width) > binding.range.end)
            {
                return Err(wrong("larger than what is bound"));
            }
            let slots = places.iter().map(|place| read(&buffer.bytes, *place)).collect();
            let memory = Shared::new(slots, |slot| {
                let Place { byte, scalar } = places[slot];
                buffer.written[byte..byte + usize::from(scalar.width)]
                    .iter()
                    .all(|written| *written)
            });
            self.globals.insert(handle, self.objects.len());
            if is_written {
                bound.push((self.objects.len(), binding.buffer, places));
            }
            self.objects.push(Object::Shared { memory, is_workgroup: false });
        }
        Ok(bound)
    }

    /// The variables that each workgroup has anew.
    fn make_variables(&mut self, clears_workgroup_memory: bool) -> Result<(), Error> {
        for (handle, variable) in self.module.global_variables.iter() {
            let object = match variable.space {
                AddressSpace::WorkGroup => {
                    let slots = vec![0; self.slots_of(variable.ty)?];
                    Object::Shared {
                        memory: Shared::new(slots, |_| clears_workgroup_memory),
                        is_workgroup: true,
                    }
                }
                AddressSpace::Private => Object::Own(match variable.init {
                    Some(init) => self.spread(&self.constant(init)?),
                    None => vec![0; self.slots_of(variable.ty)? * self.width],
                }),
                AddressSpace::Uniform | AddressSpace::Storage { .. } => continue,
                other => return Err(Error::unsupported(format!("variables in {other:?}"))),
            };
            self.globals.insert(handle, self.objects.len());
            self.objects.push(object);
        }
        Ok(())
    }

    /// Slots of a variable, which are made.
    fn slots_of(&self, ty: Handle<naga::Type>) -> Result<usize, Error> {
        let slots = self.layout.slots_of(ty)?;
        match slots > MOST_SLOTS {
            true => {
                Err(Error::unsupported(format!("a variable of more than {MOST_SLOTS} numbers")))
            }
            false => Ok(slots),
        }
    }

    fn builtins(
        &self,
        function: &Function,
        size: [u32; 3],
        workgroup: [u32; 3],
        grid: [u32; 3],
    ) -> Result<Vec<Value>, Error> {
        let subgroup = lane_number(self.subgroup_size);
        let lanes = 0..lane_number(self.width);
        let each = |of: &dyn Fn(u32) -> u32| {
            lanes.clone().map(|lane| u64::from(of(lane))).collect::<Vec<_>>()
        };
        let local =
            |lane: u32| [lane % size[0], lane / size[0] % size[1], lane / (size[0] * size[1])];
        let three = |of: &dyn Fn(u32) -> [u32; 3]| {
            (0..3).flat_map(|axis| each(&|lane| of(lane)[axis])).collect()
        };
        let argument = |binding: &Option<Binding>| match binding {
            Some(Binding::BuiltIn(builtin)) => Ok(match builtin {
                BuiltIn::LocalInvocationIndex => each(&|lane| lane),
                BuiltIn::LocalInvocationId => three(&local),
                BuiltIn::WorkGroupId => three(&|_| workgroup),
                BuiltIn::NumWorkGroups => three(&|_| grid),
                BuiltIn::GlobalInvocationId => three(&|lane| {
                    std::array::from_fn(|axis| {
                        workgroup[axis].wrapping_mul(size[axis]).wrapping_add(local(lane)[axis])
                    })
                }),
                BuiltIn::SubgroupInvocationId => each(&|lane| lane % subgroup),
                BuiltIn::SubgroupId => each(&|lane| lane / subgroup),
                BuiltIn::SubgroupSize => each(&|_| subgroup),
                BuiltIn::NumSubgroups => each(&|_| lane_number(self.width).div_ceil(subgroup)),
                other => return Err(Error::unsupported(format!("{other:?}"))),
            }),
            other => Err(Error::unsupported(format!("an argument bound to {other:?}"))),
        };
        let all = function
            .arguments
            .iter()
            .map(|a| argument(&a.binding).map(|all| Value::Numbers(Rc::new(all))));
        all.collect()
    }

    pub(crate) fn call(
        &mut self,
        function: &'m Function,
        info: &'m FunctionInfo,
        arguments: Vec<Value>,
        active: &Mask,
    ) -> Result<Option<Value>, Error> {
        let mut frame = Frame {
            function,
            info,
            values: vec![None; function.expressions.len()],
            arguments,
            locals: HashMap::new(),
            breaks: Vec::new(),
            continues: Vec::new(),
            result: None,
        };
        let first = self.objects.len();
        for (handle, variable) in function.local_variables.iter() {
            let init = match variable.init {
                Some(init) => {
                    let value = self.value(&mut frame, init, active)?;
                    self.numbers(&value)?.to_vec()
                }
                None => vec![0; self.slots_of(variable.ty)? * self.width],
            };
            frame.locals.insert(handle, self.objects.len());
            self.objects.push(Object::Own(init));
        }
        self.block(&mut frame, &function.body, active.clone())?;
        self.objects.truncate(first);
        Ok(frame.result.map(|result| Value::Numbers(Rc::new(result))))
    }

    /// Runs a block, and tells who is left at its end.
    fn block(
        &mut self,
        frame: &mut Frame<'m>,
        block: &'m Block,
        mut active: Mask,
    ) -> Result<Mask, Error> {
        for (statement, span) in block.span_iter() {
            if !is_any(&active) {
                break;
            }
            active = self.statement(frame, statement, *span, active)?;
        }
        Ok(active)
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'m>,
        statement: &'m Statement,
        span: Span,
        active: Mask,
    ) -> Result<Mask, Error> {
        let width = self.width;
        let nobody = || vec![false; width];
        match *statement {
            Statement::Emit(ref range) => {
                for handle in range.clone() {
                    let value = self.compute(frame, handle, &active)?;
                    frame.values[handle.index()] = Some(value);
                }
            }
            Statement::Block(ref block) => return self.block(frame, block, active),
            Statement::If { condition, ref accept, ref reject } => {
                let condition = self.condition(frame, condition, &active)?;
                let [yes, no] = [true, false].map(|side| {
                    active
                        .iter()
                        .zip(&condition)
                        .map(|(lane, c)| *lane && *c == side)
                        .collect::<Mask>()
                });
                let mut left = self.block(frame, accept, yes)?;
                join(&mut left, &self.block(frame, reject, no)?);
                return Ok(left);
            }
            Statement::Switch { selector, ref cases } => {
                return self.switch(frame, selector, cases, &active);
            }
            Statement::Loop { ref body, ref continuing, break_if } => {
                return self.looped(frame, [body, continuing], break_if, span, active);
            }
            Statement::Break => {
                if let Some(breaks) = frame.breaks.last_mut() {
                    join(breaks, &active);
                }
                return Ok(nobody());
            }
            Statement::Continue => {
                if let Some(continues) = frame.continues.last_mut() {
                    join(continues, &active);
                }
                return Ok(nobody());
            }
            Statement::Return { value } => {
                if let Some(value) = value {
                    let value = self.value(frame, value, &active)?;
                    let value = self.numbers(&value)?;
                    let result = frame.result.get_or_insert_with(|| vec![0; value.len()]);
                    let lanes = result.iter_mut().zip(value.iter()).enumerate();
                    lanes
                        .filter(|(i, _)| active[i % self.width])
                        .for_each(|(_, (into, value))| *into = *value);
                }
                return Ok(nobody());
            }
            Statement::ControlBarrier(flags)
                if (Barrier::STORAGE | Barrier::WORK_GROUP).contains(flags) =>
            {
                self.barrier(flags, span, &active);
            }
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let is_atomic = self.is_atomic(frame, pointer);
                let pointer = self.value(frame, pointer, &active)?;
                let value = self.value(frame, value, &active)?;
                self.store(&pointer, &value, (span, is_atomic), &active)?;
            }
            Statement::Atomic { pointer, ref fun, value, result } => {
                self.atomic(frame, pointer, fun, (value, result), span, &active)?;
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP, span, &active);
                let loaded = self.load(frame, pointer, span, &active)?;
                self.barrier(Barrier::WORK_GROUP, span, &active);
                frame.values[result.index()] = Some(loaded);
            }
            Statement::Call { function, ref arguments, result } => {
                let arguments: Result<_, _> =
                    arguments.iter().map(|a| self.value(frame, *a, &active)).collect();
                let (callee, infos) = (&self.module.functions[function], &self.infos[function]);
                let value = self.call(callee, infos, arguments?, &active)?;
                if let (Some(result), Some(value)) = (result, value) {
                    frame.values[result.index()] = Some(value);
                }
            }
            Statement::SubgroupBallot { .. }
            | Statement::SubgroupGather { .. }
            | Statement::SubgroupCollectiveOperation { .. } => {
                self.subgroup(frame, statement, span, &active)?
            }
            Statement::CooperativeStore { target, ref data } => {
                self.store_matrix(frame, target, data, span, &active)?;
            }
            ref other => return Err(Error::unsupported(format!("{other:?}"))),
        }
        Ok(active)
    }

    fn switch(
        &mut self,
        frame: &mut Frame<'m>,
        selector: Handle<Expression>,
        cases: &'m [naga::SwitchCase],
        active: &Mask,
    ) -> Result<Mask, Error> {
        let selector = self.value(frame, selector, active)?;
        let selector = self.numbers(&selector)?;
        let is_case = |case: &naga::SwitchCase, value: u64| match case.value {
            SwitchValue::I32(number) => u64::from(number.cast_unsigned()) == value,
            SwitchValue::U32(number) => u64::from(number) == value,
            SwitchValue::Default => false,
        };
        let default = cases.iter().position(|case| case.value == SwitchValue::Default);
        let target =
            |lane: usize| cases.iter().position(|case| is_case(case, selector[lane])).or(default);
        let targets: Vec<_> = (0..self.width).map(target).collect();
        frame.breaks.push(vec![false; self.width]);
        let mut left: Mask =
            (0..self.width).map(|lane| active[lane] && targets[lane].is_none()).collect();
        let mut falling = vec![false; self.width];
        for (number, case) in cases.iter().enumerate() {
            let enters =
                |lane: usize| active[lane] && targets[lane] == Some(number) || falling[lane];
            let out = self.block(frame, &case.body, (0..self.width).map(enters).collect())?;
            falling = vec![false; self.width];
            join(if case.fall_through { &mut falling } else { &mut left }, &out);
        }
        join(&mut left, &frame.breaks.pop().unwrap_or_default());
        Ok(left)
    }

    fn looped(
        &mut self,
        frame: &mut Frame<'m>,
        [body, continuing]: [&'m Block; 2],
        break_if: Option<Handle<Expression>>,
        span: Span,
        mut active: Mask,
    ) -> Result<Mask, Error> {
        frame.breaks.push(vec![false; self.width]);
        while is_any(&active) {
            if self.iterations == 0 {
                let lane = active.iter().position(|lane| *lane).unwrap_or(0);
                self.find(Kind::EndlessLoop, span, lane);
                return Err(Error::Endless);
            }
            self.iterations -= 1;
            frame.continues.push(vec![false; self.width]);
            active = self.block(frame, body, active)?;
            join(&mut active, &frame.continues.pop().unwrap_or_default());
            active = self.block(frame, continuing, active)?;
            if let Some(condition) = break_if.filter(|_| is_any(&active)) {
                let condition = self.condition(frame, condition, &active)?;
                let leaves: Mask =
                    active.iter().zip(&condition).map(|(lane, c)| *lane && *c).collect();
                if let Some(breaks) = frame.breaks.last_mut() {
                    join(breaks, &leaves);
                }
                active.iter_mut().zip(leaves).for_each(|(lane, leaves)| *lane &= !leaves);
            }
        }
        Ok(frame.breaks.pop().unwrap_or_default())
    }

    fn condition(
        &mut self,
        frame: &mut Frame<'m>,
        handle: Handle<Expression>,
        active: &Mask,
    ) -> Result<Mask, Error> {
        let value = self.value(frame, handle, active)?;
        Ok(self.numbers(&value)?.iter().map(|bit| *bit != 0).collect())
    }

    fn barrier(&mut self, flags: Barrier, span: Span, active: &Mask) {
        if let Some(lane) = active.iter().position(|lane| !lane) {
            self.find(Kind::DivergentBarrier, span, lane);
        }
        self.epochs[0] += u32::from(flags.contains(Barrier::STORAGE));
        self.epochs[1] += u32::from(flags.contains(Barrier::WORK_GROUP));
    }
}

/// Calls `visit` with every barrier of a module, in the order of its functions.
pub(crate) fn for_each_barrier(module: &Module, visit: &mut dyn FnMut(Span)) {
    fn walk(block: &Block, visit: &mut dyn FnMut(Span)) {
        for (statement, span) in block.span_iter() {
            match statement {
                Statement::ControlBarrier(_) => visit(*span),
                Statement::Block(block) => walk(block, visit),
                Statement::If { accept, reject, .. } => {
                    [accept, reject].into_iter().for_each(|b| walk(b, visit))
                }
                Statement::Loop { body, continuing, .. } => {
                    [body, continuing].into_iter().for_each(|block| walk(block, visit));
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| walk(&case.body, visit))
                }
                _ => {}
            }
        }
    }
    module.functions.iter().for_each(|(_, function)| walk(&function.body, visit));
    module.entry_points.iter().for_each(|entry| walk(&entry.function.body, visit));
}

/// Takes a barrier out, and tells where it was.
pub(crate) fn remove_barrier(module: &mut Module, number: usize) -> Option<Span> {
    /// Takes out the barrier that `left` counts down to.
    fn walk(block: &mut Block, left: &mut usize) -> Option<Span> {
        let mut found = None;
        for (place, (statement, span)) in block.span_iter_mut().enumerate() {
            let inner: Vec<&mut Block> = match statement {
                Statement::ControlBarrier(_) if *left == 0 => {
                    found = Some((place, span.map_or(Span::default(), |span| *span)));
                    break;
                }
                Statement::ControlBarrier(_) => {
                    *left -= 1;
                    continue;
                }
                Statement::Block(block) => vec![block],
                Statement::If { accept, reject, .. } => vec![accept, reject],
                Statement::Loop { body, continuing, .. } => vec![body, continuing],
                Statement::Switch { cases, .. } => {
                    cases.iter_mut().map(|case| &mut case.body).collect()
                }
                _ => continue,
            };
            for block in inner {
                let span = walk(block, left);
                if span.is_some() {
                    return span;
                }
            }
        }
        let (place, span) = found?;
        block.cull(place..=place);
        Some(span)
    }
    let mut left = number;
    for (_, function) in module.functions.iter_mut() {
        if let Some(span) = walk(&mut function.body, &mut left) {
            return Some(span);
        }
    }
    module.entry_points.iter_mut().find_map(|entry| walk(&mut entry.function.body, &mut left))
}
