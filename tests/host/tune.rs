//! Tuning tables and what is tried; measuring itself needs an adapter.

use std::collections::HashSet;
use std::path::Path;

use dynconv::Algorithm;
use dynconv::kernels::Kernel;
use dynconv::problem::{AttentionSource, Branch, MapAxis, Mixing, Parts, Problem};
use dynconv::problem::{Cells, Epilogue, Geometry, Layout, WeightOrder};
use dynconv::program::Plan;
use dynconv::tune::{Key, Tuning, candidates};
use dynconv::{Activation, BankConv2d, Caps, Context, ConvDesc, Elem, Error, wgpu};
use dynconv_suite::cases::needs_lanes;
use dynconv_suite::variants::with_lanes;
use proptest::prelude::*;

use crate::common::noop;
use crate::plan::any_problem;

const MIX: Parts = Parts { channel: false, filter: false, spatial: false, mix: true };

fn dense() -> Problem {
    let desc = ConvDesc::new(16, 24, [3, 3]).kernels(4).padding([1, 1]);
    let geometry = desc.geometry().expect("valid");
    Problem { attention: AttentionSource::Given(MIX), ..Problem::new(geometry, 8, [1, 14, 70]) }
}

/// The line of a problem in a table.
const LINE: &str = "bank+mix kernels=4 channels=16x24 groups=1 input=14x72 kernel=3x3 stride=1x1 \
                    dilation=1x1 padding=1:1x1:1 transposed=no layouts=nchw,nchw elems=f32,f32,f32 \
                    order=plain bias=no -> tiled";

fn header() -> String {
    Tuning::new(&Caps::webgpu_default()).to_string()
}

#[test]
fn a_table_is_a_header_and_a_line_a_problem() {
    let mut table = Tuning::new(&Caps {
        name: "A\nGPU".into(),
        driver: "1.2".into(),
        ..Caps::webgpu_default()
    });
    table.insert(&dense(), Algorithm::ConvTiled);
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["adapter A GPU", "driver 1.2", "backend Noop", "lanes no"]);
    assert!(lines[4].starts_with("kernels ") && lines[4].len() == 24, "{text}");
    assert_eq!(lines[5..], [LINE]);
    let spaced = text.replace("bank+mix", "\n# a comment\nbank+mix").replace('\n', "\r\n");
    assert_eq!(spaced.parse::<Tuning>().expect("parses"), table);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever can be planned can be written and read, and is found again.
    #[test]
    fn what_is_written_is_read((problem, caps) in any_problem(), options in 0_usize..64) {
        let pick = |place: usize| options >> place & 1 == 1;
        let layout = |place| if pick(place) { Layout::ChannelsLast } else { Layout::ChannelsFirst };
        let elem = |place| if pick(place) { Elem::F16Storage } else { Elem::F32 };
        let problem = Problem {
            layouts: [layout(0), layout(1)],
            elems: [elem(2), elem(3)],
            order: if pick(4) { WeightOrder::Blocked } else { WeightOrder::Plain },
            ..problem
        };
        let mut table = Tuning::new(&caps);
        table.insert(&problem, Algorithm::ConvGemmRegister);
        let read: Tuning = table.to_string().parse().expect("parses");
        prop_assert_eq!(&read, &table);
        prop_assert_eq!(read.choice(&problem), Some(Algorithm::ConvGemmRegister));
    }
}

#[test]
fn other_axes_and_transposed_convolutions_are_written_and_read() {
    let one = ConvDesc::new(4, 6, [5]).stride([2]).transposed([1]).geometry();
    let three =
        ConvDesc::new(4, 6, [3, 1, 2]).padding_sides([[0, 2], [0, 0], [1, 0]]).groups(2).geometry();
    let mut table = Tuning::new(&Caps::webgpu_default());
    for (geometry, input) in [(one, [1, 1, 33]), (three, [5, 6, 200])] {
        table.insert(&Problem::new(geometry.expect("valid"), 1, input), Algorithm::Auto);
    }
    let text = table.to_string();
    assert!(text.contains("input=33 kernel=5") && text.contains(" transposed=1 "), "{text}");
    assert!(text.contains("input=5x6x200") && text.contains(" padding=0:2x0:0x1:0 "), "{text}");
    assert_eq!(text.parse::<Tuning>().expect("parses"), table);
}

