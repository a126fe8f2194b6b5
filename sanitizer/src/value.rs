//! Numbers as bits, and what operators and functions make of them.

use half::f16;
use naga::{BinaryOperator, MathFunction, Scalar, ScalarKind, UnaryOperator};

use crate::Error;

/// What is wrong with operands although WGSL gives the operation some result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// By as many bits as the number has, or more.
    Shift,
    /// Of an integer, by zero.
    Division,
    /// From a float to an integer that cannot hold it.
    Conversion,
}

/// A result, and what was wrong on the way.
pub(crate) type Worked = (u64, Option<Slip>);

/// `bits` as a float.
pub(crate) fn float(scalar: Scalar, bits: u64) -> f64 {
    match scalar.width {
        2 => half_of(bits).into(),
        4 => f32::from_bits(low(bits)).into(),
        _ => f64::from_bits(bits),
    }
}

/// The bits of a float, rounded once.
pub(crate) fn bits(scalar: Scalar, value: f64) -> u64 {
    match scalar.width {
        2 => f16::from_f64(value).to_bits().into(),
        4 => narrow(value).to_bits().into(),
        _ => value.to_bits(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn low(bits: u64) -> u32 {
    bits as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
fn half_of(bits: u64) -> f16 {
    f16::from_bits(bits as u16)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// An integer of any sign.
fn integer(scalar: Scalar, bits: u64) -> i128 {
    match (scalar.kind, scalar.width) {
        (ScalarKind::Sint, 4) => i128::from(low(bits).cast_signed()),
        (ScalarKind::Sint, _) => i128::from(bits.cast_signed()),
        _ => i128::from(bits),
    }
}

/// Its bits: what does not fit is cut off.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "integers wrap")]
fn wrapped(scalar: Scalar, value: i128) -> u64 {
    match scalar.width {
        4 => u64::from(value as u32),
        _ => value as u64,
    }
}

fn truth(value: bool) -> Worked {
    (u64::from(value), None)
}

/// `left op right`, both of the type `scalar`; a shift's right operand is always `u32`.
pub(crate) fn binary(
    op: BinaryOperator,
    scalar: Scalar,
    left: u64,
    right: u64,
) -> Result<Worked, Error> {
    match scalar.kind {
        ScalarKind::Float => floats(op, scalar, float(scalar, left), float(scalar, right)),
        ScalarKind::Bool => bools(op, left != 0, right != 0),
        ScalarKind::Sint | ScalarKind::Uint => integers(op, scalar, left, right),
        _ => Err(Error::unsupported(format!("{scalar:?} in an operator"))),
    }
}

/// Sums, products and quotients of two `f32` or `f16` are right in `f64` and rounded once.
fn floats(op: BinaryOperator, scalar: Scalar, left: f64, right: f64) -> Result<Worked, Error> {
    use BinaryOperator as Op;
    let number = |value| Ok((bits(scalar, value), None));
    match op {
        Op::Add => number(left + right),
        Op::Subtract => number(left - right),
        Op::Multiply => number(left * right),
        Op::Divide => number(left / right),
        Op::Modulo => number(left % right),
        Op::Equal => Ok(truth(left == right)),
        Op::NotEqual => Ok(truth(left != right)),
        Op::Less => Ok(truth(left < right)),
        Op::LessEqual => Ok(truth(left <= right)),
        Op::Greater => Ok(truth(left > right)),
        Op::GreaterEqual => Ok(truth(left >= right)),
        other => Err(Error::unsupported(format!("{other:?} of floats"))),
    }
}

fn bools(op: BinaryOperator, left: bool, right: bool) -> Result<Worked, Error> {
    use BinaryOperator as Op;
    match op {
        Op::Equal => Ok(truth(left == right)),
        Op::NotEqual | Op::ExclusiveOr => Ok(truth(left != right)),
        Op::And | Op::LogicalAnd => Ok(truth(left && right)),
        Op::InclusiveOr | Op::LogicalOr => Ok(truth(left || right)),
        other => Err(Error::unsupported(format!("{other:?} of bools"))),
    }
}

fn integers(op: BinaryOperator, scalar: Scalar, left: u64, right: u64) -> Result<Worked, Error> {
    use BinaryOperator as Op;
    let [a, b] = [left, right].map(|bits| integer(scalar, bits));
    let number = |value| Ok((wrapped(scalar, value), None));
    let width = 8 * u32::from(scalar.width);
    let shift = low(right) % width;
    let of_shift =
        |value| Ok((wrapped(scalar, value), (right >= u64::from(width)).then_some(Slip::Shift)));
    match op {
        Op::Add => number(a + b),
        Op::Subtract => number(a - b),
        Op::Multiply => number(a.wrapping_mul(b)),
        Op::Divide | Op::Modulo if b == 0 => {
            let value = if op == Op::Divide { a } else { 0 };
            Ok((wrapped(scalar, value), Some(Slip::Division)))
        }
        Op::Divide => number(a / b),
        Op::Modulo => number(a % b),
        Op::Equal => Ok(truth(a == b)),
        Op::NotEqual => Ok(truth(a != b)),
        Op::Less => Ok(truth(a < b)),
        Op::LessEqual => Ok(truth(a <= b)),
        Op::Greater => Ok(truth(a > b)),
        Op::GreaterEqual => Ok(truth(a >= b)),
        Op::And => number(a & b),
        Op::ExclusiveOr => number(a ^ b),
        Op::InclusiveOr => number(a | b),
        Op::ShiftLeft => of_shift(a << shift),
        Op::ShiftRight => of_shift(a >> shift),
        other @ (Op::LogicalAnd | Op::LogicalOr) => {
            Err(Error::unsupported(format!("{other:?} of integers")))
        }
    }
}

pub(crate) fn unary(op: UnaryOperator, scalar: Scalar, value: u64) -> u64 {
    match (op, scalar.kind) {
        (UnaryOperator::Negate, ScalarKind::Float) => bits(scalar, -float(scalar, value)),
        (UnaryOperator::Negate, _) => wrapped(scalar, -integer(scalar, value)),
        (UnaryOperator::LogicalNot, _) => u64::from(value == 0),
        (UnaryOperator::BitwiseNot, _) => wrapped(scalar, !integer(scalar, value)),
    }
}

/// A value of another type.
#[expect(clippy::cast_possible_truncation, reason = "what does not fit is told")]
pub(crate) fn converted(from: Scalar, to: Scalar, value: u64) -> Worked {
    let is_float = |scalar: Scalar| scalar.kind == ScalarKind::Float;
    match (is_float(from), is_float(to), to.kind) {
        (true, _, ScalarKind::Bool) => truth(float(from, value) != 0.0),
        (false, _, ScalarKind::Bool) => truth(value != 0),
        (true, true, _) => (bits(to, float(from, value)), None),
        (false, true, _) => (bits(to, integer(from, value) as f64), None),
        (false, false, _) => (wrapped(to, integer(from, value)), None),
        (true, false, _) => {
            let (least, most) = match (to.kind, to.width) {
                (ScalarKind::Sint, 4) => (i128::from(i32::MIN), i128::from(i32::MAX)),
                (ScalarKind::Sint, _) => (i128::from(i64::MIN), i128::from(i64::MAX)),
                (_, 4) => (0, i128::from(u32::MAX)),
                _ => (0, i128::from(u64::MAX)),
            };
            let value = float(from, value).trunc();
            let whole = (value as i128).clamp(least, most);
            (
                wrapped(to, whole),
                (value.is_nan() || whole as f64 != value).then_some(Slip::Conversion),
            )
        }
    }
}

/// A function of numbers, component by component.
pub(crate) fn math(fun: MathFunction, scalar: Scalar, args: &[u64]) -> Result<u64, Error> {
    if scalar.kind != ScalarKind::Float {
        return integer_math(fun, scalar, args);
    }
    let values: Vec<f64> = args.iter().map(|&arg| float(scalar, arg)).collect();
    use MathFunction as F;
    let value = match (fun, &values[..]) {
        (F::Abs, [a]) => a.abs(),
        // As hardware has it: a NaN is dropped.
        (F::Min, [a, b]) => a.min(*b),
        (F::Max, [a, b]) => a.max(*b),
        (F::Clamp, [a, least, most]) => a.max(*least).min(*most),
        (F::Saturate, [a]) => a.clamp(0.0, 1.0),
        (F::Cos, [a]) => a.cos(),
        (F::Sin, [a]) => a.sin(),
        (F::Tan, [a]) => a.tan(),
        (F::Tanh, [a]) => a.tanh(),
        (F::Ceil, [a]) => a.ceil(),
        (F::Floor, [a]) => a.floor(),
        (F::Round, [a]) => a.round_ties_even(),
        (F::Fract, [a]) => a - a.floor(),
        (F::Trunc, [a]) => a.trunc(),
        (F::Exp, [a]) => a.exp(),
        (F::Exp2, [a]) => a.exp2(),
        (F::Log, [a]) => a.ln(),
        (F::Log2, [a]) => a.log2(),
        (F::Pow, [a, b]) => a.powf(*b),
        (F::Sign, [a]) if *a == 0.0 => 0.0,
        (F::Sign, [a]) => a.signum(),
        (F::Fma, [a, b, c]) => a.mul_add(*b, *c),
        (F::Mix, [a, b, t]) => a * (1.0 - t) + b * t,
        (F::Step, [edge, a]) => f64::from(u8::from(a >= edge)),
        (F::Sqrt, [a]) => a.sqrt(),
        (F::InverseSqrt, [a]) => 1.0 / a.sqrt(),
        (F::QuantizeToF16, [a]) => f16::from_f64(*a).into(),
        _ => return Err(Error::unsupported(format!("{fun:?}"))),
    };
    Ok(bits(scalar, value))
}

fn integer_math(fun: MathFunction, scalar: Scalar, args: &[u64]) -> Result<u64, Error> {
    let values: Vec<i128> = args.iter().map(|&arg| integer(scalar, arg)).collect();
    let width = 8 * u32::from(scalar.width);
    use MathFunction as F;
    let value = match (fun, &values[..]) {
        (F::Abs, [a]) => a.abs(),
        (F::Min, [a, b]) => *a.min(b),
        (F::Max, [a, b]) => *a.max(b),
        (F::Clamp, [a, least, most]) => (*a.max(least)).min(*most),
        (F::Sign, [a]) => a.signum(),
        (F::CountOneBits, [_]) => args[0].count_ones().into(),
        (F::CountLeadingZeros, [_]) => (args[0].leading_zeros() - (64 - width)).into(),
        (F::CountTrailingZeros, [_]) => args[0].trailing_zeros().min(width).into(),
        _ => return Err(Error::unsupported(format!("{fun:?} of integers"))),
    };
    Ok(wrapped(scalar, value))
}

/// Two halves of a word, the first in the lower bits.
pub(crate) fn unpacked(word: u64) -> [u64; 2] {
    let half = |bits: u64| bits_f32(half_of(bits).into());
    [half(word), half(word >> 16)]
}

pub(crate) fn packed(pair: [u64; 2]) -> u64 {
    let half = |bits: u64| u64::from(f16::from_f32(f32::from_bits(low(bits))).to_bits());
    half(pair[0]) | half(pair[1]) << 16
}

fn bits_f32(value: f32) -> u64 {
    value.to_bits().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_slips_are_told() {
        let op = |op, scalar, a, b| binary(op, scalar, a, b).expect("is there");
        let most = u64::from(u32::MAX);
        assert_eq!(op(BinaryOperator::Add, Scalar::U32, most, 2), (1, None));
        assert_eq!(op(BinaryOperator::Subtract, Scalar::U32, 1, 2), (most, None));
        assert_eq!(op(BinaryOperator::Multiply, Scalar::U32, most, most), (1, None));
        assert_eq!(op(BinaryOperator::Less, Scalar::I32, most, 0), (1, None));
        assert_eq!(op(BinaryOperator::ShiftRight, Scalar::I32, most, 4), (most, None));
        assert_eq!(op(BinaryOperator::ShiftLeft, Scalar::U32, 1, 32), (1, Some(Slip::Shift)));
        assert_eq!(op(BinaryOperator::Divide, Scalar::U32, 7, 0), (7, Some(Slip::Division)));
        let float = |value: f32| u64::from(value.to_bits());
        assert_eq!(converted(Scalar::F32, Scalar::U32, float(3.9)), (3, None));
        assert_eq!(converted(Scalar::F32, Scalar::U32, float(-1.0)), (0, Some(Slip::Conversion)));
        assert_eq!(
            converted(Scalar::F32, Scalar::I32, float(f32::NAN)),
            (0, Some(Slip::Conversion))
        );
        assert_eq!(unpacked(packed([float(1.5), float(-2.0)])), [float(1.5), float(-2.0)]);
    }
}
