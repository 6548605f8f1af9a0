//! Samples, medians, bars, and the table they are shown in.

use std::fmt::Write as _;
use std::time::Duration;

/// Times of one kind of call.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<Duration>);

/// What a figure must not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// This part of the reference's median.
    OfReference(f64),
    /// This many times the kernel's floor.
    OfFloor(f64),
    /// This many milliseconds.
    Millis(f64),
}

/// One line of the report.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) ours: Samples,
    pub(crate) reference: Samples,
    pub(crate) floor: Samples,
    pub(crate) bars: Vec<Bar>,
}

// === impl Samples ===

impl Samples {
    pub(crate) fn push(&mut self, one: Duration) {
        self.0.push(one);
    }

    /// The value below which `part` of the samples are, in milliseconds; NaN without samples.
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        sorted
            .get(at)
            .map_or(f64::NAN, |one| one.as_secs_f64() * 1e3)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn shown(&self) -> String {
        if self.0.is_empty() {
            return "–".to_owned();
        }
        let (median, p90) = (self.median(), self.quantile(0.9));
        format!("{} / {}", millis(median), millis(p90))
    }
}

// === impl Figure ===

impl Figure {
    /// Each bar in words, with whether it is met.
    fn judged(&self) -> Vec<(String, bool)> {
        let judge = |bar: &Bar| match *bar {
            Bar::OfReference(most) => {
                let text = format!("≤ 1/{:.0} of the reference", 1.0 / most);
                (text, self.ours.median() <= most * self.reference.median())
            }
            Bar::OfFloor(most) => {
                let text = format!("≤ {most} × floor");
                (text, self.ours.median() <= most * self.floor.median())
            }
            Bar::Millis(most) => (format!("≤ {most} ms"), self.ours.median() <= most),
        };
        self.bars.iter().map(judge).collect()
    }

    /// The bars that it misses, in words.
    pub(crate) fn missed(&self) -> impl Iterator<Item = String> {
        let missed = self.judged().into_iter().filter(|(_, met)| !met);
        missed.map(|(bar, _)| format!("{}: {bar}", self.name))
    }

    fn line(&self) -> String {
        let ours = self.ours.median();
        let against = |other: &Samples| match other.median() {
            other if other.is_nan() => "–".to_owned(),
            other => format!("{:.2}", ours / other),
        };
        let bars: Vec<String> = self
            .judged()
            .into_iter()
            .map(|(bar, met)| format!("{bar}: {}", if met { "met" } else { "**missed**" }))
            .collect();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {}, {} |",
            self.name,
            self.ours.shown(),
            self.reference.shown(),
            against(&self.reference),
            self.floor.shown(),
            against(&self.floor),
            bars.join("; "),
            self.ours.0.len(),
            self.reference.0.len(),
        )
    }
}

/// The figures as a Markdown table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| call | Towline, ms | reference, ms | ratio | kernel's floor, ms | Towline / floor | bar \
         | samples |\n|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let _ = writeln!(text, "{}", figure.line());
    }
    text
}

fn millis(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: &[u64]) -> Samples {
        let mut samples = Samples::default();
        for one in millis {
            samples.push(Duration::from_millis(*one));
        }
        samples
    }

    #[test]
    fn bars_are_judged_by_medians() {
        let figure = Figure {
            name: "bridge ADD".to_owned(),
            ours: samples(&[2, 3, 90]),
            reference: samples(&[12, 1, 99]),
            floor: samples(&[2]),
            bars: vec![
                Bar::OfReference(0.25),
                Bar::OfFloor(1.15),
                Bar::Millis(10.0),
            ],
        };
        assert_eq!(
            figure.missed().collect::<Vec<_>>(),
            ["bridge ADD: ≤ 1.15 × floor"]
        );
        assert_eq!(
            table(&[figure]).lines().last().unwrap(),
            "| bridge ADD | 3.00 / 90.0 | 12.0 / 99.0 | 0.25 | 2.00 / 2.00 | 1.50 | ≤ 1/4 of the \
             reference: met; ≤ 1.15 × floor: **missed**; ≤ 10 ms: met | 3, 3 |"
        );
    }

    #[test]
    fn a_bar_without_figures_is_missed() {
        let figure = Figure {
            name: "x".to_owned(),
            ours: samples(&[]),
            reference: samples(&[1]),
            floor: samples(&[1]),
            bars: vec![Bar::OfReference(0.25)],
        };
        assert_eq!(figure.missed().count(), 1);
    }
}
