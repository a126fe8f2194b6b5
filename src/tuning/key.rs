//! What a measurement holds for.

use std::fmt;

use crate::elem::Elem;
use crate::problem::{
    AttentionSource, Branch, Geometry, Layout, MapAxis, Mixing, Parts, Problem, WeightOrder,
    pad_axes,
};

/// All of a problem that decides which convolution kernel is the fastest: where its kernels come
/// from, the convolution, the input's size (past 64 rounded up to a multiple of 8), layouts,
/// element types, the order of the weights, the bias.
///
/// The batch is no part of it: kernels sum in orders of their own, and a sample must be the same to
/// the bit in whatever batch it comes. Neither is what follows the sum, which every kernel computes
/// alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    source: Source,
    geometry: Geometry,
    input: [usize; 3],
    layouts: [Layout; 2],
    elems: [Elem; 2],
    order: WeightOrder,
    has_bias: bool,
}

/// Where the kernels come from, as far as it matters to the convolution. Whether the caller gave
/// the attention or the layer computed it does not, and kernels assembled from cells are rows as
/// good as any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Static,
    Bank(Parts),
    Map(MapAxis),
    SampleWeights,
}

impl Source {
    fn of(attention: AttentionSource) -> Self {
        match attention {
            AttentionSource::Static => Self::Static,
            AttentionSource::SampleWeights
            | AttentionSource::Branch(Branch { mixing: Mixing::Cells(_), .. }) => {
                Self::SampleWeights
            }
            AttentionSource::Given(parts) | AttentionSource::Branch(Branch { parts, .. }) => {
                Self::Bank(parts)
            }
            AttentionSource::Map(axis) => Self::Map(axis),
        }
    }

    fn attention(self) -> AttentionSource {
        match self {
            Self::Static => AttentionSource::Static,
            Self::Bank(parts) => AttentionSource::Given(parts),
            Self::Map(axis) => AttentionSource::Map(axis),
            Self::SampleWeights => AttentionSource::SampleWeights,
        }
    }
}

/// The problem that is measured for another: without what would take the same time by every kernel,
/// which is the attention branch and what follows the sum. The kernel is left to the planner. Of
/// minimal filtering it is the products, the only step that kernels are chosen for.
pub(crate) fn measured(problem: &Problem) -> Problem {
    let problem = &problem
        .geometry
        .output_size(problem.input)
        .map_or(*problem, |output| products(problem, output));
    let alone = Problem {
        geometry: problem.geometry.at(problem.input),
        attention: Source::of(problem.attention).attention(),
        has_bias: problem.has_bias,
        layouts: problem.layouts,
        elems: problem.elems,
        order: problem.order,
        ..Problem::new(problem.geometry, problem.batch, problem.input)
    };
    // Only kernels that are mixed are stored in another type than f32.
    let has_bank = !alone.shares_kernel() && alone.attention != AttentionSource::SampleWeights;
    let bank = if has_bank { alone.geometry.bank } else { Elem::F32 };
    Problem { geometry: Geometry { bank, ..alone.geometry }, ..alone }
}

/// The products of minimal filtering, which know no gains and no bias; any other problem as it is.
fn products(problem: &Problem, output: [usize; 3]) -> Problem {
    let (summed, _) = problem.summed(output);
    let attention = match problem.attention_row().mix {
        _ if problem.geometry.winograd.is_none() => return summed,
        None => AttentionSource::Static,
        Some(_) => AttentionSource::Given(Parts { mix: true, ..Parts::default() }),
    };
    Problem { attention, has_bias: false, ..summed }
}

fn rounded(size: usize) -> usize {
    if size <= 64 { size } else { size.checked_next_multiple_of(8).unwrap_or(size) }
}

impl Key {
    /// What is looked up for a problem.
    #[must_use]
    pub fn of(problem: &Problem) -> Self {
        let Problem { geometry, input, layouts, elems, order, has_bias, attention, .. } =
            measured(problem);
        Self {
            source: Source::of(attention),
            geometry,
            input: input.map(rounded),
            layouts,
            elems,
            order,
            has_bias,
        }
    }
}

