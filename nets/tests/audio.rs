//! Front ends against their formulas in numpy (`audio/make.py`), and wrong clips.
#![cfg(feature = "audio")]

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

use dynconv::reference::{narrow, widen};
use dynconv::{Checkpoint, Error};
use dynconv_nets::audio::{BANDS, FrontEnd, HIGHEST_RATE, resample};

const BOTH: [(FrontEnd, &str); 2] = [(FrontEnd::DyMn, "dymn"), (FrontEnd::FdyCrnn, "fdy_crnn")];

fn golden() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audio");
    fs::read(folder.join("golden.safetensors")).expect("readable")
}

/// Largest difference, and largest number. NaN is an infinite difference.
fn difference(found: &[f32], expected: &[f64]) -> [f64; 2] {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let differences = pairs.map(|(&a, b)| (f64::from(a) - b).abs());
    let nan_is_most = |a: f64, b: f64| if b.is_nan() { f64::INFINITY } else { a.max(b) };
    let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    [differences.fold(0.0, nan_is_most), largest]
}

/// Both sides compute in f64, and ours ends in f32: half a unit in the last place of the largest
/// number, which is at most 2^-24 of it.
///
/// Before that, a transform of N = 2048 numbers x is off by 3e-15 |X| at most (twice log2(N) times
/// 2^-53; |X| is at most the sum of |x|, below 2^11). A logarithm divides that by its floor, or by
/// what it is told of, which is more: amplitudes below 3e-3 are flat (the square root of 1e-5, and
/// -50 dB). So it adds at most 2 * 3e-15 * 2^11 / 3e-3 = 4e-9, of which the scales take less than
/// half.
const ROUNDING: f64 = 4e-9;

#[test]
fn spectra_are_those_of_the_formulas() {
    let golden = golden();
    let golden = Checkpoint::new(&golden).expect("is one");
    for (front_end, name) in BOTH {
        let clip = format!("clip.{name}");
        let shape = golden.shape(&clip).expect("has a clip").to_vec();
        let clip = golden.tensor(&clip, &shape).expect("has a clip");
        let expected = golden.values(&format!("spectrum.{name}")).expect("has a spectrum");
        let found = front_end.spectrum(&clip).expect("is long enough");
        assert_eq!(found.frames, front_end.frames(clip.len()).expect("is long enough"));
        assert_eq!(
            golden.shape(&format!("spectrum.{name}")),
            Some(&[BANDS, found.frames][..]),
            "{name}"
        );
        let [difference, largest] = difference(&found.values, &expected);
        println!("{name}: {difference:.1e} of {largest:.2}");
        let tolerance = largest * 2_f64.powi(-24) + ROUNDING;
        assert!(difference <= tolerance, "{name}: {difference:e} of {largest}");
    }
}

/// A tenth of a second, or several.
fn sine(hz: f64, rate: u32, tenths: u32) -> Vec<f32> {
    let angle = |i: u32| TAU * hz * f64::from(i) / f64::from(rate);
    let samples: Vec<f64> = (0..rate * tenths / 10).map(|i| 0.5 * angle(i).sin()).collect();
    narrow(&samples)
}

/// The loudest band of a tone, by the formulas of mel alone.
#[test]
fn a_tone_is_loudest_in_its_band() {
    for hz in [500.0_f64, 1000.0, 3000.0, 7000.0] {
        let tone = sine(hz, FrontEnd::DyMn.sample_rate(), 2);
        let spectrum = FrontEnd::DyMn.spectrum(&tone).expect("is long enough");
        let middle = spectrum.values.chunks_exact(spectrum.frames).map(|band| band[10]);
        let loudest = middle.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("has bands").0;
        let mel = |hz: f64| (1.0 + hz / 700.0).ln();
        let band = mel(hz) / mel(15_000.0) * (BANDS + 1) as f64 - 1.0;
        assert!((loudest as f64 - band).abs() <= 1.0, "{hz} Hz: {loudest}, expected {band}");
    }
}

#[test]
fn the_loudness_of_a_clip_is_nothing_to_fdy_crnn() {
    let [loud, soft] = [1.0, 2_f32.powi(-6)].map(|gain| {
        let tone: Vec<f32> = sine(440.0, 16_000, 5).iter().map(|sample| sample * gain).collect();
        FrontEnd::FdyCrnn.spectrum(&tone).expect("is long enough").values
    });
    // What is added to the loudest sample is 1.3e-8 of it, and f32 rounds by 6e-8.
    let [difference, _] = difference(&soft, &widen(&loud));
    assert!(difference < 1e-6, "{difference:e}");
}

