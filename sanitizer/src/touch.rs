//! What reads and writes memory, and what invocations of a subgroup tell each other.

use std::rc::Rc;

use naga::{
    AtomicFunction, BinaryOperator, CollectiveOperation, CooperativeData, Expression, GatherMode,
    Handle, MathFunction, Scalar, Span, Statement, SubgroupOperation, TypeInner,
};

use crate::Error;
use crate::evaluate::lane_number;
use crate::finding::Kind;
use crate::machine::{Frame, Machine, Mask, Object, Past, Pointer, Value};
use crate::memory::{Access, Seen};
use crate::value;

/// An access that is no atomic one, or one that is.
pub(crate) type IsAtomic = bool;

impl<'m> Machine<'m> {
    /// Reads the scalar `component` past where an invocation points to.
    fn read(
        &mut self,
        pointer: &Pointer,
        component: usize,
        lane: usize,
        (span, is_atomic): (Span, IsAtomic),
    ) -> u64 {
        let slot = match self.slot(pointer, component, lane) {
            Ok(slot) => slot,
            Err(past) => {
                self.find(
                    if past == Past::Buffer { Kind::ReadPastEnd } else { Kind::OutOfBounds },
                    span,
                    lane,
                );
                return self.past_end;
            }
        };
        let access = self.access_by(pointer.object, lane, span, is_atomic);
        let (bits, seen) = match &mut self.objects[pointer.object] {
            Object::Own(numbers) => return numbers[slot * self.width + lane],
            Object::Shared { memory, .. } => (memory.slots[slot], memory.note_read(slot, access)),
        };
        self.tell(seen, access);
        bits
    }

    fn write(
        &mut self,
        pointer: &Pointer,
        component: usize,
        lane: usize,
        bits: u64,
        (span, is_atomic): (Span, IsAtomic),
    ) {
        let Ok(slot) = self.slot(pointer, component, lane) else {
            self.find(Kind::OutOfBounds, span, lane);
            return;
        };
        let access = self.access_by(pointer.object, lane, span, is_atomic);
        let seen = match &mut self.objects[pointer.object] {
            Object::Own(numbers) => {
                numbers[slot * self.width + lane] = bits;
                return;
            }
            Object::Shared { memory, .. } => {
                memory.slots[slot] = bits;
                memory.note_write(slot, access)
            }
        };
        self.tell(seen, access);
    }

    /// Where in its object.
    fn slot(&self, pointer: &Pointer, component: usize, lane: usize) -> Result<usize, Past> {
        let slot = pointer.slots[lane]?.saturating_add(component);
        if slot < self.objects[pointer.object].slots(self.width) {
            Ok(slot)
        } else {
            Err(Past::Array)
        }
    }

    fn access_by(&self, object: usize, lane: usize, span: Span, is_atomic: IsAtomic) -> Access {
        let is_workgroup =
            matches!(self.objects[object], Object::Shared { is_workgroup: true, .. });
        let epoch = self.epochs[usize::from(is_workgroup)];
        Access { workgroup: self.workgroup, lane: lane_number(lane), epoch, is_atomic, span }
    }

    fn tell(&mut self, seen: Seen, access: Access) {
        let invocation = |access: Access| [access.workgroup, access.lane];
        if let Some(rival) = seen.rival {
            let other = Some((rival.span, invocation(rival)));
            self.findings.add(Kind::Race, access.span, invocation(access), other);
        }
        if seen.is_unwritten {
            self.findings.add(Kind::Unwritten, access.span, invocation(access), None);
        }
    }

    /// Whether a pointer is to an atomic number: `atomicLoad` and `atomicStore` are loads and
    /// stores through one.
    pub(crate) fn is_atomic(&self, frame: &Frame<'m>, pointer: Handle<Expression>) -> IsAtomic {
        match *self.inner(frame, pointer) {
            TypeInner::Pointer { base, .. } => {
                matches!(self.module.types[base].inner, TypeInner::Atomic(_))
            }
            _ => false,
        }
    }

