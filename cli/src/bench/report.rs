//! The benchmark's report: one self-contained HTML page.

use dynconv_measure::{ENOUGH, Refusal, Results, Row};
use dynconv_suite::spec::Spec;

use super::plot::{BarGroup, Line, Point, Series, bars, legend, lines, roofline, short};
use super::table::{kernel, ms};
use crate::report::{
    DASH, STYLE, decimal, escape, or_dash, page as whole_page, scientific, section,
};

const PLOT_STYLE: &str = include_str!("plot.css");

const DYNAMIC: Series = Series { name: "dynamic", class: "dynamic" };
const STATIC: Series = Series { name: "static, our own", class: "static" };
const GROUPS: Series = Series { name: "batch as groups", class: "groups" };

/// The page.
pub(super) fn page(results: &Results) -> String {
    let best = best(&results.rows);
    let sections = [
        header(results, &best),
        shape_section(results),
        speed_section(&best),
        roofline_section(results, &best),
        batch_section(&best),
        table_section(results),
        footer(results),
    ];
    whole_page("dynconv bench", &[STYLE, PLOT_STYLE].concat(), &sections.concat())
}

/// Of each layer and batch, the row of the kernel that the planner chose, or the fastest where it
/// was not asked.
fn best(rows: &[Row]) -> Vec<&Row> {
    let mut best: Vec<&Row> = Vec::new();
    let beats = |a: &Row, b: &Row| match (a.strategy == "auto", b.strategy == "auto") {
        (false, false) => a.median_ms < b.median_ms,
        (is_auto, _) => is_auto,
    };
    for row in rows {
        match best.iter_mut().find(|other| (&other.shape, other.batch) == (&row.shape, row.batch)) {
            None => best.push(row),
            Some(other) if beats(row, other) => *other = row,
            Some(_) => {}
        }
    }
    best
}

/// The geometric mean.
fn mean(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// How many times longer something takes, and between which ends that lies.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    middle: f64,
    /// The fastest sample against the slowest of the other, and the slowest against the fastest.
    ends: [f64; 2],
}

impl Ratio {
    fn to_static(row: &Row) -> Self {
        let ends = [row.min_ms / row.static_max_ms, row.max_ms / row.static_min_ms];
        Self { middle: row.ratio_to_static, ends }
    }

    fn to_groups(row: &Row) -> Option<Self> {
        let ends = [row.min_ms / row.groups_max_ms?, row.max_ms / row.groups_min_ms?];
        Some(Self { middle: row.ratio_to_groups?, ends })
    }

    /// Geometric means of several.
    fn mean(all: &[Self]) -> Option<Self> {
        let [low, high] = [0, 1].map(|end| mean(all.iter().map(|ratio| ratio.ends[end])));
        Some(Self { middle: mean(all.iter().map(|ratio| ratio.middle))?, ends: [low?, high?] })
    }

    /// Whether the samples overlap: then neither is known to be the faster.
    fn is_within_spread(self) -> bool {
        self.ends[0] <= 1.0 && 1.0 <= self.ends[1]
    }

    /// As a key figure, and what stands under it.
    fn figure(ratio: Option<Self>) -> [String; 2] {
        let Some(ratio) = ratio else { return [DASH.into(), "not measured".into()] };
        let text = if ratio.is_within_spread() {
            "no difference".into()
        } else {
            format!("{:.2} ×", ratio.middle)
        };
        [
            text,
            format!(
                "time, geometric mean; <span class=\"ends\">{}</span> within the spread",
                ratio.range()
            ),
        ]
    }

    fn range(self) -> String {
        format!("{:.2} to {:.2}", self.ends[0], self.ends[1])
    }
}

/// The result in a sentence, as far as the spread of the samples allows one.
fn headline(results: &Results, to_static: Option<Ratio>) -> String {
    match to_static {
        None => "Nothing was measured".into(),
        Some(_) if results.quick || results.samples < ENOUGH => {
            format!(
                "Too few samples to compare: {} of each time, at least {ENOUGH} are needed",
                results.samples
            )
        }
        Some(ratio) if ratio.is_within_spread() => {
            "No difference within the spread between dynamic and static convolution".into()
        }
        Some(ratio) => format!(
            "Dynamic convolution takes {:.2} times the time of static convolution",
            ratio.middle
        ),
    }
}

