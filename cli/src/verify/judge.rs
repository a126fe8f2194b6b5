//! Whether an output is right.

use dynconv::Elem;

/// Largest accepted `max |y_gpu - y| / max |y|` in f32: sums of a few thousand products, rounded
/// at 2^-24 each.
const TOLERANCE: f64 = 1e-5;
/// The same in f16. Input and output are rounded once each, by at most 2^-11 of their size, as a
/// GPU may round to either side. The input's part grows to 2^-11 * sum |w| |x| in a sum, which for
/// sums that cancel is several times the largest output, and comes once more through the
/// attention: 10 * 2^-11 in all.
const TOLERANCE_F16: f64 = 10.0 / 2048.0;
/// The largest number of f16.
const F16_MAX: f64 = 65504.0;

/// The smallest that it holds in full precision.
const F16_MIN: f64 = 1.0 / (1 << 14) as f64;

/// What was found of an output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judgement {
    /// `max |y_gpu - y| / max |y|` over what is finite in both.
    Error(f64),
    /// A NaN or an infinity that should not be there, or that is missing.
    Wrong { element: usize, found: f32, expected: f64 },
}

impl Judgement {
    pub(super) fn is_right(&self, elem: Elem) -> bool {
        let tolerance = if elem == Elem::F32 { TOLERANCE } else { TOLERANCE_F16 };
        matches!(self, Self::Error(error) if *error <= tolerance)
    }
}

/// Holds an output against what is expected. NaN is right where NaN is expected, infinity where
/// the same infinity is; f16 stores the largest number for infinity. Zeros are right where all is
/// zero, and nothing else is then.
pub(super) fn judge(found: &[f32], expected: &[f64], elem: Elem) -> Judgement {
    let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
    for (element, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let value = f64::from(found);
        if value.is_finite() && expected.is_finite() {
            worst = worst.max((value - expected).abs());
            largest = largest.max(expected.abs());
        } else {
            let saturated =
                elem != Elem::F32 && expected.is_infinite() && value == F16_MAX.copysign(expected);
            if !(value.is_nan() && expected.is_nan() || value == expected || saturated) {
                return Judgement::Wrong { element, found, expected };
            }
        }
    }
    Judgement::Error(match (worst, largest) {
        (0.0, _) => 0.0,
        (_, 0.0) => f64::INFINITY,
        _ => worst / largest,
    })
}

/// The first finite value that f16 cannot hold.
pub(super) fn past_f16(values: &[f64]) -> Option<f64> {
    values.iter().copied().find(|value| value.is_finite() && value.abs() > F16_MAX)
}

/// The largest of values none of which f16 holds in full precision, so that rounding may take all
/// of them.
pub(super) fn below_f16(values: &[f64]) -> Option<f64> {
    let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    (largest > 0.0 && largest < F16_MIN).then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_right_where_all_is_zero() {
        assert_eq!(judge(&[0.0, -0.0], &[0.0, 0.0], Elem::F32), Judgement::Error(0.0));
        let off = judge(&[0.0, 1e-30], &[0.0, 0.0], Elem::F32);
        assert_eq!(off, Judgement::Error(f64::INFINITY));
        assert!(!off.is_right(Elem::F32) && !off.is_right(Elem::F16));
    }

    #[test]
    fn nan_and_infinity_are_right_where_they_belong() {
        let inf = f64::INFINITY;
        let right = judge(
            &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.0],
            &[f64::NAN, inf, -inf, 2.0],
            Elem::F32,
        );
        assert_eq!(right, Judgement::Error(0.0));
        let cases = [
            (0.0, f64::NAN),
            (f32::NAN, 0.0),
            (f32::NAN, inf),
            (f32::INFINITY, -inf),
            (f32::INFINITY, 1.0),
        ];
        for (found, expected) in cases.into_iter().chain([(65504.0, inf)]) {
            let verdict = judge(&[1.0, found], &[1.0, expected], Elem::F32);
            assert!(
                matches!(verdict, Judgement::Wrong { element: 1, .. }),
                "{found} for {expected}: {verdict:?}"
            );
            assert!(!verdict.is_right(Elem::F32));
        }
        // f16 saturates, to the side of the infinity.
        assert_eq!(
            judge(&[65504.0, -65504.0], &[inf, -inf], Elem::F16Storage),
            Judgement::Error(0.0)
        );
        assert!(!judge(&[-65504.0], &[inf], Elem::F16).is_right(Elem::F16));
    }

    #[test]
    fn errors_are_relative_to_the_largest_output_and_not_rounded() {
        // 1 + 2^-30 is 1 in f32: the expected output must not be rounded to it.
        let expected = [1.0 + 2.0_f64.powi(-30), -4.0];
        let Judgement::Error(error) = judge(&[1.0, -4.0], &expected, Elem::F32) else {
            panic!("all is finite")
        };
        assert!((error - 2.0_f64.powi(-32)).abs() < 1e-20, "{error}");
        assert!(
            Judgement::Error(1e-5).is_right(Elem::F32)
                && !Judgement::Error(1.1e-5).is_right(Elem::F32)
        );
        assert!(
            Judgement::Error(4e-3).is_right(Elem::F16)
                && !Judgement::Error(5e-3).is_right(Elem::F16)
        );
        assert!(!Judgement::Error(f64::NAN).is_right(Elem::F32));
    }

    #[test]
    fn the_range_of_f16_is_that_of_finite_numbers() {
        assert_eq!(past_f16(&[65504.0, f64::INFINITY, f64::NAN]), None);
        assert_eq!(past_f16(&[1.0, -65505.0]), Some(-65505.0));
        assert_eq!(below_f16(&[1e-5, -6e-5, f64::NAN]), Some(6e-5));
        assert!(
            [&[0.0, -0.0][..], &[1e-9, 7e-5], &[f64::INFINITY, 1e-9], &[]]
                .iter()
                .all(|v| below_f16(v).is_none())
        );
    }
}