    pub(crate) fn load(
        &mut self,
        frame: &mut Frame<'m>,
        pointer: Handle<Expression>,
        span: Span,
        active: &Mask,
    ) -> Result<Value, Error> {
        let is_atomic = self.is_atomic(frame, pointer);
        let slots = match *self.inner(frame, pointer) {
            TypeInner::Pointer { base, .. } => self.layout.slots_of(base)?,
            TypeInner::ValuePointer { size, .. } => size.map_or(1, |size| size as usize),
            ref other => return Err(Error::unsupported(format!("a load through {other:?}"))),
        };
        let value = self.value(frame, pointer, active)?;
        let pointer = Rc::clone(self.pointer(&value)?);
        let mut numbers = vec![0; slots * self.width];
        for (component, numbers) in numbers.chunks_exact_mut(self.width).enumerate() {
            for (lane, number) in numbers.iter_mut().enumerate().filter(|(lane, _)| active[*lane]) {
                *number = self.read(&pointer, component, lane, (span, is_atomic));
            }
        }
        Ok(Value::Numbers(Rc::new(numbers)))
    }

    pub(crate) fn store(
        &mut self,
        pointer: &Value,
        value: &Value,
        how: (Span, IsAtomic),
        active: &Mask,
    ) -> Result<(), Error> {
        let (pointer, numbers) =
            (Rc::clone(self.pointer(pointer)?), Rc::clone(self.numbers(value)?));
        let width = self.width;
        for (i, bits) in numbers.iter().enumerate().filter(|(i, _)| active[i % width]) {
            self.write(&pointer, i / width, i % width, *bits, how);
        }
        Ok(())
    }

    pub(crate) fn atomic(
        &mut self,
        frame: &mut Frame<'m>,
        pointer: Handle<Expression>,
        fun: &AtomicFunction,
        (value, result): (Handle<Expression>, Option<Handle<Expression>>),
        span: Span,
        active: &Mask,
    ) -> Result<(), Error> {
        let scalar = self.scalar(frame, value)?;
        let pointer = self.value(frame, pointer, active)?;
        let pointer = Rc::clone(self.pointer(&pointer)?);
        let numbers = self.numbers_of(frame, value, active)?;
        let compare = match fun {
            AtomicFunction::Exchange { compare: Some(compare) } => {
                Some(self.numbers_of(frame, *compare, active)?)
            }
            _ => None,
        };
        // What was there; after comparing also whether it was exchanged.
        let mut old = vec![0; self.width * if compare.is_some() { 2 } else { 1 }];
        for lane in (0..self.width).filter(|lane| active[*lane]) {
            let before = self.read(&pointer, 0, lane, (span, true));
            let with = numbers[lane];
            old[lane] = before;
            let after = match (fun, &compare) {
                (AtomicFunction::Exchange { .. }, Some(compare)) => {
                    let is_equal = before == compare[lane];
                    old[self.width + lane] = u64::from(is_equal);
                    if is_equal { with } else { before }
                }
                (AtomicFunction::Exchange { .. }, None) => with,
                (AtomicFunction::Min, _) => {
                    value::math(MathFunction::Min, scalar, &[before, with])?
                }
                (AtomicFunction::Max, _) => {
                    value::math(MathFunction::Max, scalar, &[before, with])?
                }
                (AtomicFunction::Add, _) => combined(BinaryOperator::Add, scalar, before, with)?,
                (AtomicFunction::Subtract, _) => {
                    combined(BinaryOperator::Subtract, scalar, before, with)?
                }
                (AtomicFunction::And, _) => before & with,
                (AtomicFunction::InclusiveOr, _) => before | with,
                (AtomicFunction::ExclusiveOr, _) => before ^ with,
            };
            self.write(&pointer, 0, lane, after, (span, true));
        }
        if let Some(result) = result {
            frame.values[result.index()] = Some(Value::Numbers(Rc::new(old)));
        }
        Ok(())
    }

