//! Plots as SVG, without scripts. Colours and fonts come from the style sheet, so that they follow
//! the colour scheme.

use std::fmt::Write as _;

use crate::report::escape;

/// What a series is called and which class colours it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    pub name: &'static str,
    pub class: &'static str,
}

/// Bars of one thing: a value for each series, where there is one.
#[derive(Debug)]
pub(super) struct BarGroup {
    pub label: String,
    pub values: Vec<Option<f64>>,
}

/// A point of the roofline plot.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub label: String,
    pub class: &'static str,
    pub x: f64,
    pub y: f64,
}

/// A line of the plot against the batch.
#[derive(Debug)]
pub(super) struct Line {
    pub class: &'static str,
    /// x, y, and the smallest and largest y.
    pub points: Vec<[f64; 4]>,
}

/// Room for tick labels at the left, top, right and bottom.
const MARGIN: [f64; 4] = [54.0, 14.0, 16.0, 44.0];

/// The names of the series with their colours.
pub(super) fn legend(series: &[Series]) -> String {
    let item = |s: &Series| format!("<span><i class=\"{}\"></i>{}</span>", s.class, s.name);
    format!("<p class=\"legend\">{}</p>\n", series.iter().map(item).collect::<String>())
}

/// Horizontal bars from 0, a group a row, with their values beside them.
pub(super) fn bars(series: &[Series], groups: &[BarGroup], unit: &str) -> String {
    const WIDTH: f64 = 860.0;
    const LABELS: f64 = 150.0;
    const VALUES: f64 = 70.0;
    const BAR: f64 = 16.0;
    const GAP: f64 = 12.0;
    let row = BAR * series.len() as f64 + GAP;
    let height = row * groups.len() as f64 + GAP;
    let largest = groups.iter().flat_map(|g| &g.values).flatten().copied().fold(0.0, f64::max);
    let scale = (WIDTH - LABELS - VALUES) / if largest > 0.0 { largest } else { 1.0 };
    let mut body = String::new();
    for (group, i) in groups.iter().zip(0_u32..) {
        let top = GAP + row * f64::from(i);
        let middle = top + (row - GAP) / 2.0;
        body += &text(LABELS - 10.0, middle, "end strong", &group.label);
        for ((series, value), j) in series.iter().zip(&group.values).zip(0_u32..) {
            let Some(value) = value else { continue };
            let (y, width) = (top + BAR * f64::from(j), (value * scale).max(1.0));
            let _ = writeln!(
                body,
                "<rect class=\"{}\" x=\"{LABELS}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{:.1}\">\
                 <title>{}, {}: {} {unit}</title></rect>",
                series.class,
                BAR - 1.5,
                escape(&group.label),
                series.name,
                short(*value),
            );
            body += &text(LABELS + width + 5.0, y + (BAR - 1.5) / 2.0, "small", &short(*value));
        }
    }
    svg(WIDTH, height, &format!("Bars in {unit}"), &body)
}

