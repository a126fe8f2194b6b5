//! `dynconv tag`: what sounds are, by a network that hears them as a spectrum.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use dynconv::layers::AnyLayer;
use dynconv_nets::audio::{self, FrontEnd};
use dynconv_nets::{Family, Network};
use hound::{SampleFormat, WavReader};

use super::answers::{self, Answer, Labels};
use super::weights::{self, Untold};
use crate::progress::Progress;
use crate::say::warn;
use crate::target::Target;
use crate::{AdapterArgs, Usage, adapter_line, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The sounds, WAV; several channels are mixed, and any sample rate is taken to the network's
    #[arg(value_name = "SOUND", required = true)]
    sounds: Vec<PathBuf>,
    /// The checkpoint: safetensors, or a file of PyTorch
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    untold: Untold,
    /// Labels, one a line, in the order of the classes
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Classes to print of each sound
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Make every sound so long, with silence behind it or a cut; FDY-CRNN was trained with 10, and
    /// has that unless told
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=LONGEST))]
    seconds: Option<u32>,
    /// Also write the classes to this file, a line of JSON a sound; `-` is standard output, and all
    /// else then goes to standard error
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// Seconds of a day.
const LONGEST: i64 = 86_400;

/// What a family hears of a sound.
pub(super) fn front_end(family: Family) -> Option<FrontEnd> {
    match family {
        Family::DyMn => Some(FrontEnd::DyMn),
        Family::FdyCrnn => Some(FrontEnd::FdyCrnn),
        _ => None,
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    Usage::unless(options.top > 0, || "--top: expected at least 1, found 0".into())?;
    let labels = options.labels.as_deref().map(answers::read_labels).transpose()?;
    let path = &options.weights;
    let bytes = weights::read(path)?;
    let (checkpoint, family) = weights::open(path, &bytes)?;
    let name = path.display();
    let front_end = front_end(family)
        .with_context(|| format!("{name}: expected a network of sounds, found {family}"))?;
    let json = Target::open(options.json.as_deref())?;
    let context = options.adapter.context()?;
    let network = weights::network(&context, (path, &checkpoint, family), options.untold)?;
    // Any length has the same classes.
    let second = front_end.frames(front_end.sample_rate() as usize)?;
    let classes = network.output_shape(&front_end.input_shape(second))?.iter().product();
    let labels = Labels::of(labels, options.labels.as_deref(), classes)?;
    println!("network: {family}, {classes} classes");
    println!("adapter: {}", adapter_line(context.caps()));
    stop::listen()?;

    let seconds = options.seconds.or(front_end.clip_seconds());
    let has_bar = options.sounds.len() > 1;
    let progress = Progress::new(has_bar.then_some(options.sounds.len()), "sounds");
    let mut answers: Vec<(&Path, Answer)> = Vec::new();
    for sound in &options.sounds {
        if stop::is_asked() {
            break;
        }
        let answer = tag(&network, front_end, sound, seconds);
        if let Err(error) = &answer {
            progress.suspend(|| warn(format_args!("error: {error:#}\n")));
        }
        answers.push((sound, answer));
        if has_bar {
            progress.inc(1);
        }
    }
    progress.finish();
    let count = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    if count > 0 {
        println!("{}", answers::table("sound", &answers, options.top, &labels));
    }
    if count < options.sounds.len() {
        println!("{count} of {} sounds were tagged", options.sounds.len());
    }
    json.write(&answers::lines(&answers, options.top, &labels))?;
    Ok(stop::status(count == options.sounds.len()))
}

/// What a sound is.
fn tag(network: &Network, front_end: FrontEnd, path: &Path, seconds: Option<u32>) -> Answer {
    let name = || path.display().to_string();
    let samples = Sound::read(path)?.samples_for(front_end, seconds).with_context(name)?;
    let spectrum = front_end.spectrum(&samples).with_context(name)?;
    let outputs = network.run(&front_end.input_shape(spectrum.frames), &spectrum.values)?;
    let is_finite = outputs.iter().all(|output| output.is_finite());
    ensure!(is_finite, "{}: the network's output is not finite", path.display());
    Ok(answers::by_probability(probabilities(front_end, &outputs)))
}

/// Probabilities of the classes, each for itself: more than one may be heard.
fn probabilities(front_end: FrontEnd, outputs: &[f32]) -> Vec<f64> {
    let outputs = outputs.iter().map(|&output| f64::from(output));
    match front_end {
        // Logits.
        FrontEnd::DyMn => outputs.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        // Probabilities already.
        _ => outputs.collect(),
    }
}

/// A sound of one channel.
#[derive(Debug, PartialEq)]
struct Sound {
    /// Samples a second.
    rate: u32,
    /// How many were mixed.
    channels: u16,
    /// 1 is full scale.
    samples: Vec<f32>,
}

impl Sound {
    /// Reads a WAV file: integers of up to 32 bits, or floats of 32.
    fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let reader = WavReader::new(BufReader::new(file))
            .with_context(|| format!("{name} is no WAV file that can be read"))?;
        let spec = reader.spec();
        let all: hound::Result<Vec<f64>> = match spec.sample_format {
            SampleFormat::Float => {
                reader.into_samples::<f32>().map(|sample| sample.map(f64::from)).collect()
            }
            SampleFormat::Int => {
                let full = 2_f64.powi(i32::from(spec.bits_per_sample) - 1);
                let share = |sample: i32| f64::from(sample) / full;
                reader.into_samples::<i32>().map(|sample| sample.map(share)).collect()
            }
        };
        let all = all.with_context(|| format!("cannot read the samples of {name}"))?;
        ensure!(!all.is_empty(), "{name} has no samples");
        let channels = f64::from(spec.channels);
        let mixed = all.chunks(spec.channels.into()).map(|at| at.iter().sum::<f64>() / channels);
        let samples = dynconv::reference::narrow(&mixed.collect::<Vec<_>>());
        Ok(Self { rate: spec.sample_rate, channels: spec.channels, samples })
    }

    /// The sound at a network's rate, and as long as wanted.
    fn samples_for(&self, front_end: FrontEnd, seconds: Option<u32>) -> dynconv::Result<Vec<f32>> {
        let rate = front_end.sample_rate();
        let kept = seconds.map(|seconds| seconds as usize);
        // What is cut need not be resampled, but what the filter sees at the cut: a second more.
        let used =
            kept.map_or(usize::MAX, |seconds| (seconds + 1).saturating_mul(self.rate as usize));
        let used = &self.samples[..used.min(self.samples.len())];
        let mut samples = audio::resample(used, self.rate, rate)?;
        if let Some(seconds) = kept {
            samples.resize(seconds * rate as usize, 0.0);
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use hound::{WavSpec, WavWriter};

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("dynconv-tag-{}-{name}.wav", std::process::id()))
    }

    /// Writes samples as they are, reads them as a sound, and takes the file away.
    fn through<S: hound::Sample + Copy>(
        format: (SampleFormat, u16),
        channels: u16,
        samples: &[S],
    ) -> Result<Sound> {
        let (sample_format, bits_per_sample) = format;
        let path = scratch(&format!("{sample_format:?}-{bits_per_sample}-{channels}"));
        let spec = WavSpec { channels, sample_rate: 22_050, bits_per_sample, sample_format };
        let mut writer = WavWriter::create(&path, spec).expect("writable");
        for &sample in samples {
            writer.write_sample(sample).expect("writable");
        }
        writer.finalize().expect("writable");
        let sound = Sound::read(&path);
        std::fs::remove_file(&path).expect("is there");
        sound
    }

    #[test]
    fn every_width_of_samples_gives_shares_of_full_scale() {
        for bits in [8_u16, 16, 24, 32] {
            let quarter = 1_i32 << (bits - 3);
            let samples = [0, quarter, -quarter, -4 * quarter, 3 * quarter];
            let sound = through((SampleFormat::Int, bits), 1, &samples).expect("readable");
            assert_eq!(sound.samples, [0.0, 0.25, -0.25, -1.0, 0.75], "{bits} bits");
            assert_eq!([sound.rate, sound.channels.into()], [22_050, 1]);
        }
        let floats = [0.0, 0.25, -1.5, f32::MIN_POSITIVE];
        let sound = through((SampleFormat::Float, 32), 1, &floats).expect("readable");
        assert_eq!(sound.samples, floats);
    }

    #[test]
    fn channels_are_mixed_to_their_mean() {
        let samples = [16_384_i16, 0, -16_384, 0, -32_768, -32_768];
        let sound = through((SampleFormat::Int, 16), 2, &samples).expect("readable");
        assert_eq!(sound.samples, [0.25, -0.25, -1.0]);
        let sound = through((SampleFormat::Int, 16), 3, &samples).expect("readable");
        assert_eq!((sound.samples.len(), sound.channels), (2, 3));
    }

    #[test]
    fn a_sound_is_filled_or_cut_to_what_the_network_was_trained_with() {
        let sound = Sound { rate: 16_000, channels: 1, samples: vec![0.5; 40_000] };
        for (front_end, seconds, count) in [
            (FrontEnd::FdyCrnn, None, 40_000),
            (FrontEnd::FdyCrnn, Some(1), 16_000),
            (FrontEnd::FdyCrnn, Some(10), 160_000),
            (FrontEnd::DyMn, None, 80_000),
            (FrontEnd::DyMn, Some(2), 64_000),
        ] {
            let samples = sound.samples_for(front_end, seconds).expect("is possible");
            assert_eq!(samples.len(), count, "{front_end:?}, {seconds:?}");
        }
        let filled = sound.samples_for(FrontEnd::FdyCrnn, Some(10)).expect("is possible");
        assert_eq!(filled[..40_000], sound.samples);
        assert!(filled[40_000..].iter().all(|&sample| sample == 0.0));
        // A cut is not heard before it.
        let [whole, cut] = [None, Some(2)]
            .map(|seconds| sound.samples_for(FrontEnd::DyMn, seconds).expect("is possible"));
        assert_eq!(whole[..64_000], cut);
    }

    #[test]
    fn what_is_no_sound_is_refused_by_name() {
        let refused = |bytes: &[u8], name: &str| {
            let path = scratch(name);
            std::fs::write(&path, bytes).expect("writable");
            let error = format!("{:#}", Sound::read(&path).expect_err("is refused"));
            std::fs::remove_file(&path).expect("is there");
            assert!(error.contains(name), "{error}");
            error
        };
        let is_no_wav = "is no WAV file that can be read";
        assert!(refused(b"", "empty").contains(is_no_wav));
        assert!(refused(b"RIFF, but no more than that", "riff").contains(is_no_wav));

        let mut wav = std::io::Cursor::new(Vec::new());
        let spec = WavSpec {
            channels: 1,
            sample_rate: 8_000,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut writer = WavWriter::new(&mut wav, spec).expect("writable");
        for sample in 0..100_i16 {
            writer.write_sample(sample).expect("writable");
        }
        writer.finalize().expect("writable");
        let wav = wav.into_inner();
        assert!(refused(&wav[..wav.len() - 51], "cut").starts_with("cannot read the samples of "));
        for end in 0..44 {
            refused(&wav[..end], "header");
        }
        let none = through::<i16>((SampleFormat::Int, 16), 1, &[]).expect_err("is refused");
        assert!(none.to_string().ends_with(" has no samples"), "{none}");
        let none = Sound::read(Path::new("/no/such/sound.wav")).expect_err("is refused");
        assert_eq!(none.to_string(), "cannot read /no/such/sound.wav");
    }

    #[test]
    fn a_rate_that_is_none_is_refused() {
        let sound = Sound { rate: 0, channels: 1, samples: vec![0.5; 40_000] };
        for seconds in [None, Some(10)] {
            let error = sound.samples_for(FrontEnd::DyMn, seconds).expect_err("is refused");
            assert!(error.to_string().ends_with("found 0 Hz"), "{error}");
        }
    }

    #[test]
    fn logits_become_probabilities_and_probabilities_stay() {
        let logits = [0.0, 1000.0, -1000.0];
        assert_eq!(probabilities(FrontEnd::DyMn, &logits), [0.5, 1.0, 0.0]);
        assert_eq!(probabilities(FrontEnd::FdyCrnn, &[0.25, 1.0]), [0.25, 1.0]);
    }
}
