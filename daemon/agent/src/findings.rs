//! What is wrong with what the API server tells, or with its telling: shown to people. Nothing acts
//! on it: what cannot be understood was left out already.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::store::Kind;
use crate::translate::TranslateError;

/// Everything that is wrong now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    objects: BTreeMap<Kind, BTreeMap<String, Vec<TranslateError>>>,
    interrupted: BTreeMap<Kind, Interruption>,
}

/// A watch that is not followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interruption {
    /// The error.
    pub why: String,
    /// Since when, in whole seconds.
    pub since: Timestamp,
}

// === impl Findings ===

impl Findings {
    /// What is wrong with the object called `name`, now; whether that is news.
    pub fn of_object(&mut self, kind: Kind, name: &str, problems: Vec<TranslateError>) -> bool {
        let known = self.objects.entry(kind).or_default();
        if problems.is_empty() {
            return known.remove(name).is_some();
        }
        let modified = known.get(name) != Some(&problems);
        known.insert(name.to_owned(), problems);
        modified
    }

    /// What is wrong with all objects of a kind, now that all are listed.
    pub fn of_list(&mut self, kind: Kind, problems: BTreeMap<String, Vec<TranslateError>>) -> bool {
        let known = self.objects.entry(kind).or_default();
        let modified = *known != problems;
        *known = problems;
        modified
    }

    /// The watch of `kind` is interrupted.
    pub fn interrupt(&mut self, kind: Kind, why: String, now: Timestamp) -> bool {
        let since = match self.interrupted.get(&kind) {
            Some(known) if known.why == why => return false,
            Some(known) => known.since,
            None => Timestamp::from_second(now.as_second()).unwrap_or(now),
        };
        let interruption = Interruption { why, since };
        self.interrupted.insert(kind, interruption);
        true
    }

    /// The watch of `kind` goes on; whether it was interrupted.
    pub fn resume(&mut self, kind: Kind) -> bool {
        self.interrupted.remove(&kind).is_some()
    }

    /// What is wrong with the object called `name`.
    #[must_use]
    pub fn object(&self, kind: Kind, name: &str) -> &[TranslateError] {
        let found = self.objects.get(&kind).and_then(|known| known.get(name));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// What is wrong with all objects.
    pub fn objects(&self) -> impl Iterator<Item = &TranslateError> {
        self.objects.values().flat_map(BTreeMap::values).flatten()
    }

    /// What is wrong with all objects of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &TranslateError> {
        let known = self.objects.get(&kind);
        known.into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// Why the watch of `kind` is interrupted, if it is.
    #[must_use]
    pub fn interruption(&self, kind: Kind) -> Option<&Interruption> {
        self.interrupted.get(&kind)
    }

    /// The interrupted watches, those with the same reason together: mostly the API server is away.
    #[must_use]
    pub fn interruptions(&self) -> Vec<(Vec<Kind>, Interruption)> {
        let mut all: Vec<(Vec<Kind>, Interruption)> = Vec::new();
        for (kind, one) in &self.interrupted {
            match all.iter_mut().find(|(_, other)| other.why == one.why) {
                Some((kinds, other)) => {
                    kinds.push(*kind);
                    other.since = other.since.min(one.since);
                }
                None => all.push((vec![*kind], one.clone())),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(value: &str) -> TranslateError {
        TranslateError {
            object: "Node n2".to_owned(),
            field: "f".to_owned(),
            value: value.to_owned(),
            remedy: "use g".to_owned(),
        }
    }

    #[test]
    fn an_object_is_wrong_until_it_is_right_or_gone() {
        let mut findings = Findings::default();
        assert!(findings.of_object(Kind::Node, "n2", vec![problem("a")]));
        assert!(!findings.of_object(Kind::Node, "n2", vec![problem("a")]));
        assert!(findings.of_object(Kind::Node, "n2", vec![problem("b")]));
        assert_eq!(findings.object(Kind::Node, "n2"), [problem("b")]);
        assert!(findings.object(Kind::Pod, "n2").is_empty());
        assert!(findings.of_object(Kind::Node, "n2", vec![]));
        assert!(!findings.of_object(Kind::Node, "n2", vec![]));
        assert!(findings.of_object(Kind::Node, "n2", vec![problem("b")]));
        // Another list, without it.
        assert!(findings.of_list(Kind::Node, BTreeMap::new()));
        assert_eq!(findings.objects().count(), 0);
    }

    #[test]
    fn watches_that_are_interrupted_alike_are_one() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut findings = Findings::default();
        assert!(findings.interrupt(Kind::Pod, "refused".to_owned(), at(5)));
        assert!(findings.interrupt(Kind::Node, "timed out".to_owned(), at(6)));
        assert!(findings.interrupt(Kind::Node, "refused".to_owned(), at(7)));
        assert!(!findings.interrupt(Kind::Node, "refused".to_owned(), at(8)));
        let refused = Interruption {
            why: "refused".to_owned(),
            since: at(5),
        };
        let both = vec![Kind::Node, Kind::Pod];
        assert_eq!(findings.interruptions(), [(both, refused)]);
        assert!(findings.resume(Kind::Node));
        assert!(!findings.resume(Kind::Node));
        assert_eq!(findings.interruption(Kind::Pod).unwrap().since, at(5));
    }
}