/// The roofline: operations a byte against operations a second, both logarithmic, under the lower
/// of a peak and a bandwidth.
pub(super) fn roofline(peak_gflops: f64, copy_gbps: f64, points: &[Point]) -> String {
    const SIZE: [f64; 2] = [860.0, 460.0];
    let ridge = peak_gflops / copy_gbps;
    let xs = points.iter().map(|p| p.x).chain([ridge]);
    let ys = points.iter().map(|p| p.y).chain([peak_gflops]);
    let x = Axis::logarithmic(xs, MARGIN[0], SIZE[0] - MARGIN[2]);
    let y = Axis::logarithmic(ys, SIZE[1] - MARGIN[3], MARGIN[1]);
    let roof = |intensity: f64| peak_gflops.min(copy_gbps * intensity);
    let mut body = frame(&x, &y, SIZE, "FLOP a byte, each byte moved once", "GFLOP/s");

    // The slope begins where it comes up through the bottom, or at the left.
    let start = x.range[0].max(y.range[0] / copy_gbps);
    let corners = [start, ridge, x.range[1]]
        .map(|intensity| format!("{:.1},{:.1}", x.at(intensity), y.at(roof(intensity))));
    let _ = writeln!(body, "<polyline class=\"roof\" points=\"{}\"/>", corners.join(" "));
    let peak = format!("peak {} GFLOP/s", short(peak_gflops));
    body += &text(x.at(x.range[1]) - 6.0, y.at(peak_gflops) - 10.0, "end small", &peak);
    let middle = (start * ridge).sqrt();
    let copy = format!("copy {} GB/s", short(copy_gbps));
    // Left of the slope where there is room, else right of it.
    let [left, above] = [x.at(middle) - 10.0, y.at(roof(middle)) - 8.0];
    let has_room = left - MARGIN[0] > 9.0 * copy.chars().count() as f64;
    let place = if has_room { [left, above] } else { [left + 20.0, above + 24.0] };
    body += &text(place[0], place[1], if has_room { "end small" } else { "small" }, &copy);

    let mut taken = Vec::new();
    for point in points {
        let (px, py) = (x.at(point.x), y.at(point.y));
        let _ = writeln!(
            body,
            "<circle class=\"{}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4.5\">\
             <title>{}: {} GFLOP/s at {} FLOP a byte, {:.0}% of the roof</title></circle>",
            point.class,
            escape(&point.label),
            short(point.y),
            short(point.x),
            100.0 * point.y / roof(point.x),
        );
        taken.push([px - 5.0, py - 5.0, px + 5.0, py + 5.0]);
    }
    for point in points {
        let (px, py) = (x.at(point.x), y.at(point.y));
        let width = 6.6 * point.label.chars().count() as f64;
        let places = [
            [8.0, 0.0],
            [-8.0 - width, 0.0],
            [-width / 2.0, -13.0],
            [-width / 2.0, 13.0],
            [7.0, -11.0],
            [7.0, 11.0],
        ];
        let boxes = places.map(|[dx, dy]| [px + dx, py + dy - 6.0, px + dx + width, py + dy + 6.0]);
        let fits = |b: &&[f64; 4]| {
            b[0] > MARGIN[0] && b[2] < SIZE[0] - 4.0 && !taken.iter().any(|t| overlap(t, b))
        };
        // A label without room is left out; the point tells its name when it is pointed at.
        if let Some(place) = boxes.iter().find(fits).copied() {
            body += &text(place[0], place[1] + 6.0, "small", &point.label);
            taken.push(place);
        }
    }
    svg(SIZE[0], SIZE[1], "Roofline", &body)
}

/// Time against batch, both linear and from 0, with the spread of each time as a bar.
pub(super) fn lines(lines: &[Line]) -> String {
    const SIZE: [f64; 2] = [350.0, 245.0];
    let all = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::linear(all().map(|p| p[0]).fold(0.0, f64::max), MARGIN[0], SIZE[0] - MARGIN[2]);
    let y = Axis::linear(all().map(|p| p[3]).fold(0.0, f64::max), SIZE[1] - MARGIN[3], MARGIN[1]);
    let mut body = frame(&x, &y, SIZE, "batch", "ms");
    for line in lines {
        let places = line.points.iter().map(|p| format!("{:.1},{:.1}", x.at(p[0]), y.at(p[1])));
        let _ = writeln!(
            body,
            "<polyline class=\"line {}\" points=\"{}\"/>",
            line.class,
            places.collect::<Vec<_>>().join(" ")
        );
        for [batch, ms, min, max] in &line.points {
            let (px, class) = (x.at(*batch), line.class);
            let _ = writeln!(
                body,
                "<line class=\"line {class}\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{:.1}\" \
                 y2=\"{:.1}\"/>\
                 <circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{:.1}\" r=\"3\">\
                 <title>batch {batch}: {} ms</title></circle>",
                y.at(*min),
                y.at(*max),
                y.at(*ms),
                short(*ms),
            );
        }
    }
    svg(SIZE[0], SIZE[1], "Time against batch", &body)
}

/// Where numbers lie on the page.
struct Axis {
    range: [f64; 2],
    place: [f64; 2],
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to a round number not below `largest`.
    fn linear(largest: f64, from: f64, to: f64) -> Self {
        let step = round_up(largest / 5.0);
        let steps = (largest / step).ceil().clamp(1.0, 10.0);
        let mut ticks = vec![0.0];
        while ticks.len() as f64 <= steps {
            ticks.push(step * ticks.len() as f64);
        }
        Self { range: [0.0, step * steps], place: [from, to], is_logarithmic: false, ticks }
    }