#[test]
fn wrong_lines_are_named() {
    let message = |text: &str| text.parse::<Tuning>().expect_err("is refused").to_string();
    assert_eq!(message(""), "tuning table, line 1: expected \"adapter ..\", found nothing");
    assert_eq!(
        message("adapter x\ndriver y\nback"),
        "tuning table, line 3: expected \"backend ..\", found \"back\""
    );
    let entry = |line: &str| {
        let text = message(&format!("{}{line}\n", header()));
        text.strip_prefix("tuning table, line 6: expected ").expect("names the line").to_string()
    };
    let replaced = |from: &str, to: &str| {
        assert!(LINE.contains(from), "{from}");
        entry(&LINE.replacen(from, to, 1))
    };
    assert_eq!(entry("nonsense"), "a problem -> its kernel, found \"nonsense\"");
    assert_eq!(entry(" -> tiled"), "static or rows or map or map0 or map1 or map2, found nothing");
    assert_eq!(replaced("+mix", "+mux"), "channel or filter or spatial or mix, found \"mux\"");
    assert_eq!(replaced("groups=1 ", ""), "groups=.., found \"input=14x72\"");
    assert_eq!(replaced("groups=1", "groups=-1"), "a number, found \"-1\"");
    assert_eq!(
        replaced("groups=1", "groups=99999999999999999999"),
        "a number, found \"99999999999999999999\""
    );
    assert!(replaced("groups=1", "groups=01").contains("groups=1 "));
    assert!(
        replaced("groups=1", "groups=3")
            .contains("a convolution that is possible (input channels: expected")
    );
    assert!(
        replaced("kernels=4", "kernels=0")
            .contains("possible (kernels in the bank: expected at least 1")
    );
    assert_eq!(replaced("kernel=3x3", "kernel=3"), "2 values with \"x\" between them, found \"3\"");
    assert_eq!(replaced("14x72", "1x1x14x72"), "an input of at most 3 axes, found \"1x1x14x72\"");
    assert!(replaced("14x72", "14x70").starts_with("sizes past 64 in multiples of 8, found "));
    assert_eq!(replaced("1:1x1:1", "1x1:1"), "2 values with \":\" between them, found \"1\"");
    assert_eq!(replaced("nchw,nchw", "nchw,nwhc"), "nchw or nhwc, found \"nwhc\"");
    assert_eq!(replaced("order=plain", "order="), "plain or blocked, found nothing");
    assert_eq!(
        replaced("bias=no", "bias=no fast=yes"),
        "no more words of a problem, found \"fast=yes\""
    );
    assert!(replaced("-> tiled", "-> fastest").starts_with("one of auto, split_k, "));
    let twice = message(&format!("{}{LINE}\n{LINE}\n", header()));
    assert!(
        twice.starts_with("tuning table, line 7: expected a problem that no line before it has"),
        "{twice}"
    );
}

/// Each line of the header of a table, changed.
#[test]
fn a_stale_table_is_refused_with_what_differs() {
    let caps = Caps { name: "A GPU".into(), driver: "1.2".into(), ..Caps::webgpu_default() };
    let text = Tuning::new(&caps).to_string();
    let context = noop().with_caps(caps.clone());
    context.clone().with_tuning(text.parse().expect("parses")).expect("is of this device");
    for line in text.lines() {
        let (what, value) = line.split_once(' ').expect("has a value");
        let table: Tuning = text.replace(line, &format!("{what} another")).parse().expect("parses");
        let error = context.clone().with_tuning(table).expect_err("is stale");
        let Error::StaleTuning { what: told, expected, found } = error else { panic!("{error}") };
        assert_eq!((told, expected.as_str(), found.as_str()), (what, value, "another"));
    }
}