fn header(results: &Results, best: &[&Row]) -> String {
    let to_static = Ratio::mean(&best.iter().map(|row| Ratio::to_static(row)).collect::<Vec<_>>());
    let to_groups =
        Ratio::mean(&best.iter().filter_map(|row| Ratio::to_groups(row)).collect::<Vec<_>>());
    let [against_static, against_groups] = [to_static, to_groups].map(Ratio::figure);
    let errors = best.iter().map(|row| row.verified_share_of_bound).fold(0.0, f64::max);
    let figures = [
        ("Against static", against_static[0].clone(), &*against_static[1]),
        ("Against groups", against_groups[0].clone(), &against_groups[1]),
        ("Layers", best.len().to_string(), "shape and batch"),
        ("Largest error", format!("{}%", decimal(100.0 * errors, 0)), "of its derived bound"),
        ("Measured peak", decimal(results.peak_gflops, 0), "GFLOP/s, f32 multiply-adds"),
        ("Measured copy", decimal(results.copy_gbps, 0), "GB/s, read and written"),
        ("Samples", results.samples.to_string(), "of every time, in turns"),
        ("Ran on", escape(&results.adapter), &escape(&results.driver)),
    ];
    let cell = |(term, value, note): (&str, String, &str)| {
        format!("<div><dt>{term}</dt><dd>{value}</dd><dd class=\"small\">{note}</dd></div>\n")
    };
    let mut warnings = String::new();
    if results.quick {
        warnings += " <strong>This was a quick run: its times say nothing.</strong>";
    }
    if results.stopped {
        warnings += " <strong>The run was stopped before its end.</strong>";
    }
    format!(
        "<header>\n<p class=\"kicker\">dynconv bench{}</p>\n<h1>{}</h1>\n\
         <p class=\"lede\">Geometric mean of {} layers on {}. Static is our own convolution of the \
         same shape, with one kernel for all samples; it is measured in turns with the dynamic \
         one, and every result was checked against a float64 reference before it was \
         timed.{warnings}</p>\n<dl class=\"figures\">\n{}</dl>\n{}</header>\n",
        if results.date.is_empty() {
            String::new()
        } else {
            format!(" · {} UTC", escape(&results.date))
        },
        headline(results, to_static),
        best.len(),
        escape(&results.adapter),
        figures.map(cell).concat(),
        clock_note(results),
    )
}

/// What was measured, each shape once, and by which command.
fn shape_section(results: &Results) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut rows = String::new();
    for row in &results.rows {
        if names.contains(&row.shape.as_str()) {
            continue;
        }
        names.push(&row.shape);
        rows += &shape_row(row);
    }
    let command = match &*results.command {
        "" => String::new(),
        command => format!("<p>Measured by <code>{}</code>.</p>\n", escape(command)),
    };
    section(
        "Shapes",
        &format!(
            "{command}<div class=\"scroll\" tabindex=\"0\">\n<table class=\"shapes\">\n\
             <thead><tr><th>Shape</th><th>Layer</th>\
             <th>Channels</th><th>Input</th><th>Kernel</th><th class=\"number\">K</th>\
             <th>Elements</th><th>Other</th></tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
        ),
    )
}

/// A shape by the words of its problem; all that is not ordinary is among the others.
fn shape_row(row: &Row) -> String {
    let named = ["batch", "channels", "input", "kernel", "kernels", "seed", "conv", "elems"];
    let (family, words) = row.problem.split_once(' ').unwrap_or((&row.problem, ""));
    let value = |name: &str| {
        words.split(' ').filter_map(|word| word.split_once('=')).find(|(n, _)| *n == name)
    };
    let sizes = |name: &str| {
        escape(&value(name).map_or(DASH.into(), |(_, value)| value.replace('x', " × ")))
    };
    let channels =
        value("channels").map_or(DASH.into(), |(_, value)| escape(&value.replace('x', " → ")));
    let kernels = row.problem.parse::<Spec>().map_or(DASH.into(), |spec| spec.kernels.to_string());
    let is_other = |word: &&str| !named.iter().any(|name| word.split('=').next() == Some(name));
    let others: Vec<&str> = words.split(' ').filter(is_other).collect();
    format!(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{channels}</td><td>{}</td><td>{}</td>\
         <td class=\"number\">{kernels}</td>\
         <td>{}</td><td>{}</td></tr>\n",
        escape(&row.shape),
        escape(family),
        sizes("input"),
        sizes("kernel"),
        escape(&row.elem),
        escape(&others.join(", ")),
    )
}

