//! Laws that hold to the bit, whatever the rounding.

use dynconv::plan::ConvChoice;
use dynconv::{BankConv2d, ConvDesc, StaticConv2d};

use crate::common::{Case, Noise, assert_same_bits, cases_2d, context};

struct Data {
    layer: BankConv2d,
    bank: Vec<f32>,
    x: Vec<f32>,
    attention: Vec<f32>,
}

fn data(case: &Case<2>, choice: ConvChoice) -> Data {
    let mut noise = Noise::new(21);
    let bank = noise.floats(case.kernels() * case.weights());
    let x = noise.floats(case.input_len());
    let attention = noise.floats(case.batch * case.kernels());
    let layer = BankConv2d::new(context(), &case.desc, &bank, None).expect("valid").kernel(choice);
    Data { layer, bank, x, attention }
}

#[test]
fn changing_one_sample_leaves_the_others_bits() {
    for case in cases_2d().iter().filter(|case| case.batch > 1) {
        for choice in case.choices() {
            let Data { layer, mut x, mut attention, .. } = data(case, choice);
            let before = layer.run(case.batch, case.size, &x, &attention).expect("runs");
            let changed = case.batch / 2;
            x[changed * case.sample_len()..(changed + 1) * case.sample_len()].fill(9.0);
            attention[changed * case.kernels()..(changed + 1) * case.kernels()].fill(-2.0);
            let after = layer.run(case.batch, case.size, &x, &attention).expect("runs");
            let sample = before.len() / case.batch;
            for b in 0..case.batch {
                let part = b * sample..(b + 1) * sample;
                if b == changed {
                    assert_ne!(before[part.clone()], after[part], "{case:?} {choice:?}: the change must show");
                } else {
                    assert_same_bits(&format!("{case:?} {choice:?} sample {b}"), &after[part.clone()], &before[part]);
                }
            }
        }
    }
}

#[test]
fn one_hot_attention_is_the_static_convolution() {
    for case in &cases_2d() {
        for choice in case.choices() {
            let Data { layer, bank, x, .. } = data(case, choice);
            for k in 0..case.kernels() {
                let one_hot: Vec<f32> =
                    (0..case.batch * case.kernels()).map(|i| f32::from(u8::from(i % case.kernels() == k))).collect();
                let dynamic = layer.run(case.batch, case.size, &x, &one_hot).expect("runs");
                let kernel = &bank[k * case.weights()..(k + 1) * case.weights()];
                let fixed = StaticConv2d::new(context(), &case.desc.kernels(1), kernel, None).expect("valid");
                let fixed = fixed.kernel(choice).run(case.batch, case.size, &x).expect("runs");
                assert_same_bits(&format!("{case:?} {choice:?} kernel {k}"), &dynamic, &fixed);
            }
        }
    }
}

#[test]
fn a_batch_of_33_is_33_batches_of_1() {
    let cases = [
        ConvDesc::new(5, 11, [3, 3]).kernels(4).padding([1, 1]),
        ConvDesc::new(6, 6, [3, 3]).kernels(4).groups(6),
        ConvDesc::new(7, 10, [1, 1]).kernels(4),
    ];
    for desc in cases {
        let case = Case { desc, batch: 33, size: [6, 7] };
        for choice in case.choices() {
            let Data { layer, x, attention, .. } = data(&case, choice);
            let together = layer.run(33, case.size, &x, &attention).expect("runs");
            let alone: Vec<f32> = (0..33)
                .flat_map(|b| {
                    let x = &x[b * case.sample_len()..(b + 1) * case.sample_len()];
                    layer.run(1, case.size, x, &attention[b * 4..(b + 1) * 4]).expect("runs")
                })
                .collect();
            assert_same_bits(&format!("{desc:?} {choice:?}"), &together, &alone);
        }
    }
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    for case in &cases_2d()[..6] {
        let Data { layer, x, attention, .. } = data(case, ConvChoice::Auto);
        let first = layer.run(case.batch, case.size, &x, &attention).expect("runs");
        let second = layer.run(case.batch, case.size, &x, &attention).expect("runs");
        assert_same_bits(&format!("{case:?}"), &second, &first);
    }
}
