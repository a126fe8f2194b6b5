//! Narrow networks with every structural feature, against float64.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use dynconv::kernels::Variant;
use dynconv::layers::AnyLayer;
use dynconv::program::Memory;
use dynconv::{Checkpoint, Context, Error, Tensor};
use dynconv_nets::{Options, load};
use dynconv_suite::replay::Replay;
use dynconv_suite::variants::{noop, with_lanes};

fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        Context::request_blocking().expect("these tests need a Vulkan, Metal or DX12 adapter")
    })
}

/// Ten times what f32 costs PyTorch in these networks, at most: 1.8e-5 of the largest output.
const TOLERANCE: f64 = 2e-4;

/// What rounding folded weights to f32 may cost: norms in gains and shifts, a basis in the head of
/// an attention. It is a part of what f32 costs here, 6.4e-5 in the deepest network.
const FOLDED: f64 = 6e-5;

/// Largest error, relative to the largest value; NaN is infinite.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let errors = found.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs() / largest);
    errors.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).expect("there are networks");
    let name = |file: fs::DirEntry| file.file_name().to_string_lossy().into_owned();
    let files = files.map(|file| name(file.expect("readable")));
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(".io.safetensors")?.to_owned())).collect();
    names.sort();
    names
}

/// Weights, and input and outputs.
fn read(name: &str) -> [Vec<u8>; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    [format!("{name}.safetensors"), format!("{name}.io.safetensors")]
        .map(|file| fs::read(folder.join(file)).expect("readable"))
}

/// The temperature of a golden network, from its configuration.
fn options(io: &Checkpoint<'_>) -> Options {
    let config = io.metadata("config").expect("has a configuration");
    let (_, rest) = config.split_once("\"temperature\": ").expect("has a temperature");
    let number = rest.split([',', '}']).next().expect("is a number");
    let temperature = (number != "null").then(|| number.parse().expect("is a number"));
    let stem_stride = config.contains("\"stem_stride\": 1").then_some(1);
    Options { temperature, stem_stride, ..Options::default() }
}