    pub(crate) fn subgroup(
        &mut self,
        frame: &mut Frame<'m>,
        statement: &Statement,
        span: Span,
        active: &Mask,
    ) -> Result<(), Error> {
        let (result, numbers) = match *statement {
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = match predicate {
                    Some(predicate) => self.numbers_of(frame, predicate, active)?,
                    None => Rc::new(vec![1; self.width]),
                };
                let mut numbers = vec![0; 4 * self.width];
                for lane in 0..self.width {
                    let first = lane - lane % self.subgroup_size;
                    let last = (first + self.subgroup_size).min(self.width);
                    for other in
                        (first..last).filter(|other| active[*other] && predicate[*other] != 0)
                    {
                        let bit = other - first;
                        numbers[bit / 32 * self.width + lane] |= 1 << (bit % 32);
                    }
                }
                (result, numbers)
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let numbers = self.numbers_of(frame, argument, active)?;
                let sources = self.sources(frame, mode, span, active)?;
                let at = |i: usize| {
                    sources[i % self.width].map_or(0, |lane| numbers[i - i % self.width + lane])
                };
                (result, (0..numbers.len()).map(at).collect())
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let scalar = self.scalar(frame, argument)?;
                let numbers = self.numbers_of(frame, argument, active)?;
                let mut all = vec![0; numbers.len()];
                for i in 0..numbers.len() {
                    let lane = i % self.width;
                    let first = lane - lane % self.subgroup_size;
                    let last = match collective_op {
                        CollectiveOperation::Reduce => (first + self.subgroup_size).min(self.width),
                        CollectiveOperation::InclusiveScan => lane + 1,
                        CollectiveOperation::ExclusiveScan => lane,
                    };
                    let mut sum = None;
                    for other in (first..last).filter(|other| active[*other]) {
                        let bits = numbers[i - lane + other];
                        sum = Some(match sum {
                            None => bits,
                            Some(sum) => collected(op, scalar, sum, bits)?,
                        });
                    }
                    all[i] = match sum {
                        Some(sum) => sum,
                        None => neutral(op, scalar)?,
                    };
                }
                (result, all)
            }
            _ => return Ok(()),
        };
        frame.values[result.index()] = Some(Value::Numbers(Rc::new(numbers)));
        Ok(())
    }

    /// The invocation that each reads; none where there is no such one.
    fn sources(
        &mut self,
        frame: &mut Frame<'m>,
        mode: GatherMode,
        span: Span,
        active: &Mask,
    ) -> Result<Vec<Option<usize>>, Error> {
        let by = match mode {
            GatherMode::BroadcastFirst => Rc::default(),
            GatherMode::Broadcast(handle)
            | GatherMode::Shuffle(handle)
            | GatherMode::ShuffleDown(handle)
            | GatherMode::ShuffleUp(handle)
            | GatherMode::ShuffleXor(handle) => self.numbers_of(frame, handle, active)?,
            other => return Err(Error::unsupported(format!("{other:?}"))),
        };
        let size = self.subgroup_size as u64;
        let mut sources = vec![None; self.width];
        for lane in (0..self.width).filter(|lane| active[*lane]) {
            let first = lane - lane % self.subgroup_size;
            let own = (lane % self.subgroup_size) as u64;
            let source = match mode {
                GatherMode::BroadcastFirst => {
                    (first..self.width).find(|lane| active[*lane]).map(|l| (l - first) as u64)
                }
                GatherMode::ShuffleDown(_) => own.checked_add(by[lane]),
                GatherMode::ShuffleUp(_) => own.checked_sub(by[lane]),
                GatherMode::ShuffleXor(_) => Some(own ^ by[lane]),
                _ => Some(by[lane]),
            };
            let source = source
                .filter(|source| *source < size)
                .and_then(|source| usize::try_from(source).ok());
            let source = source
                .map(|source| first + source)
                .filter(|source| active.get(*source) == Some(&true));
            if source.is_none() {
                self.find(Kind::InactiveLane, span, lane);
            }
            sources[lane] = source;
        }
        Ok(sources)
    }

    /// A matrix, column by column. It belongs to the subgroup: here every invocation has all of it.
    pub(crate) fn load_matrix(
        &mut self,
        frame: &mut Frame<'m>,
        [rows, columns]: [usize; 2],
        data: &CooperativeData,
        span: Span,
        active: &Mask,
    ) -> Result<Value, Error> {
        let stride = self.numbers_of(frame, data.stride, active)?;
        let value = self.value(frame, data.pointer, active)?;
        let pointer = Rc::clone(self.pointer(&value)?);
        let mut numbers = vec![0; rows * columns * self.width];
        for (i, number) in numbers.iter_mut().enumerate() {
            let (element, lane) = (i / self.width, i % self.width);
            if active[lane] {
                let place = place(element, rows, stride[lane], data.row_major);
                *number = self.read(&pointer, place, lane, (span, false));
            }
        }
        Ok(Value::Numbers(Rc::new(numbers)))
    }

    /// Its first invocation writes for the subgroup.
    pub(crate) fn store_matrix(
        &mut self,
        frame: &mut Frame<'m>,
        target: Handle<Expression>,
        data: &CooperativeData,
        span: Span,
        active: &Mask,
    ) -> Result<(), Error> {
        let TypeInner::CooperativeMatrix { rows, .. } = *self.inner(frame, target) else {
            return Err(Error::unsupported("a store of what is no matrix".into()));
        };
        let stride = self.numbers_of(frame, data.stride, active)?;
        let numbers = self.numbers_of(frame, target, active)?;
        let value = self.value(frame, data.pointer, active)?;
        let pointer = Rc::clone(self.pointer(&value)?);
        for (i, bits) in numbers.iter().enumerate() {
            let (element, lane) = (i / self.width, i % self.width);
            let writer = lane - lane % self.subgroup_size;
            if active[lane] && !active[writer] {
                self.find(Kind::InactiveLane, span, lane);
            } else if active[lane] && lane == writer {
                let place = place(element, rows as usize, stride[lane], data.row_major);
                self.write(&pointer, place, lane, *bits, (span, false));
            }
        }
        Ok(())
    }

    /// `a b + c`
    pub(crate) fn multiply_add(
        &mut self,
        frame: &mut Frame<'m>,
        operands: [Handle<Expression>; 3],
        active: &Mask,
    ) -> Result<Value, Error> {
        let shape = |inner: &TypeInner| match *inner {
            TypeInner::CooperativeMatrix { columns, rows, scalar, .. } => {
                Ok((rows as usize, columns as usize, scalar))
            }
            ref other => Err(Error::unsupported(format!("a product of {other:?}"))),
        };
        let (rows, inner, of_factors) = shape(self.inner(frame, operands[0]))?;
        let (_, columns, of_sum) = shape(self.inner(frame, operands[2]))?;
        let mut numbers = Vec::new();
        for operand in operands {
            numbers.push(self.numbers_of(frame, operand, active)?);
        }
        let at = |operand: usize, rows: usize, row: usize, column: usize, lane: usize| {
            numbers[operand][(column * rows + row) * self.width + lane]
        };
        let mut sums = Vec::with_capacity(rows * columns * self.width);
        for element in 0..rows * columns {
            let (row, column) = (element % rows, element / rows);
            for lane in 0..self.width {
                let mut sum = value::float(of_sum, at(2, rows, row, column, lane));
                for k in 0..inner {
                    let left = value::float(of_factors, at(0, rows, row, k, lane));
                    sum += left * value::float(of_factors, at(1, inner, k, column, lane));
                }
                sums.push(value::bits(of_sum, sum));
            }
        }
        Ok(Value::Numbers(Rc::new(sums)))
    }
}

