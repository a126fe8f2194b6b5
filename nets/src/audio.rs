//! What audio networks take in place of samples: spectra over time, in bands like those of the ear.
//!
//! ```
//! use dynconv_nets::audio::{FrontEnd, resample};
//!
//! # fn main() -> dynconv::Result<()> {
//! let recorded: Vec<f32> = (0..44_100_u16).map(|i| (0.1 * f32::from(i)).sin()).collect();
//! let front_end = FrontEnd::DyMn;
//! let samples = resample(&recorded, 44_100, front_end.sample_rate())?;
//! let spectrum = front_end.spectrum(&samples)?;
//! assert_eq!(front_end.input_shape(spectrum.frames), [1, 1, 128, 100]);
//! # Ok(())
//! # }
//! ```
//!
//! Samples are of one channel, and 1 is full scale. All is computed in f64; what comes out is f32.

use dynconv::{Error, Result};
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

/// Bands of a spectrum.
pub const BANDS: usize = 128;

/// The lowest sample rate that [`resample`] takes, in Hz.
pub const LOWEST_RATE: u32 = 1_000;

/// The highest sample rate that [`resample`] takes, in Hz.
pub const HIGHEST_RATE: u32 = 768_000;

/// How a family of networks hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrontEnd {
    /// DyMN: `AugmentMelSTFT` of fschmid56/EfficientAT in evaluation, at 32 kHz.
    ///
    /// ```text
    /// x[t] = s[t + 1] - 0.97 s[t]
    /// X = STFT of x: frames of 1024, Hann window of 800 (symmetric) in their middle, hop 320
    /// y = (ln(M |X|^2 + 1e-5) + 4.5) / 5
    /// ```
    ///
    /// M has 128 triangles, equal and straight over Kaldi's mel, 1127 ln(1 + f / 700), from 0 to
    /// 15,000 Hz. The end is the default of that code: half the rate, less half the 2,000 Hz that
    /// training moves it by.
    DyMn,
    /// FDY-CRNN: `MelSpectrogram`, `take_log` and `Scaler` of frednam93/FDY-SED, at 16 kHz.
    ///
    /// ```text
    /// x = s / (max |s| + 1e-10)
    /// X = STFT of x: frames of 2048, Hamming window (symmetric), hop 256
    /// d = 20 log10(max(M |X|, 1e-5)), not below -50, not above 80
    /// y = (d - min d) / (max d - min d + 1e-8), where min and max are a band's, over all frames
    /// ```
    ///
    /// M has 128 triangles from 0 to 8,000 Hz: corners equal over HTK's mel,
    /// 2595 log10(1 + f / 700), sides straight over Hz.
    ///
    /// The published code takes min and max of a band over all clips of a batch. Here a clip is
    /// alone, so that what comes out does not depend on others.
    FdyCrnn,
}

/// Rate in Hz, and samples.
struct Sizes {
    sample_rate: u32,
    frame: usize,
    window: usize,
    hop: usize,
    /// Samples that are lost before the frames.
    lost: usize,
}

const DYMN: Sizes = Sizes { sample_rate: 32_000, frame: 1024, window: 800, hop: 320, lost: 1 };
const FDY_CRNN: Sizes = Sizes { sample_rate: 16_000, frame: 2048, window: 2048, hop: 256, lost: 0 };

/// Share of a sample that is taken from the one after it.
const PRE_EMPHASIS: f64 = 0.97;
/// Where DyMN's bands end, in Hz.
const DYMN_HIGHEST: f64 = 15_000.0;
/// Power below which DyMN's logarithm is flat.
const DYMN_FLOOR: f64 = 1e-5;
/// What takes DyMN's logarithms to about -1 to 1: added, and then divided by.
const DYMN_SCALE: [f64; 2] = [4.5, 5.0];
/// Where FDY-CRNN's bands end, in Hz.
const FDY_HIGHEST: f64 = 8_000.0;
/// Amplitude below which FDY-CRNN's logarithm is flat.
const FDY_FLOOR: f64 = 1e-5;
/// Decibels between which FDY-CRNN's are kept.
const FDY_RANGE: [f64; 2] = [-50.0, 80.0];
/// Added to the loudest sample of a clip, and to the range of a band, before a division.
const FDY_EPSILONS: [f64; 2] = [1e-10, 1e-8];
/// a of the window a - (1 - a) cos.
const HANN: f64 = 0.5;
const HAMMING: f64 = 0.54;

