//! Samples, and bars that can be missed.

use std::time::Duration;

/// Times of one kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<Duration>);

/// What has been judged, and what was missed.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) missed: Vec<String>,
}

// === impl Samples ===

impl Samples {
    pub(crate) fn push(&mut self, one: Duration) {
        self.0.push(one);
    }

    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = Duration>) {
        self.0.extend(more);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The least sample that `part` of all do not exceed; zero without samples.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list of samples"
        )]
        let place = (sorted.len() as f64 * part).ceil() as usize;
        let found = sorted.get(place.saturating_sub(1));
        found.copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub(crate) fn longest(&self) -> Duration {
        self.quantile(1.0)
    }
}

// === impl Verdicts ===

impl Verdicts {
    /// The bar in words, with whether it is met.
    pub(crate) fn judge(&mut self, what: &str, bar: &str, met: bool) -> String {
        if met {
            return format!("{bar}: met");
        }
        self.missed.push(format!("{what}: {bar}"));
        format!("{bar}: missed")
    }
}

/// Milliseconds, with no more digits than they are worth.
pub(crate) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        _ if millis >= 100.0 => format!("{millis:.0}"),
        _ if millis >= 10.0 => format!("{millis:.1}"),
        _ => format!("{millis:.2}"),
    }
}

/// Seconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.longest(), Duration::ZERO);
        samples.extend([5, 1, 4, 2, 3].map(Duration::from_millis));
        let at = |part| samples.quantile(part).as_millis();
        assert_eq!([0.0, 0.2, 0.5, 0.99, 1.0].map(at), [1, 1, 3, 5, 5]);
        let shown = [0.5, 12.34, 123.4].map(|ms| millis(Duration::from_secs_f64(ms / 1000.0)));
        assert_eq!(shown, ["0.50", "12.3", "123"]);
    }

    #[test]
    fn what_is_missed_is_remembered() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.judge("join", "≤ 6", true), "≤ 6: met");
        assert_eq!(verdicts.judge("memory", "≤ 20", false), "≤ 20: missed");
        assert_eq!(verdicts.missed, ["memory: ≤ 20"]);
    }
}