const LAYOUTS: [(&str, Layout); 2] =
    [("nchw", Layout::ChannelsFirst), ("nhwc", Layout::ChannelsLast)];
const ELEMS: [(&str, Elem); 4] = [
    ("f32", Elem::F32),
    ("f16", Elem::F16),
    ("f16_storage", Elem::F16Storage),
    ("bf16_storage", Elem::Bf16Storage),
];
const ORDERS: [(&str, WeightOrder); 2] =
    [("plain", WeightOrder::Plain), ("blocked", WeightOrder::Blocked)];
const ANSWERS: [(&str, bool); 2] = [("no", false), ("yes", true)];
const SOURCES: [(&str, Source); 6] = [
    ("static", Source::Static),
    ("rows", Source::SampleWeights),
    ("map", Source::Map(MapAxis::All)),
    ("map0", Source::Map(MapAxis::One(0))),
    ("map1", Source::Map(MapAxis::One(1))),
    ("map2", Source::Map(MapAxis::One(2))),
];
/// The first word of kernels mixed from a bank; the parts of their attention follow it.
const BANK: &str = "bank";
const PARTS: [&str; 4] = ["channel", "filter", "spatial", "mix"];

/// The name of a value; the tables have all values but axes that no plan takes.
fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, v)| v == value).map_or("?", |(name, _)| name)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bank(Parts { channel, filter, spatial, mix }) = *self else {
            return f.write_str(name_of(&SOURCES, self));
        };
        f.write_str(BANK)?;
        let there =
            PARTS.into_iter().zip([channel, filter, spatial, mix]).filter(|(_, there)| *there);
        there.into_iter().try_for_each(|(part, _)| write!(f, "+{part}"))
    }
}

/// The words of a key, in the order of [`Key::words`].
const WORDS: [&str; 13] = [
    "kernels",
    "channels",
    "groups",
    "input",
    "kernel",
    "stride",
    "dilation",
    "padding",
    "transposed",
    "layouts",
    "elems",
    "order",
    "bias",
];

impl Key {
    fn words(&self) -> [String; 13] {
        let g = &self.geometry;
        let joined = |values: &[String]| values[3 - g.axes..].join("x");
        let sizes = |sizes: [usize; 3]| joined(&sizes.map(|n| n.to_string()));
        [
            g.kernels.to_string(),
            format!("{}x{}", g.c_in, g.c_out),
            g.groups.to_string(),
            sizes(self.input),
            sizes(g.kernel),
            sizes(g.stride),
            sizes(g.dilation),
            joined(&g.padding.map(|[before, after]| format!("{before}:{after}"))),
            if g.transposed { sizes(g.output_padding) } else { "no".into() },
            self.layouts.map(|layout| name_of(&LAYOUTS, &layout)).join(","),
            [self.elems[0], self.elems[1], g.bank].map(|elem| name_of(&ELEMS, &elem)).join(","),
            name_of(&ORDERS, &self.order).into(),
            name_of(&ANSWERS, &self.has_bias).into(),
        ]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        WORDS.iter().zip(self.words()).try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// What could stand in a line, and what does.
#[derive(Debug)]
pub(super) struct Bad {
    pub expected: String,
    pub found: String,
}

impl Bad {
    pub(super) fn new(expected: impl Into<String>, found: &str) -> Self {
        let found = if found.is_empty() { "nothing".into() } else { format!("\"{found}\"") };
        Self { expected: expected.into(), found }
    }
}

type Parsed<T> = Result<T, Bad>;

fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Parsed<T> {
    let found = table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| {
        Bad::new(table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or "), word)
    })
}

fn number(word: &str) -> Parsed<usize> {
    // No sign: a number has one way to be written.
    let digits = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|word| word.parse().ok()).ok_or_else(|| Bad::new("a number", word))
}

/// `N` values with a separator between them.
fn list<T, const N: usize>(
    word: &str,
    separator: char,
    parse: impl Fn(&str) -> Parsed<T>,
) -> Parsed<[T; N]> {
    let values = word.split(separator).map(parse).collect::<Parsed<Vec<_>>>()?;
    values
        .try_into()
        .map_err(|_| Bad::new(format!("{N} values with \"{separator}\" between them"), word))
}

fn source(word: &str) -> Parsed<Source> {
    let mut names = word.split('+');
    if names.next() != Some(BANK) {
        return find(&SOURCES, word);
    }
    let mut there = [false; 4];
    for name in names {
        let place = PARTS.iter().position(|part| *part == name);
        let place = place.ok_or_else(|| Bad::new(PARTS.join(" or "), name))?;
        there[place] = true;
    }
    let [channel, filter, spatial, mix] = there;
    Ok(Source::Bank(Parts { channel, filter, spatial, mix }))
}

/// Values of a convolution over `D` axes, as three.
struct Axes<const D: usize>;

impl<const D: usize> Axes<D> {
    fn sizes(word: &str) -> Parsed<[usize; 3]> {
        list::<_, D>(word, 'x', number).map(|sizes| pad_axes(sizes, 1))
    }

