//! Results on the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};
use dynconv_measure::{Comparison, Results, Row};

const HEADER: [&str; 13] = [
    "shape",
    "batch",
    "kernel",
    "ms",
    "min - max",
    "GFLOP/s",
    "% of\npeak",
    "% of\ncopy",
    "x static",
    "x groups",
    "record\nus",
    "first use\nms",
    "error",
];

/// A row a layer and kernel.
pub(super) fn table(results: &Results) -> Table {
    let mut table = plain(&HEADER, 3);
    for row in &results.rows {
        table.add_row(cells(row));
    }
    table
}

fn cells(row: &Row) -> [String; 13] {
    [
        row.shape.clone(),
        row.batch.to_string(),
        kernel(row),
        ms(row.median_ms),
        format!("{} - {}", ms(row.min_ms), ms(row.max_ms)),
        format!("{:.2}", row.gflops),
        format!("{:.1}", row.peak_percent),
        format!("{:.1}", row.copy_percent),
        format!("{:.2}", row.ratio_to_static),
        row.ratio_to_groups.map_or("-".into(), |ratio| format!("{ratio:.2}")),
        format!("{:.0}", row.host_record_us),
        format!("{:.0}", row.first_use_ms),
        format!("{:.0e}", row.verified_error),
    ]
}

/// The kernel asked for, and what the planner chose where it was asked.
pub(super) fn kernel(row: &Row) -> String {
    let conv = row.kernel.rsplit(" + ").next().unwrap_or_default();
    if row.strategy == "auto" { format!("auto: {conv}") } else { row.strategy.clone() }
}

/// Milliseconds with three digits that count.
pub(crate) fn ms(time: f64) -> String {
    match time {
        ..0.995 => format!("{time:.3}"),
        ..9.95 => format!("{time:.2}"),
        ..99.5 => format!("{time:.1}"),
        _ => format!("{time:.0}"),
    }
}

/// What the table does not say: what the columns mean, and what was not measured.
pub(super) fn notes(results: &Results) -> String {
    let mut text = String::from(
        "x static: times the time of our static convolution of the same shape; x groups: times \
         that of the batch as groups.\n",
    );
    let mut refused: BTreeMap<String, Vec<(String, &str)>> = BTreeMap::new();
    for refusal in &results.not_measured {
        let kind = if refusal.is_wrong { "WRONG" } else { "not run" };
        let layer = format!("{} batch {}", refusal.shape, refusal.batch);
        refused
            .entry(format!("{kind}: {}", refusal.strategy))
            .or_default()
            .push((layer, &refusal.reason));
    }
    for row in &results.rows {
        if let Some(reason) = &row.without_groups {
            let layers = refused.entry("not run: groups".into()).or_default();
            let layer = (format!("{} batch {}", row.shape, row.batch), reason.as_str());
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
    }
    for (what, layers) in refused {
        // Reasons differ in numbers only, mostly; the results as JSON have them all. What is wrong
        // is told in full.
        let told = if what.starts_with("WRONG") { layers.len() } else { 1 };
        for (layer, reason) in &layers[..told] {
            // Writing to a string cannot fail.
            let _ = write!(text, "{what} on {layer}: {reason}");
            text += &if layers.len() > told {
                format!("; and {} more\n", layers.len() - told)
            } else {
                "\n".into()
            };
        }
    }
    text
}

/// What changed since an older run.
pub(super) fn comparison(comparison: &Comparison) -> Table {
    let mut table =
        plain(&["shape", "batch", "kernel", "before ms", "now ms", "now / before", "so it is"], 3);
    for change in &comparison.changes {
        table.add_row([
            change.shape.clone(),
            change.batch.to_string(),
            change.strategy.clone(),
            ms(change.before_ms),
            ms(change.after_ms),
            format!("{:.2}", change.after_ms / change.before_ms),
            change.verdict.to_string(),
        ]);
    }
    table
}

/// A table whose first `words` columns are words, and the others numbers.
pub(crate) fn plain(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::ms;

    #[test]
    fn times_have_three_digits_that_count() {
        assert_eq!(
            [0.01234, 0.9951, 9.946, 12.34, 99.96, 4321.0].map(ms),
            ["0.012", "1.00", "9.95", "12.3", "100", "4321"]
        );
    }
}