/// Bands over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Points in time, a hop apart.
    pub frames: usize,
    /// `[BANDS, frames]`, the lowest band first.
    pub values: Vec<f32>,
}

impl FrontEnd {
    const fn sizes(self) -> Sizes {
        match self {
            Self::DyMn => DYMN,
            Self::FdyCrnn => FDY_CRNN,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::DyMn => "DyMN",
            Self::FdyCrnn => "FDY-CRNN",
        }
    }

    /// Samples a second that the network was trained with: 32,000 or 16,000.
    #[must_use]
    pub const fn sample_rate(self) -> u32 {
        self.sizes().sample_rate
    }

    /// Samples that a frame looks at: 1024 or 2048.
    #[must_use]
    pub const fn frame(self) -> usize {
        self.sizes().frame
    }

    /// Samples from one frame to the next: 320 or 256, so that a second has 100 or 62.5 frames.
    #[must_use]
    pub const fn hop(self) -> usize {
        self.sizes().hop
    }

    /// Seconds that the published code makes every clip last, with silence behind it or a cut; if
    /// it does. It matters: silence goes into the minimum of FDY-CRNN's bands.
    /// [`FrontEnd::spectrum`] takes clips as they are.
    #[must_use]
    pub const fn clip_seconds(self) -> Option<u32> {
        match self {
            Self::DyMn => None,
            Self::FdyCrnn => Some(10),
        }
    }

    /// The fewest samples that give a spectrum: 514 or 1025. The ends of a clip are reflected by
    /// half a frame, for which there must be more than that.
    #[must_use]
    pub const fn shortest(self) -> usize {
        let Sizes { frame, lost, .. } = self.sizes();
        frame / 2 + 1 + lost
    }

    /// Frames of so many samples.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are fewer than [`FrontEnd::shortest`].
    pub fn frames(self, samples: usize) -> Result<usize> {
        let Sizes { sample_rate, hop, lost, .. } = self.sizes();
        if samples < self.shortest() {
            return Err(Error::Shape {
                what: format!("clip for {}", self.name()),
                expected: format!("at least {} samples at {sample_rate} Hz", self.shortest()),
                found: format!("{samples}"),
            });
        }
        Ok(1 + (samples - lost) / hop)
    }

    /// Shape of the network's input for one clip: `[1, 1, 128, frames]` or `[1, 128, frames]`.
    #[must_use]
    pub fn input_shape(self, frames: usize) -> Vec<usize> {
        match self {
            Self::DyMn => vec![1, 1, BANDS, frames],
            Self::FdyCrnn => vec![1, BANDS, frames],
        }
    }

    /// The network's input for one clip, of one channel at [`FrontEnd::sample_rate`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a clip that is too short, [`Error::Value`] for a sample that is NaN or
    /// infinite.
    pub fn spectrum(self, samples: &[f32]) -> Result<Spectrum> {
        let frames = self.frames(samples.len())?;
        check_finite(samples)?;
        let values = match self {
            Self::DyMn => dymn(samples)?,
            Self::FdyCrnn => fdy_crnn(samples, frames)?,
        };
        Ok(Spectrum { frames, values: dynconv::reference::narrow(&values) })
    }
}

fn dymn(samples: &[f32]) -> Result<Vec<f64>> {
    let emphasised = |pair: &[f32]| f64::from(pair[1]) - PRE_EMPHASIS * f64::from(pair[0]);
    let samples: Vec<f64> = samples.windows(2).map(emphasised).collect();
    let mel = |hz: f64| 1127.0 * (1.0 + hz / 700.0).ln();
    // The last frequency belongs to no band: Kaldi leaves it out.
    let bins: Vec<f64> = frequencies(&DYMN).map(mel).take(DYMN.frame / 2).collect();
    let bands = triangles(&corners(mel(DYMN_HIGHEST)), &bins);
    let power = in_bands(&DYMN, HANN, &samples, &bands, Complex::norm_sqr)?;
    let [shift, scale] = DYMN_SCALE;
    Ok(power.into_iter().map(|power| ((power + DYMN_FLOOR).ln() + shift) / scale).collect())
}