    fn key(source: Source, values: [&str; 13]) -> Parsed<Key> {
        let [
            kernels,
            channels,
            groups,
            input,
            kernel,
            stride,
            dilation,
            padding,
            transposed,
            layouts,
            elems,
            order,
            bias,
        ] = values;
        let [c_in, c_out] = list(channels, 'x', number)?;
        let [x, y, bank] = list(elems, ',', |word| find(&ELEMS, word))?;
        let padding: [[usize; 2]; D] = list(padding, 'x', |word| list(word, ':', number))?;
        let output_padding: Option<[usize; D]> =
            if transposed == "no" { None } else { Some(list(transposed, 'x', number)?) };
        let geometry = Geometry {
            winograd: None,
            axes: D,
            c_in,
            c_out,
            groups: number(groups)?,
            kernels: number(kernels)?,
            kernel: Self::sizes(kernel)?,
            stride: Self::sizes(stride)?,
            dilation: Self::sizes(dilation)?,
            padding: pad_axes(padding, [0; 2]),
            same: false,
            transposed: output_padding.is_some(),
            output_padding: pad_axes(output_padding.unwrap_or([0; D]), 0),
            bank,
        };
        let layouts = list(layouts, ',', |word| find(&LAYOUTS, word))?;
        let (order, has_bias) = (find(&ORDERS, order)?, find(&ANSWERS, bias)?);
        Ok(Key {
            source,
            geometry,
            input: Self::sizes(input)?,
            layouts,
            elems: [x, y],
            order,
            has_bias,
        })
    }
}

/// Reads what [`Key`] writes, and nothing else: another spelling would be another key to whoever
/// reads the file.
pub(super) fn parse(line: &str) -> Parsed<Key> {
    let mut words = line.split_whitespace();
    let source = source(words.next().unwrap_or_default())?;
    let mut values = [""; 13];
    for (name, value) in WORDS.iter().zip(&mut values) {
        let word = words.next().unwrap_or_default();
        let rest = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        *value = rest.ok_or_else(|| Bad::new(format!("{name}=.."), word))?;
    }
    if let Some(word) = words.next() {
        return Err(Bad::new("no more words of a problem", word));
    }
    let [.., input, _, _, _, _, _, _, _, _, _] = values;
    let key = match input.split('x').count() {
        1 => Axes::<1>::key(source, values)?,
        2 => Axes::<2>::key(source, values)?,
        3 => Axes::<3>::key(source, values)?,
        _ => return Err(Bad::new("an input of at most 3 axes", input)),
    };
    let is_rounded = key.input == key.input.map(rounded);
    let canonical = key.to_string();
    if !is_rounded || !canonical.split_whitespace().eq(line.split_whitespace()) {
        let expected =
            if is_rounded { canonical } else { "sizes past 64 in multiples of 8".into() };
        return Err(Bad::new(expected, line));
    }
    key.geometry
        .check()
        .map_err(|error| Bad::new(format!("a convolution that is possible ({error})"), line))?;
    Ok(key)
}