fn clock_note(results: &Results) -> String {
    let text = match results.timestamps {
        true => "Times are those of the device's clock, around compute passes.",
        false => {
            "This adapter has no timestamps: times are the host's, submission and wait included."
        }
    };
    format!(
        "<p class=\"note\">{text} GFLOP/s counts the operations of the static convolution, \
         whatever is done beside.</p>\n"
    )
}

fn label(row: &Row) -> String {
    format!("{} × {}", row.shape, row.batch)
}

fn speed_section(best: &[&Row]) -> String {
    let series = [DYNAMIC, STATIC, GROUPS];
    let rate = |row: &Row, ms: f64| row.flops as f64 / ms * 1e-6;
    let groups: Vec<BarGroup> = best
        .iter()
        .map(|row| BarGroup {
            label: label(row),
            values: vec![
                Some(row.gflops),
                Some(rate(row, row.static_median_ms)),
                row.groups_median_ms.map(|ms| rate(row, ms)),
            ],
        })
        .collect();
    section(
        "Speed",
        &format!(
            "<p>GFLOP/s of each shape × batch; longer is faster. The batch as groups is what runs \
             where only grouped convolution is at hand; building the kernels is part of its \
             time.</p>\n{}{}",
            legend(&series),
            bars(&series, &groups, "GFLOP/s")
        ),
    )
}

fn roofline_section(results: &Results, best: &[&Row]) -> String {
    let point = |row: &&Row| Point {
        label: label(row),
        class: DYNAMIC.class,
        x: row.flops as f64 / row.moved_bytes as f64,
        y: row.gflops,
    };
    let points: Vec<Point> = best.iter().map(point).collect();
    section(
        "Roofline",
        &format!(
            "<p>What each dynamic layer reaches under what the adapter was measured to reach: \
             multiply-adds in registers, and a copy of memory. Bytes are those of input, bank, \
             attention and output, each moved once.</p>\n{}",
            roofline(results.peak_gflops, results.copy_gbps, &points)
        ),
    )
}

/// Time against batch, for shapes with several.
fn batch_section(best: &[&Row]) -> String {
    let mut shapes: Vec<&str> = Vec::new();
    for row in best {
        if !shapes.contains(&row.shape.as_str()) {
            shapes.push(&row.shape);
        }
    }
    let figure = |shape: &&str| {
        let mut rows: Vec<&&Row> = best.iter().filter(|row| row.shape == **shape).collect();
        rows.sort_by_key(|row| row.batch);
        let line = |class, of: &dyn Fn(&Row) -> Option<[f64; 3]>| {
            let place =
                |row: &&&Row| of(row).map(|[ms, min, max]| [row.batch as f64, ms, min, max]);
            Line { class, points: rows.iter().filter_map(place).collect() }
        };
        let all = [
            line(STATIC.class, &|row| {
                Some([row.static_median_ms, row.static_min_ms, row.static_max_ms])
            }),
            line(GROUPS.class, &|row| {
                Some([row.groups_median_ms?, row.groups_min_ms?, row.groups_max_ms?])
            }),
            line(DYNAMIC.class, &|row| Some([row.median_ms, row.min_ms, row.max_ms])),
        ];
        (rows.len() > 1)
            .then(|| format!("<div><h3>{}</h3>\n{}</div>\n", escape(shape), lines(&all)))
    };
    let figures: String = shapes.iter().filter_map(figure).collect();
    if figures.is_empty() {
        return String::new();
    }
    section(
        "Time against batch",
        &format!(
            "<p>Milliseconds of one run; upright lines are from the fastest to the slowest \
             sample.</p>\n{}\
             <div class=\"maps\">\n{figures}</div>\n",
            legend(&[DYNAMIC, STATIC, GROUPS])
        ),
    )
}

/// A ratio in the table; one within the spread is marked.
fn cell(ratio: Ratio) -> String {
    format!("{}{}", if ratio.is_within_spread() { "≈ " } else { "" }, decimal(ratio.middle, 2))
}

/// The columns of numbers: name, and what stands there.
type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 13] = [
    ("ms", |row| ms(row.median_ms)),
    ("min – max", |row| format!("{} – {}", ms(row.min_ms), ms(row.max_ms))),
    ("GFLOP/s", |row| short(row.gflops)),
    ("% of<br>peak", |row| decimal(row.peak_percent, 1)),
    ("GB/s", |row| short(row.gbps)),
    ("% of<br>copy", |row| decimal(row.copy_percent, 1)),
    ("×<br>static", |row| cell(Ratio::to_static(row))),
    ("×<br>groups", |row| or_dash(Ratio::to_groups(row), cell)),
    ("attention<br>ms", |row| or_dash(row.attention_ms, ms)),
    ("record<br>µs", |row| decimal(row.host_record_us, 0)),
    ("first use<br>ms", |row| decimal(row.first_use_ms, 0)),
    ("memory<br>MB", |row| short(row.memory_bytes as f64 / 1e6)),
    ("error", |row| scientific(row.verified_error)),
];

