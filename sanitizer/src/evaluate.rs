//! Expressions.

use std::rc::Rc;

use naga::{
    BinaryOperator, Expression, Handle, Literal, MathFunction, RelationalFunction, Scalar, Span,
    TypeInner,
};

use crate::Error;
use crate::finding::Kind;
use crate::layout::{length, scalar};
use crate::machine::{Frame, Machine, Mask, Past, Pointer, Value};
use crate::value::{self, Slip, Worked};

impl<'m> Machine<'m> {
    /// The value of an expression that was emitted, or that is the same wherever it stands.
    pub(crate) fn value(
        &mut self,
        frame: &mut Frame<'m>,
        handle: Handle<Expression>,
        active: &Mask,
    ) -> Result<Value, Error> {
        if let Some(value) = &frame.values[handle.index()] {
            return Ok(value.clone());
        }
        let value = self.compute(frame, handle, active)?;
        frame.values[handle.index()] = Some(value.clone());
        Ok(value)
    }

    #[expect(clippy::unused_self, reason = "as the other ways to a value")]
    pub(crate) fn numbers<'v>(&self, value: &'v Value) -> Result<&'v Rc<Vec<u64>>, Error> {
        match value {
            Value::Numbers(numbers) => Ok(numbers),
            Value::Pointer(_) => {
                Err(Error::unsupported("a pointer where a number is wanted".into()))
            }
        }
    }

    #[expect(clippy::unused_self, reason = "as the other ways to a value")]
    pub(crate) fn pointer<'v>(&self, value: &'v Value) -> Result<&'v Rc<Pointer>, Error> {
        match value {
            Value::Pointer(pointer) => Ok(pointer),
            Value::Numbers(_) => {
                Err(Error::unsupported("a number where a pointer is wanted".into()))
            }
        }
    }

    pub(crate) fn inner(&self, frame: &Frame<'m>, handle: Handle<Expression>) -> &'m TypeInner {
        frame.info[handle].ty.inner_with(&self.module.types)
    }

    pub(crate) fn scalar(
        &self,
        frame: &Frame<'m>,
        handle: Handle<Expression>,
    ) -> Result<Scalar, Error> {
        scalar(self.inner(frame, handle))
    }

    /// The same components in every invocation.
    pub(crate) fn spread(&self, components: &[u64]) -> Vec<u64> {
        components.iter().flat_map(|bits| std::iter::repeat_n(*bits, self.width)).collect()
    }

    fn spread_value(&self, components: &[u64]) -> Value {
        Value::Numbers(Rc::new(self.spread(components)))
    }

    /// Components of a constant of the module.
    pub(crate) fn constant(&self, handle: Handle<Expression>) -> Result<Vec<u64>, Error> {
        let all = &self.module.global_expressions;
        match &all[handle] {
            Expression::Literal(literal) => Ok(vec![bits_of(*literal)?]),
            Expression::Constant(constant) => self.constant(self.module.constants[*constant].init),
            Expression::ZeroValue(ty) => Ok(vec![0; self.layout.slots_of(*ty)?]),
            Expression::Compose { components, .. } => {
                let parts: Result<Vec<_>, _> =
                    components.iter().map(|part| self.constant(*part)).collect();
                Ok(parts?.concat())
            }
            Expression::Splat { size, value } => Ok(self.constant(*value)?.repeat(*size as usize)),
            other => Err(Error::unsupported(format!("{other:?} as a constant"))),
        }
    }

    pub(crate) fn compute(
        &mut self,
        frame: &mut Frame<'m>,
        handle: Handle<Expression>,
        active: &Mask,
    ) -> Result<Value, Error> {
        let (expressions, span) =
            (&frame.function.expressions, frame.function.expressions.get_span(handle));
        let done = |numbers: Vec<u64>| Ok(Value::Numbers(Rc::new(numbers)));
        match expressions[handle] {
            Expression::Literal(literal) => Ok(self.spread_value(&[bits_of(literal)?])),
            Expression::Constant(constant) => {
                Ok(self.spread_value(&self.constant(self.module.constants[constant].init)?))
            }
            Expression::ZeroValue(ty) => Ok(self.spread_value(&vec![0; self.layout.slots_of(ty)?])),
            Expression::Compose { ref components, .. } => {
                let mut all = Vec::new();
                for part in components {
                    let part = self.value(frame, *part, active)?;
                    all.extend_from_slice(self.numbers(&part)?);
                }
                done(all)
            }
            Expression::Splat { size, value } => {
                let value = self.value(frame, value, active)?;
                done(self.numbers(&value)?.repeat(size as usize))
            }
            Expression::Swizzle { size, vector, pattern } => {
                let vector = self.value(frame, vector, active)?;
                let numbers = self.numbers(&vector)?;
                let part = |component: &naga::SwizzleComponent| {
                    &numbers[*component as usize * self.width..][..self.width]
                };
                done(pattern[..size as usize].iter().flat_map(part).copied().collect())
            }
            Expression::FunctionArgument(number) => Ok(frame.arguments[number as usize].clone()),
            Expression::GlobalVariable(variable) => Ok(self.pointer_to(self.globals[&variable])),
            Expression::LocalVariable(variable) => Ok(self.pointer_to(frame.locals[&variable])),
            Expression::Access { base, index } => {
                let index = self.value(frame, index, active)?;
                let indices = self.numbers(&index)?.to_vec();
                self.access(frame, base, &indices, span, active)
            }
            Expression::AccessIndex { base, index } => {
                let indices = vec![u64::from(index); self.width];
                self.access(frame, base, &indices, span, active)
            }
            Expression::Load { pointer } => self.load(frame, pointer, span, active),
            Expression::Unary { op, expr } => {
                let scalar = self.scalar(frame, expr)?;
                let operand = self.value(frame, expr, active)?;
                done(
                    self.numbers(&operand)?
                        .iter()
                        .map(|bits| value::unary(op, scalar, *bits))
                        .collect(),
                )
            }
            Expression::Binary { op, left, right } => {
                let scalar = self.scalar(frame, left)?;
                if let Some(shape) =
                    product_shape(op, self.inner(frame, left), self.inner(frame, right))
                {
                    return self.product(frame, [left, right], shape, active);
                }
                self.each(frame, &[left, right], span, active, |args| {
                    value::binary(op, scalar, args[0], args[1])
                })
            }
            Expression::Select { condition, accept, reject } => {
                self.each(frame, &[condition, accept, reject], span, active, |args| {
                    Ok((if args[0] != 0 { args[1] } else { args[2] }, None))
                })
            }
            Expression::Relational { fun, argument } => {
                let scalar = self.scalar(frame, argument)?;
                let argument = self.value(frame, argument, active)?;
                let numbers = self.numbers(&argument)?;
                let of_lane = |lane: usize| numbers.iter().skip(lane).step_by(self.width);
                let float = |bits: &u64| value::float(scalar, *bits);
                done(match fun {
                    RelationalFunction::All => (0..self.width)
                        .map(|lane| u64::from(of_lane(lane).all(|bit| *bit != 0)))
                        .collect(),
                    RelationalFunction::Any => (0..self.width)
                        .map(|lane| u64::from(of_lane(lane).any(|bit| *bit != 0)))
                        .collect(),
                    RelationalFunction::IsNan => {
                        numbers.iter().map(|bits| u64::from(float(bits).is_nan())).collect()
                    }
                    RelationalFunction::IsInf => {
                        numbers.iter().map(|bits| u64::from(float(bits).is_infinite())).collect()
                    }
                })
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let args: Vec<_> = [Some(arg), arg1, arg2, arg3].into_iter().flatten().collect();
                self.math(frame, fun, &args, span, active)
            }
            Expression::As { expr, kind, convert } => {
                let from = self.scalar(frame, expr)?;
                let Some(width) = convert else { return self.value(frame, expr, active) };
                let to = Scalar { kind, width };
                self.each(frame, &[expr], span, active, |args| {
                    Ok(value::converted(from, to, args[0]))
                })
            }
            Expression::ArrayLength(array) => {
                let count = self.dynamic_length(frame, array, active)?;
                Ok(self.spread_value(&[count as u64]))
            }
            Expression::CooperativeLoad { columns, rows, ref data, .. } => {
                self.load_matrix(frame, [rows as usize, columns as usize], data, span, active)
            }
            Expression::CooperativeMultiplyAdd { a, b, c } => {
                self.multiply_add(frame, [a, b, c], active)
            }
            ref other => Err(Error::unsupported(format!("{other:?}"))),
        }
    }

    fn pointer_to(&self, object: usize) -> Value {
        Value::Pointer(Rc::new(Pointer { object, slots: vec![Ok(0); self.width] }))
    }

    /// Applies `work` to the components of operands, invocation by invocation. A scalar goes with
    /// every component of a vector.
    fn each(
        &mut self,
        frame: &mut Frame<'m>,
        operands: &[Handle<Expression>],
        span: Span,
        active: &Mask,
        work: impl Fn(&[u64]) -> Result<Worked, Error>,
    ) -> Result<Value, Error> {
        let values: Result<Vec<_>, _> =
            operands.iter().map(|operand| self.value(frame, *operand, active)).collect();
        let values = values?;
        let numbers: Result<Vec<_>, _> = values.iter().map(|value| self.numbers(value)).collect();
        let numbers = numbers?;
        let len = numbers.iter().map(|numbers| numbers.len()).max().unwrap_or(0);
        let mut args = vec![0; numbers.len()];
        let mut result = Vec::with_capacity(len);
        let mut slips = Vec::new();
        for i in 0..len {
            let lane = i % self.width;
            for (arg, numbers) in args.iter_mut().zip(&numbers) {
                *arg = if numbers.len() == self.width { numbers[lane] } else { numbers[i] };
            }
            let (bits, slip) = work(&args)?;
            result.push(bits);
            slips.extend(slip.filter(|_| active[lane]).map(|slip| (slip, lane)));
        }
        for (slip, lane) in slips {
            let kind = match slip {
                Slip::Shift => Kind::Shift,
                Slip::Division => Kind::Division,
                Slip::Conversion => Kind::Conversion,
            };
            self.find(kind, span, lane);
        }
        Ok(Value::Numbers(Rc::new(result)))
    }

    pub(crate) fn find(&mut self, kind: Kind, span: Span, lane: usize) {
        self.findings.add(kind, span, [self.workgroup, lane_number(lane)], None);
    }

    fn math(
        &mut self,
        frame: &mut Frame<'m>,
        fun: MathFunction,
        args: &[Handle<Expression>],
        span: Span,
        active: &Mask,
    ) -> Result<Value, Error> {
        let scalar = self.scalar(frame, args[0])?;
        let width = self.width;
        match fun {
            MathFunction::Unpack2x16float => {
                let words = self.numbers_of(frame, args[0], active)?;
                let half =
                    |number: usize| words.iter().map(move |word| value::unpacked(*word)[number]);
                Ok(Value::Numbers(Rc::new(half(0).chain(half(1)).collect())))
            }
            MathFunction::Pack2x16float => {
                let pair = self.numbers_of(frame, args[0], active)?;
                let words = (0..width).map(|lane| value::packed([pair[lane], pair[lane + width]]));
                Ok(Value::Numbers(Rc::new(words.collect())))
            }
            MathFunction::Transpose => {
                let TypeInner::Matrix { columns, rows, .. } = *self.inner(frame, args[0]) else {
                    return Err(Error::unsupported("the transpose of what is no matrix".into()));
                };
                let (columns, rows) = (columns as usize, rows as usize);
                let value = self.value(frame, args[0], active)?;
                let numbers = self.numbers(&value)?;
                let parts =
                    (0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row));
                Ok(Value::Numbers(Rc::new(
                    parts.flat_map(|part| &numbers[part * width..][..width]).copied().collect(),
                )))
            }
            MathFunction::Dot => {
                let [left, right] = [0, 1].map(|place| self.numbers_of(frame, args[place], active));
                let (left, right) = (left?, right?);
                let mut sums = vec![0; width];
                for (i, (left, right)) in left.iter().zip(right.iter()).enumerate() {
                    let (product, _) =
                        value::binary(BinaryOperator::Multiply, scalar, *left, *right)?;
                    let sum = &mut sums[i % width];
                    *sum = if i < width {
                        product
                    } else {
                        value::binary(BinaryOperator::Add, scalar, *sum, product)?.0
                    };
                }
                Ok(Value::Numbers(Rc::new(sums)))
            }
            _ => self.each(frame, args, span, active, |args| {
                Ok((value::math(fun, scalar, args)?, None))
            }),
        }
    }

    pub(crate) fn numbers_of(
        &mut self,
        frame: &mut Frame<'m>,
        handle: Handle<Expression>,
        active: &Mask,
    ) -> Result<Rc<Vec<u64>>, Error> {
        let value = self.value(frame, handle, active)?;
        self.numbers(&value).cloned()
    }

    /// A product of matrices of these rows, inner size and columns.
    fn product(
        &mut self,
        frame: &mut Frame<'m>,
        [left, right]: [Handle<Expression>; 2],
        [rows, inner, columns]: [usize; 3],
        active: &Mask,
    ) -> Result<Value, Error> {
        let (scalar, width) = (self.scalar(frame, left)?, self.width);
        let (left, right) =
            (self.numbers_of(frame, left, active)?, self.numbers_of(frame, right, active)?);
        let mut all = Vec::with_capacity(rows * columns * width);
        for (column, row) in (0..columns).flat_map(|column| (0..rows).map(move |row| (column, row)))
        {
            for lane in 0..width {
                let mut sum = 0;
                for k in 0..inner {
                    let factors = [
                        left[(k * rows + row) * width + lane],
                        right[(column * inner + k) * width + lane],
                    ];
                    let (product, _) =
                        value::binary(BinaryOperator::Multiply, scalar, factors[0], factors[1])?;
                    sum = value::binary(BinaryOperator::Add, scalar, sum, product)?.0;
                }
                all.push(sum);
            }
        }
        Ok(Value::Numbers(Rc::new(all)))
    }

    /// An element or member, of a value or where a pointer points to.
    fn access(
        &mut self,
        frame: &mut Frame<'m>,
        base: Handle<Expression>,
        indices: &[u64],
        span: Span,
        active: &Mask,
    ) -> Result<Value, Error> {
        let value = self.value(frame, base, active)?;
        let inner = match *self.inner(frame, base) {
            TypeInner::Pointer { base, .. } => &self.module.types[base].inner,
            ref other => other,
        };
        let mut past = Past::Array;
        let count = match *inner {
            TypeInner::Array { size, .. } => match length(size) {
                Some(count) => count,
                None => {
                    past = Past::Buffer;
                    self.dynamic_length(frame, base, active)?
                }
            },
            TypeInner::Struct { ref members, .. } => members.len(),
            TypeInner::Vector { size, .. } | TypeInner::ValuePointer { size: Some(size), .. } => {
                size as usize
            }
            TypeInner::Matrix { columns, .. } => columns as usize,
            ref other => return Err(Error::unsupported(format!("an element of {other:?}"))),
        };
        let mut starts = Vec::with_capacity(self.width);
        for (lane, index) in indices.iter().enumerate() {
            let index = u32::try_from(*index).ok().filter(|index| (*index as usize) < count);
            // Past the end a pointer points nowhere, which is told when it is used.
            if index.is_none() && active[lane] && matches!(value, Value::Numbers(_)) {
                self.find(Kind::OutOfBounds, span, lane);
            }
            starts.push(index.map(|index| self.layout.slots_before(inner, index)).transpose()?);
        }
        match value {
            Value::Pointer(pointer) => {
                let slots = pointer
                    .slots
                    .iter()
                    .zip(starts)
                    .map(|(slot, start)| Ok((*slot)? + start.ok_or(past)?));
                let slots = slots.collect();
                Ok(Value::Pointer(Rc::new(Pointer { object: pointer.object, slots })))
            }
            Value::Numbers(numbers) => {
                // Members of a struct have an index that is constant; all others are of one size.
                let is_struct = matches!(inner, TypeInner::Struct { .. });
                let first = if is_struct { u32::try_from(indices[0]).unwrap_or(0) } else { 0 };
                let size = self.layout.slots_before(inner, first + 1)?
                    - self.layout.slots_before(inner, first)?;
                let at = |component: usize, lane: usize| {
                    starts[lane].map_or(0, |start| numbers[(start + component) * self.width + lane])
                };
                let all = (0..size)
                    .flat_map(|component| (0..self.width).map(move |lane| (component, lane)));
                Ok(Value::Numbers(Rc::new(
                    all.map(|(component, lane)| at(component, lane)).collect(),
                )))
            }
        }
    }

    /// Elements of an array of any length.
    fn dynamic_length(
        &mut self,
        frame: &mut Frame<'m>,
        array: Handle<Expression>,
        active: &Mask,
    ) -> Result<usize, Error> {
        let element = match *self.inner(frame, array) {
            TypeInner::Pointer { base, .. } => match self.module.types[base].inner {
                TypeInner::Array { base, .. } => self.layout.slots_of(base)?,
                ref other => return Err(Error::unsupported(format!("the length of {other:?}"))),
            },
            ref other => return Err(Error::unsupported(format!("the length of {other:?}"))),
        };
        let value = self.value(frame, array, active)?;
        let pointer = self.pointer(&value)?;
        let start = pointer.slots.iter().find_map(|slot| slot.ok()).unwrap_or(0);
        Ok((self.objects[pointer.object].slots(self.width) - start) / element)
    }
}