fn fdy_crnn(samples: &[f32], frames: usize) -> Result<Vec<f64>> {
    let loudest = samples.iter().fold(0.0, |loudest, s| s.abs().max(loudest));
    let [of_peak, of_range] = FDY_EPSILONS;
    let peak = f64::from(loudest) + of_peak;
    let samples: Vec<f64> = samples.iter().map(|&sample| f64::from(sample) / peak).collect();
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f64| 700.0 * (10_f64.powf(mel / 2595.0) - 1.0);
    let bins: Vec<f64> = frequencies(&FDY_CRNN).collect();
    let bands = triangles(&corners(mel(FDY_HIGHEST)).map(hz), &bins);
    let mut values = in_bands(&FDY_CRNN, HAMMING, &samples, &bands, |x| x.norm())?;
    let [lowest, highest] = FDY_RANGE;
    for band in values.chunks_exact_mut(frames) {
        let [mut least, mut most] = [f64::INFINITY, f64::NEG_INFINITY];
        for value in &mut *band {
            *value = (20.0 * value.max(FDY_FLOOR).log10()).clamp(lowest, highest);
            (least, most) = (least.min(*value), most.max(*value));
        }
        for value in band {
            *value = (*value - least) / (most - least + of_range);
        }
    }
    Ok(values)
}

fn check_finite(samples: &[f32]) -> Result<()> {
    match samples.iter().position(|sample| !sample.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::Value {
            what: format!("clip, sample {i}"),
            needed: "a finite number".into(),
            found: samples[i].to_string(),
        }),
    }
}

/// Frequencies of a transform, in Hz: from 0 to half the rate.
fn frequencies(sizes: &Sizes) -> impl Iterator<Item = f64> {
    let [rate, frame] = [f64::from(sizes.sample_rate), sizes.frame as f64];
    (0..=sizes.frame / 2).map(move |bin| bin as f64 * rate / frame)
}

/// Where bands begin, peak and end: equal steps from 0 to `highest`. Band b begins at b, peaks at
/// b + 1 and ends at b + 2.
fn corners(highest: f64) -> [f64; BANDS + 2] {
    std::array::from_fn(|i| i as f64 * highest / (BANDS + 1) as f64)
}

/// What a band takes of the frequencies from its first on.
struct Band {
    first: usize,
    weights: Vec<f64>,
}

/// Triangles of height 1 between corners; frequencies are told in the unit of the corners.
fn triangles(corners: &[f64; BANDS + 2], bins: &[f64]) -> Vec<Band> {
    let triangle = |corners: &[f64]| {
        let (left, centre, right) = (corners[0], corners[1], corners[2]);
        let first = bins.partition_point(|&bin| bin <= left);
        let weight = |&bin: &f64| {
            let (up, down) = ((bin - left) / (centre - left), (right - bin) / (right - centre));
            up.min(down)
        };
        Band { first, weights: bins[first..].iter().map(weight).take_while(|&w| w > 0.0).collect() }
    };
    corners.windows(3).map(triangle).collect()
}

/// The short-time Fourier transform as `torch.stft` has it with `center=True`, each number of it
/// taken by `size`, summed in bands: `[BANDS, frames]`.
fn in_bands(
    sizes: &Sizes,
    window: f64,
    samples: &[f64],
    bands: &[Band],
    size: impl Fn(&Complex<f64>) -> f64,
) -> Result<Vec<f64>> {
    let half = sizes.frame / 2;
    let before = samples[1..=half].iter().rev();
    let after = samples[samples.len() - 1 - half..samples.len() - 1].iter().rev();
    let padded: Vec<f64> = before.chain(samples).chain(after).copied().collect();
    // In the middle of the frame; its first and last sample are equal.
    let first = (sizes.frame - sizes.window) / 2;
    let step = std::f64::consts::TAU / (sizes.window - 1) as f64;
    let window: Vec<f64> =
        (0..sizes.window).map(|i| window - (1.0 - window) * (step * i as f64).cos()).collect();

    let transform = RealFftPlanner::<f64>::new().plan_fft_forward(sizes.frame);
    let mut frame = transform.make_input_vec();
    let mut numbers = transform.make_output_vec();
    let mut scratch = transform.make_scratch_vec();
    let frames = 1 + samples.len() / sizes.hop;
    let mut values = vec![0.0; bands.len() * frames];
    for (at, samples) in padded.windows(sizes.frame).step_by(sizes.hop).enumerate() {
        frame.fill(0.0);
        let windowed = samples[first..].iter().zip(&window).map(|(sample, weight)| sample * weight);
        for (to, sample) in frame[first..].iter_mut().zip(windowed) {
            *to = sample;
        }
        let transformed = transform.process_with_scratch(&mut frame, &mut numbers, &mut scratch);
        transformed.map_err(|error| unsupported("a Fourier transform", &error))?;
        let sizes: Vec<f64> = numbers.iter().map(&size).collect();
        for (Band { first, weights }, values) in bands.iter().zip(values.chunks_exact_mut(frames)) {
            let terms = sizes[*first..].iter().zip(weights).map(|(size, weight)| size * weight);
            values[at] = terms.sum();
        }
    }
    Ok(values)
}