#[test]
fn silence_has_a_spectrum() {
    let flat = (1e-5_f64.ln() + 4.5) / 5.0;
    for (front_end, value) in [(FrontEnd::DyMn, flat), (FrontEnd::FdyCrnn, 0.0)] {
        let spectrum = front_end.spectrum(&[0.0; 4000]).expect("is long enough");
        let count = spectrum.values.len();
        assert_eq!(spectrum.values, narrow(&vec![value; count]), "{front_end:?}");
    }
}

#[test]
fn the_shortest_clip_is_taken_and_a_shorter_one_refused() {
    for ((front_end, _), shortest) in BOTH.into_iter().zip([514, 1025]) {
        assert_eq!(front_end.shortest(), shortest);
        let clip = sine(1000.0, front_end.sample_rate(), 1);
        let spectrum = front_end.spectrum(&clip[..shortest]).expect("is long enough");
        assert_eq!(spectrum.values.len(), BANDS * spectrum.frames);
        for count in [0, 1, shortest - 1] {
            let error = front_end.spectrum(&clip[..count]).expect_err("is too short");
            assert!(matches!(error, Error::Shape { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("at least {shortest} samples at ")), "{text}");
            assert!(text.ends_with(&format!("found {count}")), "{text}");
        }
    }
}

#[test]
fn samples_that_are_no_numbers_are_refused() {
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut clip = vec![0.25; 4000];
        clip[1234] = wrong;
        let expected = format!("clip, sample 1234: needs a finite number, found {wrong}");
        for (front_end, _) in BOTH {
            let error = front_end.spectrum(&clip).expect_err("is refused").to_string();
            assert_eq!(error, expected);
        }
        assert_eq!(resample(&clip, 8_000, 16_000).expect_err("is refused").to_string(), expected);
    }
}

/// The largest samples there are do not become infinite.
#[test]
fn huge_samples_stay_finite() {
    let clip: Vec<f32> = (0..4000).map(|i| if i % 3 == 0 { f32::MAX } else { f32::MIN }).collect();
    for (front_end, _) in BOTH {
        let spectrum = front_end.spectrum(&clip).expect("is long enough");
        assert!(spectrum.values.iter().all(|value| value.is_finite()), "{front_end:?}");
    }
}

/// A tone is the same tone at another rate, where the filter passes it, and silence where not. Side
/// lobes of the filter's window are 92 dB down, which is 2.5e-5: the tolerance is four of them. At
/// its ends the filter sees the clip begin.
#[test]
fn a_tone_is_resampled_in_place() {
    for (from, to) in [(44_100, 32_000), (48_000, 16_000), (8_000, 32_000), (22_050, 16_000)] {
        let (found, expected) =
            (resample(&sine(1000.0, from, 5), from, to).expect("is possible"), sine(1000.0, to, 5));
        assert_eq!(found.len(), expected.len(), "{from} to {to}");
        let inner = expected.len() / 4..expected.len() * 3 / 4;
        let expected = widen(&expected[inner.clone()]);
        let [difference, _] = difference(&found[inner], &expected);
        println!("{from} to {to}: {difference:.1e}");
        assert!(difference < 1e-4, "{from} to {to}: {difference:e}");
    }
    let found = resample(&sine(12_000.0, 48_000, 5), 48_000, 16_000).expect("is possible");
    let loudest = found[2000..6000].iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    println!("above the band: {loudest:.1e}");
    assert!(loudest < 1e-4, "{loudest:e}");
}

#[test]
fn rates_have_limits() {
    assert_eq!(resample(&[0.5, 0.25], 16_000, 16_000).expect("is possible"), [0.5, 0.25]);
    assert!(resample(&[], 44_100, 16_000).expect("is possible").is_empty());
    assert_eq!(resample(&[0.5; 3], 48_000, 16_000).expect("is possible").len(), 1);
    // No common divisor: one transform of all of a second.
    assert_eq!(resample(&[0.5; 48_001], 48_001, 16_000).expect("is possible").len(), 16_000);
    for (from, to) in [(0, 16_000), (16_000, 999), (HIGHEST_RATE + 1, 16_000), (u32::MAX, 16_000)] {
        let error = resample(&[0.5; 3], from, to).expect_err("is refused").to_string();
        assert!(error.starts_with("sample rate: needs 1000 to 768000 Hz, found "), "{error}");
    }
}
