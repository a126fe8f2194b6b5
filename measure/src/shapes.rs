//! Shapes to measure: one a line, in files or built in.
//!
//! A line is a name and then the words that problems of the correctness suite are described in:
//!
//! ```text
//! # name  what it is
//! s1      channels=64x64 input=56x56 kernel=3x3 padding=1 batch=8
//! ```
//!
//! `channels`, `input` and `kernel` must be there. `batch` is 1 and `kernels` (K) 4 where a line
//! does not say.

use dynconv_suite::spec::{Family, Spec, SpecError};

use crate::error::{Error, Result};

/// A shape by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Its name in tables.
    pub name: String,
    /// A convolution with a bank, its attention given.
    pub spec: Spec,
}

impl Shape {
    /// The problem with another batch.
    ///
    /// # Errors
    /// [`SpecError`] for a batch that is empty or too large.
    pub fn with_batch(&self, batch: usize) -> Result<Spec, SpecError> {
        let spec = Spec { batch, ..self.spec.clone() };
        spec.check()?;
        Ok(spec)
    }
}

/// Built-in sets of shapes: name and text.
pub const SETS: [(&str, &str); 8] = [
    ("peers", include_str!("../../benches/shapes/peers.txt")),
    ("resnet18", include_str!("../../benches/shapes/resnet18.txt")),
    ("mobilenetv2", include_str!("../../benches/shapes/mobilenetv2.txt")),
    ("dycnn", include_str!("../../benches/shapes/dycnn.txt")),
    ("odconv", include_str!("../../benches/shapes/odconv.txt")),
    ("corners", include_str!("../../benches/shapes/corners.txt")),
    ("winograd", include_str!("../../benches/shapes/winograd.txt")),
    ("smoke", include_str!("../../benches/shapes/smoke.txt")),
];

/// What a line may say.
const WORDS: [&str; 10] = [
    "channels", "input", "kernel", "stride", "padding", "dilation", "groups", "kernels",
    "winograd", "batch",
];

/// What a line need not say. An even seed gives the attention branches biases, and 4 of every
/// number a temperature of 1.
const DEFAULTS: [(&str, &str); 3] = [("batch", "1"), ("kernels", "4"), ("seed", "4")];

/// The shapes of a built-in set or, if there is none of that name, of a file.
///
/// # Errors
/// [`Error::NoSuchSet`] if there is neither, and as [`parse`].
pub fn load(name: &str) -> Result<Vec<Shape>> {
    if let Some((_, text)) = SETS.iter().find(|(set, _)| *set == name) {
        return parse(name, text);
    }
    let sets = || SETS.map(|(set, _)| set).join(", ");
    let text = std::fs::read_to_string(name).map_err(|error| Error::NoSuchSet {
        name: name.into(),
        error,
        sets: sets(),
    })?;
    parse(name, &text)
}

/// The shapes of a text: one a line, `#` begins a comment. `file` is its name in messages.
///
/// # Errors
/// [`Error::Line`] for the first line that describes no shape, [`Error::Empty`] for a text without
/// any.
pub fn parse(file: &str, text: &str) -> Result<Vec<Shape>> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            continue;
        }
        let located = |error| Error::Line { file: file.into(), line, error: Box::new(error) };
        let shape = shape(text).map_err(located)?;
        if shapes.iter().any(|earlier| earlier.name == shape.name) {
            let expected = "a name that no line before it has".into();
            return Err(located(SpecError::Word { word: shape.name, expected }));
        }
        shapes.push(shape);
    }
    if shapes.is_empty() {
        return Err(Error::Empty { file: file.into() });
    }
    Ok(shapes)
}

fn shape(line: &str) -> Result<Shape, SpecError> {
    let (name, words) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if name.contains('=') {
        let expected = "the name of the shape first, without \"=\"".into();
        return Err(SpecError::Word { word: name.into(), expected });
    }
    let spec = Spec::read(Family::Bank, words, &WORDS, &DEFAULTS)?;
    spec.check()?;
    Ok(Shape { name: name.into(), spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_what_it_is() {
        let text = "# shapes\n\ns1  channels=64x32 input=56x28 kernel=3x3 stride=2 \
                    padding=1:0x1 batch=8 # a comment\n";
        let shapes = parse("here", text).expect("parses");
        assert_eq!(shapes.len(), 1);
        assert_eq!(shapes[0].name, "s1");
        let spec = &shapes[0].spec;
        let line = "bank batch=8 channels=64x32 input=56x28 kernel=3x3 stride=2x2 \
                    padding=1:0x1 kernels=4 seed=4";
        assert_eq!(spec.to_string(), line);
    }

    #[test]
    fn what_a_line_does_not_say_has_a_default() {
        let spec = &parse("here", "a channels=1x1 input=9 kernel=3").expect("parses")[0].spec;
        assert_eq!((spec.batch, spec.kernels, spec.groups), (1, 4, 1));
        assert_eq!((&spec.stride[..], &spec.padding[..]), (&[1][..], &[[0, 0]][..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let message = |text: &str| parse("my.txt", text).expect_err("is wrong").to_string();
        let rest = "channels=4x4 input=8x8 kernel=3x3";
        assert_eq!(
            message("\na channels=4x4 kernel=3x3"),
            "my.txt:2: the problem does not say its input"
        );
        assert_eq!(
            message(rest),
            "my.txt:1: \"channels=4x4\": expected the name of the shape first, without \"=\""
        );
        let known =
            "channels, input, kernel, stride, padding, dilation, groups, kernels, winograd, batch";
        assert_eq!(
            message(&format!("a {rest} sride=2")),
            format!("my.txt:1: \"sride\": expected {known}")
        );
        assert_eq!(
            message(&format!("a {rest} stride")),
            "my.txt:1: \"stride\": expected name=value"
        );
        assert_eq!(
            message(&format!("a {rest} stride=two")),
            "my.txt:1: \"two\": expected a number"
        );
        assert_eq!(
            message(&format!("a {rest} batch=2 batch=3")),
            "my.txt:1: \"batch\": expected every word once"
        );
        assert_eq!(
            message(&format!("a {rest} batch=0")),
            "my.txt:1: impossible: batch: expected at least 1, found 0"
        );
        assert!(
            message(&format!("a {rest} groups=3"))
                .contains("impossible: input channels: expected a multiple of 3")
        );
        assert!(
            message(&format!("a {rest} batch=9999999"))
                .contains("too large: elements of the input: expected at most")
        );
        assert!(
            message("a channels=4x4 input=2x2 kernel=3x3")
                .contains("input height: expected at least 3, found 2")
        );
        assert!(
            message("a channels=4x4 input=9x9 kernel=3")
                .contains("axes of the kernel: expected 2, as of the input, found 1")
        );
        assert!(
            message(&format!("a {rest}\na {rest}"))
                .starts_with("my.txt:2: \"a\": expected a name that no line")
        );
        assert_eq!(message("# nothing\n"), "my.txt: expected a shape a line, found none");
    }

    #[test]
    fn the_built_in_sets_are_shapes() {
        for (name, _) in SETS {
            load(name).expect("parses");
        }
        let message = load("no such set").expect_err("is none").to_string();
        assert!(
            message.starts_with("cannot read no such set: ")
                && message.ends_with("winograd, smoke"),
            "{message}"
        );
    }
}