/// What the batch decides could make a sample's result depend on it.
#[test]
fn a_key_has_what_decides_and_no_batch() {
    let dense = dense();
    let key = Key::of(&dense);
    let branch = |parts, mixing| {
        AttentionSource::Branch(Branch { context: None, hidden: Some(4), parts, mixing })
    };
    let same = [
        Problem { batch: 1, ..dense },
        Problem { algorithm: Algorithm::ConvDirect, ..dense },
        Problem { input: [1, 14, 65], ..dense },
        Problem { input: [1, 14, 72], ..dense },
        Problem { attention: branch(MIX, Mixing::Softmax), ..dense },
        Problem { attention: branch(MIX, Mixing::Sigmoid), ..dense },
        Problem {
            epilogue: Epilogue { affine: true, residual: true, activation: Activation::Gelu },
            ..dense
        },
    ];
    for (number, problem) in same.iter().enumerate() {
        assert_eq!(Key::of(problem), key, "number {number}");
    }
    let with = |change: &dyn Fn(&mut Geometry)| {
        let mut geometry = dense.geometry;
        change(&mut geometry);
        Problem { geometry, ..dense }
    };
    let cells = Mixing::Cells(Cells { c_out: 24, c_in: 16, taps: 9, count: 2 });
    let others = [
        with(&|g| g.kernels = 3),
        with(&|g| g.c_in = 32),
        with(&|g| g.c_out = 32),
        with(&|g| g.groups = 2),
        with(&|g| g.kernel = [1, 3, 5]),
        with(&|g| g.stride = [1, 1, 2]),
        with(&|g| g.dilation = [1, 2, 1]),
        with(&|g| g.padding = [[0, 0], [1, 1], [1, 0]]),
        with(&|g| g.transposed = true),
        with(&|g| g.bank = Elem::F16Storage),
        with(&|g| g.axes = 3),
        Problem { input: [1, 14, 64], ..dense },
        Problem { input: [1, 15, 70], ..dense },
        Problem { attention: AttentionSource::Static, ..dense },
        Problem { attention: AttentionSource::SampleWeights, ..dense },
        Problem { attention: AttentionSource::Map(MapAxis::All), ..dense },
        Problem { attention: AttentionSource::Map(MapAxis::One(2)), ..dense },
        Problem { attention: AttentionSource::Given(Parts { channel: true, ..MIX }), ..dense },
        Problem { attention: branch(Parts { spatial: true, ..MIX }, Mixing::Softmax), ..dense },
        Problem { has_bias: true, ..dense },
        Problem { layouts: [Layout::ChannelsLast, Layout::ChannelsFirst], ..dense },
        Problem { elems: [Elem::F32, Elem::F16Storage], ..dense },
        Problem { order: WeightOrder::Blocked, ..dense },
    ];
    let keys: HashSet<Key> = others.iter().map(Key::of).chain([key]).collect();
    assert_eq!(keys.len(), others.len() + 1);
    let texts: HashSet<String> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), keys.len());
    let assembled = Problem { attention: branch(MIX, cells), ..dense };
    assert_eq!(
        Key::of(&assembled),
        Key::of(&Problem { attention: AttentionSource::SampleWeights, ..dense })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is tried can be planned, is another plan than the planner's own, and needs nothing
    /// that the device lacks.
    #[test]
    fn candidates_can_run((problem, caps) in any_problem(), lanes in any::<bool>()) {
        let caps = if lanes { with_lanes() } else { caps };
        let planned = Plan::new(&Problem { algorithm: Algorithm::Auto, ..problem }, &caps);
        for kernel in candidates(&problem, &caps) {
            let plan = Plan::new(&Problem { algorithm: kernel, ..problem }, &caps).expect("plans");
            prop_assert_ne!(plan.dispatches(), planned.as_ref().expect("plans").dispatches());
            prop_assert!(caps.has_lanes() || !needs_lanes(kernel));
        }
    }
}

#[test]
fn candidates_are_all_others_but_hopeless_ones() {
    let names = |problem: &Problem, caps: &Caps| -> Vec<&str> {
        candidates(problem, caps).into_iter().map(Algorithm::name).collect()
    };
    // The planner's own choice is conv_3x3_simd8.
    assert_eq!(names(&dense(), &with_lanes()), ["strip_simd8", "gemm_simd8", "gemm_register"]);
    assert_eq!(names(&dense(), &Caps::webgpu_default()), ["gemm_shared", "gemm_register"]);
    let tiny = Problem { input: [1, 8, 8], ..dense() };
    assert_eq!(names(&tiny, &Caps::webgpu_default()), ["gemm_shared", "direct", "gemm_register"]);
}

