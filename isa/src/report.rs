//! What was measured, as a table and against budgets.

use crate::listing::Counts;

/// One kernel on one family.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) family: &'static str,
    /// Invocations of a subgroup.
    pub(crate) subgroup: u32,
    /// Registers of an invocation, as the driver counts them.
    pub(crate) registers: u64,
    /// Registers that did not fit, vector and scalar.
    pub(crate) spills: u64,
    /// What fits at once, as the driver counts it, if it does.
    pub(crate) occupancy: Option<u64>,
    /// Workgroup memory, bytes.
    pub(crate) shared: u64,
    pub(crate) instructions: u64,
    /// By the driver's model, if it has one.
    pub(crate) cycles: Option<u64>,
    /// A step of the main loop, or why it was not found.
    pub(crate) step: Result<Counts, String>,
}

impl Row {
    /// Multiply-adds in a hundred vector operations of a step.
    fn share(&self) -> Option<f64> {
        self.ratio(|step| [100 * step.multiply_adds, step.vector])
    }

    /// A fraction of a step, if there is a step and the fraction has a value.
    fn ratio(&self, terms: impl Fn(&Counts) -> [u64; 2]) -> Option<f64> {
        let [above, below] = self.step.as_ref().ok().map(terms)?;
        (below > 0).then(|| above as f64 / below as f64)
    }

    fn cells(&self) -> [String; 14] {
        let count = |known: Option<u64>| known.map_or("-".into(), |value| value.to_string());
        let ratio = |terms: fn(&Counts) -> [u64; 2]| {
            self.ratio(terms).map_or("-".into(), |value| format!("{value:.1}"))
        };
        [
            self.case.into(),
            self.family.into(),
            self.subgroup.to_string(),
            self.registers.to_string(),
            self.spills.to_string(),
            count(self.occupancy),
            self.shared.to_string(),
            self.instructions.to_string(),
            count(self.cycles),
            ratio(|step| [100 * step.multiply_adds, step.vector]),
            ratio(|step| [16 * step.multiply_adds, step.shared_bytes]),
            ratio(|step| [step.multiply_adds, step.loads]),
            ratio(|step| [4 * step.words, step.loads]),
            match &self.step {
                Ok(step) if step.products > 0 => format!("{} of {}", step.products, step.vector),
                Ok(step) => format!("{:.0}", 100.0 * step.paired as f64 / step.vector as f64),
                Err(_) => "-".into(),
            },
        ]
    }
}

const HEAD: [&str; 14] = [
    "kernel",
    "family",
    "subgroup",
    "registers",
    "spills",
    "fit",
    "shared B",
    "instructions",
    "cycles",
    "FMA %",
    "FMA / 16 B shared",
    "FMA / load",
    "B / load",
    "dual % or products",
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
/// that fits | least FMA %`.
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
        let occupancy = row.occupancy.unwrap_or(0);
        if occupancy < budget.occupancy {
            miss("what fits", occupancy.to_string(), budget.occupancy.to_string());
        }
        match row.share() {
            Some(share) if share >= budget.share => (),
            Some(share) => miss("FMA %", format!("{share:.2}"), budget.share.to_string()),
            None => miss("FMA %", "not known".into(), budget.share.to_string()),
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
            words: 18,
        };
        Row {
            case: "block",
            family: "navi21",
            subgroup: 64,
            registers: 128,
            spills: 0,
            occupancy: Some(8),
            shared: 1024,
            instructions: 1500,
            cycles: Some(9000),
            step: Ok(step),
        }
    }

    #[test]
    fn a_row_becomes_a_line() {
        let text = table(&[row()]);
        let line = text.lines().nth(2).expect("has a row");
        assert_eq!(
            line,
            "| block | navi21 | 64 | 128 | 0 | 8 | 1024 | 1500 | 9000 | 90.0 | 9.0 | 10.0 | 8.0 | \
             50 |"
        );
    }

    #[test]
    fn budgets_are_held() {
        assert_eq!(broken(&[row()], "# comment\n\nblock | navi21 | 0 | 8 | 90\n"), [""; 0]);
        let cases = [
            ("block | navi21 | 0 | 9 | 90", "block on navi21: what fits is 8, budget 9"),
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
