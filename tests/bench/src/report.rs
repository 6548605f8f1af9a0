//! Medians, ratios and the page they are written to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::load::{Measured, Mode};

/// One row of the report: what was measured and how often.
#[derive(Default)]
pub(crate) struct Row {
    measured: BTreeMap<Mode, Vec<Measured>>,
}

impl Row {
    pub(crate) fn add(&mut self, mode: Mode, one: Measured) {
        self.measured.entry(mode).or_default().push(one);
    }

    /// Median CPU time per operation, nanoseconds.
    fn cpu(&self, mode: Mode) -> f64 {
        median(
            self.of(mode)
                .iter()
                .map(|one| one.cpu_ns as f64 / one.operations as f64)
                .collect(),
        )
    }

    /// Median operations per second of wall time.
    fn rate(&self, mode: Mode) -> f64 {
        median(
            self.of(mode)
                .iter()
                .map(|one| one.operations as f64 * 1e9 / one.wall_ns as f64)
                .collect(),
        )
    }

    fn of(&self, mode: Mode) -> &[Measured] {
        self.measured.get(&mode).map_or(&[], Vec::as_slice)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// A Markdown table of `rows` against the row named `baseline`.
pub(crate) fn table(rows: &[(String, Row)], baseline: &str) -> String {
    let mut text = String::from(
        "| path | connection, CPU µs (ratio) | conn/s | request, CPU µs (ratio) | req/s \
         | MiB, CPU µs (ratio) | MiB/s |\n|---|---|---|---|---|---|---|\n",
    );
    let Some((_, base)) = rows.iter().find(|(name, _)| name == baseline) else {
        return text;
    };
    for (name, row) in rows {
        let _ = write!(text, "| {name} ");
        for mode in [Mode::Crr, Mode::Rr, Mode::Bulk] {
            let cpu = row.cpu(mode);
            let _ = write!(
                text,
                "| {:.1} ({:.2}) | {:.0} ",
                cpu / 1000.0,
                cpu / base.cpu(mode),
                row.rate(mode)
            );
        }
        text.push_str("|\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_against_the_baseline() {
        let row = |cpu: [u64; 3]| {
            let mut row = Row::default();
            for mode in [Mode::Crr, Mode::Rr, Mode::Bulk] {
                for cpu_ns in cpu {
                    row.add(
                        mode,
                        Measured {
                            operations: 10,
                            cpu_ns,
                            wall_ns: 1_000_000_000,
                        },
                    );
                }
            }
            row
        };
        let rows = [
            ("plain".to_owned(), row([10_000, 20_000, 900_000])),
            ("ours".to_owned(), row([1, 10_000, 10_000_000])),
        ];
        let text = table(&rows, "plain");
        let ours = text.lines().last().unwrap();
        assert_eq!(
            ours,
            "| ours | 1.0 (0.50) | 10 | 1.0 (0.50) | 10 | 1.0 (0.50) | 10 |"
        );
    }
}