fn unsupported(what: &str, because: &dyn std::error::Error) -> Error {
    Error::Unsupported { what: what.into(), because: because.to_string() }
}

/// Samples that the resampler transforms together, before they are made to fit both rates.
const RESAMPLED_TOGETHER: usize = 4096;

/// Samples at another rate, of which there are `samples.len() * to / from`, rounded up. Sample 0
/// stays where it is. What is near half the lower rate and above it is filtered out.
///
/// The filter is that of [`rubato::Fft`], and not one of those that published codes use.
///
/// # Errors
/// [`Error::Value`] for a sample that is NaN or infinite, and a rate below [`LOWEST_RATE`] or
/// above [`HIGHEST_RATE`].
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    for rate in [from, to] {
        if !(LOWEST_RATE..=HIGHEST_RATE).contains(&rate) {
            return Err(Error::Value {
                what: "sample rate".into(),
                needed: format!("{LOWEST_RATE} to {HIGHEST_RATE} Hz"),
                found: format!("{rate} Hz"),
            });
        }
    }
    check_finite(samples)?;
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let fault = |error: &dyn std::error::Error| {
        unsupported(&format!("resampling {} samples from {from} to {to} Hz", samples.len()), error)
    };
    let mut resampler = Fft::<f64>::new_custom(
        from as usize,
        to as usize,
        RESAMPLED_TOGETHER,
        1,
        1,
        WindowFunction::BlackmanHarris2,
        FixedSync::Input,
    )
    .map_err(|error| fault(&error))?;
    let samples = dynconv::reference::widen(samples);
    let count = samples.len();
    let clip = InterleavedSlice::new(&samples, 1, count).map_err(|error| fault(&error))?;
    let made = resampler.process_all(&clip, count, None).map_err(|error| fault(&error))?;
    let mut made = dynconv::reference::narrow(&made.take_data());
    // The resampler rounds a quotient of floats up, and may give one sample more.
    let exact = (count as u64 * u64::from(to)).div_ceil(from.into());
    made.truncate(usize::try_from(exact).unwrap_or(usize::MAX));
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours meet at their corners, so that between the first peak and the last the weights of
    /// a frequency add up to 1.
    #[test]
    fn bands_share_every_frequency_between_them() {
        for (corners, bins) in [
            (corners(1000.0), (0..500).map(|i| f64::from(i) * 2.0).collect::<Vec<_>>()),
            (corners(130.0).map(|x| x * x), (0..1000).map(|i| f64::from(i) * 16.9).collect()),
        ] {
            let bands = triangles(&corners, &bins);
            assert_eq!(bands.len(), BANDS);
            let mut sums = vec![0.0; bins.len()];
            for Band { first, weights } in &bands {
                for (sum, weight) in sums[*first..].iter_mut().zip(weights) {
                    *sum += weight;
                }
            }
            for (bin, sum) in bins.iter().zip(sums) {
                if (corners[1]..=corners[BANDS]).contains(bin) {
                    assert!((sum - 1.0).abs() < 1e-12, "{bin}: {sum}");
                }
            }
        }
    }

    #[test]
    fn an_empty_band_is_no_fault() {
        let bands = triangles(&corners(130.0), &[0.0, 60.0]);
        assert_eq!(bands.iter().filter(|band| !band.weights.is_empty()).count(), 2);
    }
}