/// What the published code makes of logits at the end, if anything.
fn last(io: &Checkpoint<'_>, logits: Vec<f32>, classes: usize) -> Vec<f32> {
    if !io.metadata("config").is_some_and(|config| config.contains("log-softmax")) {
        return logits;
    }
    let samples = logits.chunks_exact(classes);
    samples
        .flat_map(|sample| {
            let largest = sample.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = sample.iter().map(|logit| (logit - largest).exp()).sum();
            sample.iter().map(move |logit| logit - largest - sum.ln()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn stages_and_logits_are_those_of_float64() {
    let names = names();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        let [weights, io] = read(&name);
        let [weights, io] = [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
        let network = load(context(), &weights, &options(&io)).expect("is a network");
        let shape = io.shape("input").expect("has an input").to_vec();
        let x: Vec<f32> = dynconv::reference::narrow(&io.values("input").expect("is there"));

        let mut stages = 0;
        for stage in network.stages() {
            let names = [format!("stage.{stage}"), stage.to_string()];
            let Some(expected) = names.iter().find_map(|name| io.values(name).ok()) else {
                continue;
            };
            stages += 1;
            let until = network.until(stage).expect("is a stage");
            let error = error(&until.run(&shape, &x).expect("runs"), &expected);
            assert!(error <= TOLERANCE, "{name}, {stage}: {error:e}");
        }
        assert!(stages >= 4, "{name}: {stages} stages");

        let output = ["logits", "weak"].into_iter().find(|name| io.contains(name));
        let logits = io.values(output.expect("has an output")).expect("is there");
        let found = network.run(&shape, &x).expect("runs");
        let found = last(&io, found, logits.len() / shape[0]);
        let error = error(&found, &logits);
        assert!(error <= TOLERANCE, "{name}: {error:e}");
        assert_eq!(
            network.output_shape(&shape).expect("fits"),
            [shape[0], logits.len() / shape[0]]
        );

        let program = network.plan(&shape).expect("plans");
        let scratch = program.values().iter().filter(|info| info.memory != Memory::External);
        let apart: u64 = scratch.map(dynconv::program::ValueInfo::bytes).sum();
        let together = program.arena(context().caps()).bytes();
        println!(
            "{name}: {error:.1e}, {together} of {apart} bytes, {} steps",
            program.steps().len()
        );
        let alive = program.most_alive();
        assert!(2 * together <= 3 * alive, "{name}: {together} bytes, {alive} alive at most");
    }
}

/// The reference of a network, from the layers' own formulas and no shader, is that of PyTorch.
/// Weights that were folded are rounded to f32.
#[test]
fn references_are_float64() {
    let context = noop();
    for name in names() {
        let [weights, io] = read(&name);
        let [weights, io] = [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
        let network = load(&context, &weights, &options(&io)).expect("is a network");
        let shape = io.shape("input").expect("has an input").to_vec();
        let x: Vec<f32> = dynconv::reference::narrow(&io.values("input").expect("is there"));
        let x = Tensor::upload(&context, &shape, &x).expect("uploads");
        let output = ["logits", "weak"].into_iter().find(|name| io.contains(name));
        let logits = io.values(output.expect("has an output")).expect("is there");
        let found = network.reference(&x, &[], None).expect("has one");
        let found = last(&io, dynconv::reference::narrow(&found), logits.len() / shape[0]);
        let error = error(&found, &logits);
        println!("{name}: {error:.1e}");
        assert!(error <= FOLDED, "{name}: {error:e}");
    }
}

/// A batch gives the bits of its samples: nothing of one is left for the next in shared memory.
#[test]
fn a_batch_is_its_samples() {
    for name in names() {
        let [weights, io] = read(&name);
        let [weights, io] = [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
        let network = load(context(), &weights, &options(&io)).expect("is a network");
        let mut shape = io.shape("input").expect("has an input").to_vec();
        let x: Vec<f32> = dynconv::reference::narrow(&io.values("input").expect("is there"));
        let whole = network.run(&shape, &x).expect("runs");
        let batch = std::mem::replace(&mut shape[0], 1);
        let sample = x.len() / batch;
        let alone = x.chunks_exact(sample).flat_map(|x| network.run(&shape, x).expect("runs"));
        assert_eq!(whole, alone.collect::<Vec<_>>(), "{name}");
    }
}

/// Shared memory shows nowhere: with NaN in all of it before the run, and with memory of its own
/// for every value, a network gives the same bits.
#[test]
fn shared_memory_shows_nowhere() {
    for name in names() {
        let [weights, io] = read(&name);
        let [weights, io] = [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
        let network = load(context(), &weights, &options(&io)).expect("is a network");
        let shape = io.shape("input").expect("has an input").to_vec();
        let x: Vec<f32> = dynconv::reference::narrow(&io.values("input").expect("is there"));
        let expected = network.run(&shape, &x).expect("runs");

        let x = Tensor::upload(context(), &shape, &x).expect("uploads");
        let y = Tensor::zeros(context(), &network.output_shape(&shape).expect("fits"));
        let y = y.expect("fits");
        let bound = network.bind(&x, &y).expect("binds");
        let apart = Replay::record(context(), &bound, &y).expect("can be recorded");
        let mut poisoned = 0;
        for (_, tensor) in bound.scratch() {
            tensor.write(context(), &vec![f32::NAN; tensor.len()]).expect("writes");
            poisoned += 1;
        }
        assert!(poisoned > 20, "{name}: {poisoned} values");
        let mut encoder = context().device().create_command_encoder(&Default::default());
        bound.record(&mut encoder);
        context().queue().submit([encoder.finish()]);
        assert_eq!(y.read_blocking(context()).expect("reads"), expected, "{name}, poisoned");

        let buffers = apart.run(context()).expect("runs");
        let found = dynconv::reference::narrow(&apart.output.values(apart.output_of(&buffers)));
        assert_eq!(found, expected, "{name}, apart");
    }
}

#[test]
fn what_is_no_such_network_is_refused_by_name() {
    let [weights, io] = read(&names()[0]);
    let [weights, io] = [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
    let options = options(&io);
    let refused = |checkpoint: &Checkpoint<'_>| {
        load(context(), checkpoint, &options).expect_err("is refused")
    };
    let message = refused(&io).to_string();
    assert!(message.contains("no network that is known here"), "{message}");
    let last = weights.keys().filter(|key| key.starts_with("layer4") || key.starts_with("conv."));
    let last: Vec<String> = last.filter(|key| key.ends_with("weight")).map(str::to_owned).collect();
    let missing = weights.clone().without(|key| key == last[0]);
    assert!(matches!(refused(&missing), Error::MissingKey { .. } | Error::Shape { .. }));
    let unread = weights.clone().without(|key| key.starts_with("layer4.1."));
    if unread.keys().count() < weights.keys().count() {
        // A block less is a network of its own.
        load(context(), &unread, &options).expect("is shallower");
    }
    let error = network_error(&weights, &options);
    assert!(error.starts_with("stage of the network: needs "), "{error}");
}

fn network_error(weights: &Checkpoint<'_>, options: &Options) -> String {
    let network = load(context(), weights, options).expect("is a network");
    network.until("nowhere").expect_err("is no stage").to_string()
}

/// Another batch is planned anew, and runs what was compiled for one sample, on software adapters
/// and on GPUs.
#[test]
fn another_batch_compiles_nothing() {
    for context in [noop(), noop().with_caps(with_lanes())] {
        for name in names() {
            let [weights, io] = read(&name);
            let [weights, io] =
                [&weights, &io].map(|bytes| Checkpoint::new(bytes).expect("is one"));
            let network = load(&context, &weights, &options(&io)).expect("is a network");
            let mut shape = io.shape("input").expect("has an input").to_vec();
            let mut variants = |batch: usize| -> HashSet<Variant> {
                shape[0] = batch;
                let program = network.plan(&shape).expect("plans");
                program.steps().iter().map(|step| step.variant.clone()).collect()
            };
            let one = variants(1);
            for batch in [2, 3, 8] {
                let more: Vec<_> = variants(batch).difference(&one).cloned().collect();
                assert!(more.is_empty(), "{name}, {batch}: {more:?}");
            }
        }
    }
}