fn table_section(results: &Results) -> String {
    let has_attention = results.rows.iter().any(|row| row.attention_ms.is_some());
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|(name, _)| has_attention || !name.starts_with("attention"))
        .collect();
    let head: String =
        columns.iter().map(|(name, _)| format!("<th class=\"number\">{name}</th>")).collect();
    let rows: String = results.rows.iter().map(|row| table_row(row, &columns)).collect();
    section(
        "All numbers",
        &format!(
            "<p class=\"note\">× static and × groups: how many times the time of those; ≈ where \
             their samples overlap, so that it may be no difference. Record: host time to record \
             the layer into a command buffer. First use: what it takes longer than a later one, \
             which is compiling. Memory: input, output, bank and scratch. Error: the largest \
             difference from the reference, relative to the largest output.</p>\n\
             <div class=\"scroll\" tabindex=\"0\">\n<table class=\"rows\">\n\
             <thead><tr><th>Shape<br>× batch</th><th>Kernel</th>{head}</tr></thead>\n<tbody>\n\
             {rows}</tbody>\n</table>\n</div>\n{}",
            refusals(results),
        ),
    )
}

fn table_row(row: &Row, columns: &[&Column]) -> String {
    let cells: String = columns
        .iter()
        .map(|(_, cell)| format!("<td class=\"number\">{}</td>", cell(row)))
        .collect();
    format!(
        "<tr><th scope=\"row\" title=\"{}\">{}</th><td title=\"{}\">{}</td>{cells}</tr>\n",
        escape(&row.problem),
        escape(&label(row)),
        escape(&row.kernel),
        escape(&kernel(row)),
    )
}

/// What was not measured, and why.
fn refusals(results: &Results) -> String {
    let item = |refusal: &Refusal| {
        let kind = if refusal.is_wrong { "Wrong" } else { "Not run" };
        let what = format!(
            "{} × {}, {}: {}",
            refusal.shape, refusal.batch, refusal.strategy, refusal.reason
        );
        format!("<li>{kind}: {}</li>\n", escape(&what))
    };
    let items: String = results.not_measured.iter().map(item).collect();
    if items.is_empty() { items } else { format!("<ul class=\"note\">\n{items}</ul>\n") }
}

fn footer(results: &Results) -> String {
    let driver = if results.driver.is_empty() { DASH.into() } else { escape(&results.driver) };
    format!(
        "<footer>Written by dynconv {}. {}, {driver}, {}.</footer>\n",
        escape(&results.dynconv),
        escape(&results.adapter),
        escape(&results.backend)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(samples: usize) -> Results {
        let text = format!(
            "{{\"version\": 1, \"dynconv\": \"0.1.0\", \"adapter\": \"a\", \"driver\": \"\", \
             \"backend\": \"Vulkan\", \"timestamps\": true, \"peak_gflops\": 1, \"copy_gbps\": 1, \
             \"samples\": {samples}, \"quick\": false, \"rows\": [], \"not_measured\": []}}"
        );
        serde_json::from_str(&text).expect("are results, as older versions wrote them")
    }

    #[test]
    fn a_headline_knows_the_spread() {
        let line =
            |samples, middle, ends| headline(&results(samples), Some(Ratio { middle, ends }));
        assert!(
            line(9, 1.2, [1.1, 1.3]).starts_with("Dynamic convolution takes 1.20 times the time")
        );
        assert!(line(9, 0.97, [0.9, 1.05]).starts_with("No difference within the spread"));
        assert!(line(4, 1.2, [1.1, 1.3]).starts_with("Too few samples to compare: 4 of each time"));
        assert_eq!(headline(&results(9), None), "Nothing was measured");
    }

    #[test]
    fn ratios_have_ends_and_are_marked_within_the_spread() {
        let all =
            [Ratio { middle: 1.0, ends: [0.5, 2.0] }, Ratio { middle: 4.0, ends: [2.0, 8.0] }];
        assert_eq!(Ratio::mean(&all), Some(Ratio { middle: 2.0, ends: [1.0, 4.0] }));
        assert_eq!(all.map(cell), ["≈ 1.00", "4.00"]);
    }
}
