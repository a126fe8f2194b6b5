//! What was measured, as a table and against budgets.

use crate::listing::Counts;

/// One kernel on one family.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) family: &'static str,
    pub(crate) vgprs: u64,
    pub(crate) sgprs: u64,
    /// Registers that did not fit, vector and scalar.
    pub(crate) spills: u64,
    /// Subgroups that a SIMD can hold, as the driver counts them: those of 64 lanes as two where
    /// it has 32.
    pub(crate) occupancy: u64,
    /// Workgroup memory, bytes.
    pub(crate) shared: u64,
    pub(crate) instructions: u64,
    /// A step of the main loop.
    pub(crate) step: Counts,
}

impl Row {
    /// Multiply-adds in a hundred vector operations of a step.
    fn share(&self) -> f64 {
        100.0 * self.step.multiply_adds as f64 / self.step.vector as f64
    }

    fn cells(&self) -> [String; 13] {
        let step = self.step;
        let per_shared = match step.shared_bytes {
            0 => "-".into(),
            bytes => format!("{:.1}", 16.0 * step.multiply_adds as f64 / bytes as f64),
        };
        [
            self.case.into(),
            self.family.into(),
            self.vgprs.to_string(),
            self.sgprs.to_string(),
            self.spills.to_string(),
            self.occupancy.to_string(),
            self.shared.to_string(),
            self.instructions.to_string(),
            format!("{:.1}", self.share()),
            per_shared,
            format!("{:.1}", step.multiply_adds as f64 / step.loads as f64),
            format!("{:.0}", 100.0 * step.paired as f64 / step.vector as f64),
            match step.products {
                0 => "-".into(),
                products => format!("{products} of {}", step.vector),
            },
        ]
    }
}

const HEAD: [&str; 13] = [
    "kernel",
    "family",
    "VGPRs",
    "SGPRs",
    "spills",
    "waves",
    "LDS B",
    "instructions",
    "FMA %",
    "FMA / 16 B of LDS",
    "FMA / load",
    "dual %",
    "WMMA",
];

/// The table in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEAD.map(str::to_owned));
    text.push_str(&line(&HEAD.map(|_| "---".to_owned())));
    rows.iter().for_each(|row| text.push_str(&line(&row.cells())));
    text
}

/// The least that a kernel must reach on a family.
#[derive(Debug, PartialEq)]
struct Budget<'a> {
    case: &'a str,
    family: &'a str,
    spills: u64,
    occupancy: u64,
    share: f64,
}

fn parse(line: &str) -> Option<Budget<'_>> {
    let mut fields = line.split('|').map(str::trim);
    let mut next = || fields.next();
    let budget = Budget {
        case: next()?,
        family: next()?,
        spills: next()?.parse().ok()?,
        occupancy: next()?.parse().ok()?,
        share: next()?.parse().ok()?,
    };
    next().is_none().then_some(budget)
}

/// What breaks the budgets, each with its numbers. A line is `kernel | family | most spills | least
/// waves | least FMA %`.
pub(crate) fn broken(rows: &[Row], budgets: &str) -> Vec<String> {
    let lines = budgets.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut broken = Vec::new();
    for line in lines {
        let Some(budget) = parse(line) else {
            broken.push(format!("not a budget: {line}"));
            continue;
        };
        let Some(row) =
            rows.iter().find(|row| (row.case, row.family) == (budget.case, budget.family))
        else {
            broken.push(format!("nothing was measured for: {line}"));
            continue;
        };
        let mut miss = |what: &str, found: String, limit: String| {
            broken
                .push(format!("{} on {}: {what} is {found}, budget {limit}", row.case, row.family));
        };
        if row.spills > budget.spills {
            miss("spills", row.spills.to_string(), budget.spills.to_string());
        }
        if row.occupancy < budget.occupancy {
            miss("waves", row.occupancy.to_string(), budget.occupancy.to_string());
        }
        if row.share() < budget.share {
            miss("FMA %", format!("{:.2}", row.share()), budget.share.to_string());
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let step = Counts {
            multiply_adds: 90,
            products: 0,
            vector: 100,
            paired: 50,
            shared_bytes: 160,
            loads: 9,
        };
        Row {
            case: "block",
            family: "navi21",
            vgprs: 128,
            sgprs: 100,
            spills: 0,
            occupancy: 8,
            shared: 1024,
            instructions: 1500,
            step,
        }
    }

    #[test]
    fn a_row_becomes_a_line() {
        let text = table(&[row()]);
        let line = text.lines().nth(2).expect("has a row");
        assert_eq!(
            line,
            "| block | navi21 | 128 | 100 | 0 | 8 | 1024 | 1500 | 90.0 | 9.0 | 10.0 | 50 | - |"
        );
    }

    #[test]
    fn budgets_are_held() {
        assert_eq!(broken(&[row()], "# comment\n\nblock | navi21 | 0 | 8 | 90\n"), [""; 0]);
        let cases = [
            ("block | navi21 | 0 | 9 | 90", "block on navi21: waves is 8, budget 9"),
            ("block | navi21 | 0 | 8 | 90.5", "block on navi21: FMA % is 90.00, budget 90.5"),
            (
                "other | navi21 | 0 | 8 | 90",
                "nothing was measured for: other | navi21 | 0 | 8 | 90",
            ),
            ("block | navi21 | 0 | 8", "not a budget: block | navi21 | 0 | 8"),
        ];
        for (budgets, expected) in cases {
            assert_eq!(broken(&[row()], budgets), [expected], "{budgets}");
        }
        let spilled = Row { spills: 3, ..row() };
        assert_eq!(
            broken(&[spilled], "block | navi21 | 0 | 8 | 90"),
            ["block on navi21: spills is 3, budget 0"]
        );
    }
}