#[test]
fn a_tuned_context_plans_by_the_table_and_says_so() {
    let desc = ConvDesc::new(16, 24, [3, 3]).kernels(4).padding([1, 1]);
    let layer = |context: &Context| {
        BankConv2d::new(context, &desc, &vec![0.5; 4 * 16 * 24 * 9], None).expect("valid")
    };
    let plan = |layer: &BankConv2d, batch, width| layer.plan(batch, [14, width]).expect("plans");
    let context = noop().with_caps(Caps::webgpu_default());
    let planned = plan(&layer(&context), 8, 70);
    assert_eq!(planned.conv_kernel(), Kernel::ConvTiled);

    let mut table = Tuning::new(context.caps());
    table.insert(planned.problem(), Algorithm::ConvGemmRegister);
    let tuned = context.clone().with_tuning(table.clone()).expect("is of this device");
    for batch in [1, 8, 33] {
        let plan = plan(&layer(&tuned), batch, 70);
        assert_eq!(plan.conv_kernel(), Kernel::ConvGemmRegister);
        assert!(plan.to_string().contains("conv_gemm_register because: tuned: measured"), "{plan}");
    }
    // What was not measured, and what the app has chosen itself.
    assert_eq!(plan(&layer(&tuned), 8, 64).to_string(), plan(&layer(&context), 8, 64).to_string());
    let asked = plan(&layer(&tuned).algorithm(Algorithm::ConvDirect), 8, 70);
    assert!(asked.to_string().contains("conv_direct because: asked for"), "{asked}");

    // A table may say that nothing is faster, and it may be wrong.
    table.insert(planned.problem(), Algorithm::Auto);
    assert_eq!(table.choices().len(), 1);
    let kept = context.clone().with_tuning(table.clone()).expect("is of this device");
    assert_eq!(plan(&layer(&kept), 8, 70), planned);
    assert_eq!(table.clone().gains().choices().len(), 0);
    table.insert(planned.problem(), Algorithm::ConvPointwise);
    let wrong = context.with_tuning(table).expect("is of this device");
    let error = layer(&wrong).plan(8, [14, 70]).expect_err("is not possible").to_string();
    assert!(error.starts_with("conv_pointwise is not possible"), "{error}");
}

#[test]
fn tables_of_a_folder_are_found_by_device_and_kernels() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tuning-{}", std::process::id()));
    let caps = Caps { name: "A GPU".into(), ..Caps::webgpu_default() };
    assert_eq!(Tuning::load(&folder, &caps).expect("there is no such folder"), None);
    let mut table = Tuning::new(&caps);
    table.insert(&dense(), Algorithm::ConvGemmShared);
    let path = table.save(&folder, &caps).expect("writes");
    assert_eq!(Tuning::load(&folder, &caps).expect("reads"), Some(table.clone()));
    let other = Caps { driver: "2".into(), ..caps.clone() };
    assert_eq!(Tuning::load(&folder, &other).expect("is another file"), None);
    assert!(matches!(table.save(&folder, &other), Err(Error::StaleTuning { what: "driver", .. })));
    // A file that was copied from elsewhere, and one that is none.
    std::fs::write(&path, table.to_string().replace("A GPU", "B GPU")).expect("writable");
    assert!(matches!(
        Tuning::load(&folder, &caps),
        Err(Error::StaleTuning { what: "adapter", .. })
    ));
    std::fs::write(&path, "nonsense").expect("writable");
    let error = Tuning::load(&folder, &caps).expect_err("is no table").to_string();
    assert!(
        error.contains("tuning") && error.contains("line 1: expected \"adapter ..\""),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(&folder).expect("is there").count(),
        1,
        "nothing else is left behind"
    );
    std::fs::remove_dir_all(folder).expect("is there");
}

/// Tables that come with the library, whether or not the kernels are still those that were
/// measured.
#[test]
fn shipped_tables_are_gains_and_are_found_by_the_kind_of_device() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tuned");
    let devices = [
        (
            "lavapipe-25.txt",
            "llvmpipe (LLVM 19.1.7, 256 bits)",
            "llvmpipe, Mesa 25.3.1",
            with_lanes(),
        ),
        (
            "swiftshader.txt",
            "SwiftShader Device (LLVM 10.0.0)",
            "SwiftShader driver, 5.0.0",
            Caps { device_type: wgpu::DeviceType::Cpu, ..Caps::webgpu_default() },
        ),
    ];
    for (file, name, driver, caps) in devices {
        let table = Tuning::read(&folder.join(file)).expect("is a table");
        assert!(table.choices().all(|(_, choice)| choice != Algorithm::Auto), "{file}");
        let caps = Caps { name: name.into(), driver: driver.into(), ..caps };
        let kernels = |table: &Tuning| table.to_string().lines().nth(4).map(String::from);
        let is_current = kernels(&table) == kernels(&Tuning::new(&caps));
        let shipped = Tuning::shipped(&caps);
        assert_eq!(shipped.is_some(), is_current, "{file}");
        if let Some(shipped) = shipped {
            assert_eq!(shipped.choices().len(), table.choices().len());
            shipped.check(&caps).expect("is meant for such devices");
        }
    }
    assert_eq!(Tuning::shipped(&Caps::webgpu_default()), None);
}
