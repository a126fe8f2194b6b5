//! What is no program is refused by name.

use dynconv::device::Builder;
use dynconv::layers::Io;
use dynconv::{ConvDesc, Elem, Error, MapConv2d, StaticConv2d, Tensor, problem::MapAxis};

use crate::common::noop;

#[test]
fn what_is_no_program_is_refused() {
    let context = noop();
    let desc = ConvDesc::new(3, 3, [3, 3]).padding([1, 1]);
    let layer = StaticConv2d::new(&context, &desc, &[0.5; 81], None).expect("valid");
    let tensor = || Tensor::zeros(&context, &[1, 3, 8, 8]).expect("fits");
    let (x, y) = (tensor(), tensor());
    let builder = || {
        let mut builder = Builder::new(&context);
        let values = [("image", &x), ("features", &y)].map(|(name, t)| builder.tensor(name, t));
        (builder, values)
    };

    let (mut built, [x_value, _]) = builder();
    let message = built.layer_into(&layer, Io::new(x_value, x_value)).expect_err("in place");
    assert!(
        matches!(message, Error::AliasedBuffers { output: "image", input: "image" }),
        "{message}"
    );

    let (mut built, [_, y_value]) = builder();
    let other = builder().0.scratch("of another", &[1, 3, 8, 8], Elem::F32);
    let message = built.layer_into(&layer, Io::new(other, y_value)).expect_err("of another");
    assert_eq!(
        message.to_string(),
        "value: needs one of this program, found number 2 of another, the of another"
    );

    let (mut built, [_, y_value]) = builder();
    let empty = built.scratch("nobody's", &[1, 3, 8, 8], Elem::F32);
    built.layer_into(&layer, Io::new(empty, y_value)).expect("fits");
    let message = built.bind(y_value).expect_err("nothing writes it").to_string();
    assert!(message.starts_with("nobody's: needs a step that writes it"), "{message}");

    let (mut built, [x_value, _]) = builder();
    let between = built.layer(&layer, x_value, &[]).expect("fits");
    let message = built.bind(between).expect_err("has no tensor").to_string();
    assert!(message.starts_with("output of a program: needs a tensor"), "{message}");

    let (mut built, [x_value, _]) = builder();
    let later = built.external("later", &[1, 3, 8, 8], Elem::F32);
    built.layer_into(&layer, Io::new(x_value, later)).expect("fits");
    let message = built.bind(later).expect_err("has no tensor").to_string();
    assert!(message.contains("the later, which has none"), "{message}");

    let (mut built, [x_value, _]) = builder();
    let small = built.scratch("small", &[1, 3, 8, 7], Elem::F32);
    let message = built.layer_into(&layer, Io::new(x_value, small)).expect_err("is small");
    assert_eq!(message.to_string(), "small: expected [1, 3, 8, 8], found [1, 3, 8, 7]");

    let map = MapConv2d::new(&context, &desc.kernels(2), &[0.5; 162], None, MapAxis::All);
    let (mut built, [x_value, _]) = builder();
    let message = built.layer(&map.expect("valid"), x_value, &[]).expect_err("has no map");
    assert!(message.to_string().starts_with("map: needs a tensor [1, 2, 8, 8]"), "{message}");

    // Written at the end, read at the beginning: in no dispatch both, and refused all the same.
    let long = Tensor::zeros(&context, &[2 * 192 + 64]).expect("fits");
    let [x, y] =
        [0, 1024].map(|at| Tensor::wrap(&context, long.buffer(), at, &[1, 3, 8, 8]).expect("fits"));
    let mut built = Builder::new(&context);
    let [x, y] = [("image", &x), ("features", &y)].map(|(name, t)| built.tensor(name, t));
    let h = built.layer(&layer, x, &[]).expect("fits");
    built.layer_into(&layer, Io::new(h, y)).expect("fits");
    let message = built.bind(y).expect_err("share a buffer");
    assert!(
        matches!(message, Error::AliasedBuffers { output: "features", input: "image" }),
        "{message}"
    );
}