    /// Whole halves of decades around some numbers above 0, a tick a decade.
    fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs: Vec<f64> = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10).collect();
        let low = (logs.iter().copied().fold(f64::INFINITY, f64::min) * 2.0 - 0.3).floor() / 2.0;
        let high =
            (logs.iter().copied().fold(f64::NEG_INFINITY, f64::max) * 2.0 + 0.3).ceil() / 2.0;
        let [low, high] = if low < high { [low, high] } else { [-1.0, 1.0] };
        let mut decade = low.ceil();
        let mut ticks = Vec::new();
        while decade <= high {
            ticks.push(10.0_f64.powf(decade));
            decade += 1.0;
        }
        Self {
            range: [10.0_f64.powf(low), 10.0_f64.powf(high)],
            place: [from, to],
            is_logarithmic: true,
            ticks,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let [low, high, value] = [self.range[0], self.range[1], value]
            .map(|v| if self.is_logarithmic { v.log10() } else { v });
        self.place[0] + (value - low) / (high - low) * (self.place[1] - self.place[0])
    }
}

/// 1, 2 or 5 times a power of ten, not below a number.
fn round_up(number: f64) -> f64 {
    if number.is_nan() || number <= 0.0 {
        return 1.0;
    }
    let power = 10.0_f64.powf(number.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|r| r * power >= number * 0.999_999);
    round.unwrap_or(10.0) * power
}

/// Grid, tick labels and names of both axes.
fn frame(x: &Axis, y: &Axis, size: [f64; 2], x_name: &str, y_name: &str) -> String {
    let [left, right] = x.place;
    let [bottom, top] = y.place;
    let mut body = String::new();
    let mut grid = |[x1, x2, y1, y2]: [f64; 4]| {
        let _ = writeln!(
            body,
            "<line class=\"rule\" x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>"
        );
    };
    x.ticks.iter().for_each(|&tick| grid([x.at(tick), x.at(tick), bottom, top]));
    y.ticks.iter().for_each(|&tick| grid([left, right, y.at(tick), y.at(tick)]));
    for &tick in &x.ticks {
        body += &text(x.at(tick), bottom + 13.0, "middle small", &short(tick));
    }
    for &tick in &y.ticks {
        body += &text(left - 6.0, y.at(tick), "end small", &short(tick));
    }
    body += &text(f64::midpoint(left, right), size[1] - 9.0, "middle small", x_name);
    let middle = f64::midpoint(top, bottom);
    let _ = writeln!(
        body,
        "<text class=\"middle small\" \
         transform=\"translate(12 {middle:.1}) rotate(-90)\">{}</text>",
        escape(y_name)
    );
    body
}

/// Text whose middle is at `y`.
fn text(x: f64, y: f64, class: &str, text: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" dy=\".35em\">{}</text>\n",
        escape(text)
    )
}

fn svg(width: f64, height: f64, label: &str, body: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\">\n\
         <svg class=\"plot\" viewBox=\"0 0 {width} {height:.0}\" style=\"--w:{width}px\" \
         role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n</div>\n"
    )
}

fn overlap(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// A number with about three digits that count.
pub(super) fn short(number: f64) -> String {
    let digits = match number.abs() {
        ..1e-12 => 0,
        ..0.0995 => 3,
        ..0.995 => 2,
        ..9.95 => 1,
        _ => 0,
    };
    let text = crate::report::decimal(number, digits);
    match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole.into(),
        Some(_) if digits > 1 => text.trim_end_matches('0').into(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ends() {
        let axis = Axis::linear(43.0, 0.0, 100.0);
        assert_eq!((axis.range, axis.ticks.len()), ([0.0, 50.0], 6));
        assert_eq!(axis.at(25.0), 50.0);
        let axis = Axis::logarithmic([0.5, 300.0].into_iter(), 0.0, 100.0);
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0, 1000.0]);
        assert!(axis.at(0.5) > 0.0 && axis.at(300.0) < 100.0 && axis.at(1000.0) <= 100.0);
    }

    #[test]
    fn plots_of_nothing_are_plots() {
        let nothing = [bars(&[], &[], "ms"), roofline(1.0, 1.0, &[]), lines(&[])];
        assert!(
            nothing
                .iter()
                .all(|svg| svg.contains("<svg") && !svg.contains("NaN") && !svg.contains("inf")),
            "{nothing:?}"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.0123, 0.5, 2.0, 2.34, 45.6, 12_345.0].map(short),
            ["0", "0.012", "0.5", "2", "2.3", "46", "12,345"]
        );
    }
}