/// Slots from a matrix's first element to another.
fn place(element: usize, rows: usize, stride: u64, row_major: bool) -> usize {
    let (row, column) = (element % rows, element / rows);
    let stride = usize::try_from(stride).unwrap_or(usize::MAX);
    let [near, far] = if row_major { [column, row] } else { [row, column] };
    far.saturating_mul(stride).saturating_add(near)
}

fn combined(op: BinaryOperator, scalar: Scalar, left: u64, right: u64) -> Result<u64, Error> {
    value::binary(op, scalar, left, right).map(|(bits, _)| bits)
}

fn collected(op: SubgroupOperation, scalar: Scalar, left: u64, right: u64) -> Result<u64, Error> {
    match op {
        SubgroupOperation::All | SubgroupOperation::And => Ok(left & right),
        SubgroupOperation::Any | SubgroupOperation::Or => Ok(left | right),
        SubgroupOperation::Xor => Ok(left ^ right),
        SubgroupOperation::Add => combined(BinaryOperator::Add, scalar, left, right),
        SubgroupOperation::Mul => combined(BinaryOperator::Multiply, scalar, left, right),
        SubgroupOperation::Min => value::math(MathFunction::Min, scalar, &[left, right]),
        SubgroupOperation::Max => value::math(MathFunction::Max, scalar, &[left, right]),
    }
}

/// What a sum or product over nobody is.
fn neutral(op: SubgroupOperation, scalar: Scalar) -> Result<u64, Error> {
    match op {
        SubgroupOperation::Add => Ok(0),
        SubgroupOperation::Mul => Ok(value::converted(Scalar::U32, scalar, 1).0),
        other => Err(Error::unsupported(format!("an exclusive scan by {other:?}"))),
    }
}