/// Rows, inner size and columns of a product of matrices, or of a matrix and a vector; nothing for
/// other products.
fn product_shape(op: BinaryOperator, left: &TypeInner, right: &TypeInner) -> Option<[usize; 3]> {
    let is_matrix = |inner: &TypeInner| matches!(inner, TypeInner::Matrix { .. });
    let is_product = op == BinaryOperator::Multiply && (is_matrix(left) || is_matrix(right));
    match (left, right) {
        _ if !is_product => None,
        (TypeInner::Matrix { rows, columns: inner, .. }, TypeInner::Matrix { columns, .. }) => {
            Some([*rows as usize, *inner as usize, *columns as usize])
        }
        (TypeInner::Matrix { rows, columns: inner, .. }, TypeInner::Vector { .. }) => {
            Some([*rows as usize, *inner as usize, 1])
        }
        (TypeInner::Vector { size, .. }, TypeInner::Matrix { columns, .. }) => {
            Some([1, *size as usize, *columns as usize])
        }
        _ => None,
    }
}

fn bits_of(literal: Literal) -> Result<u64, Error> {
    Ok(match literal {
        Literal::F64(value) => value.to_bits(),
        Literal::F32(value) => value.to_bits().into(),
        Literal::F16(value) => value.to_bits().into(),
        Literal::U32(value) => value.into(),
        Literal::I32(value) => value.cast_unsigned().into(),
        Literal::U64(value) => value,
        Literal::I64(value) => value.cast_unsigned(),
        Literal::Bool(value) => value.into(),
        other => return Err(Error::unsupported(format!("{other:?}"))),
    })
}

/// Workgroups have fewer invocations than `u32` counts.
#[expect(clippy::cast_possible_truncation, reason = "few")]
pub(crate) fn lane_number(lane: usize) -> u32 {
    lane as u32
}
