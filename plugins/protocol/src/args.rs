//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.

use std::fmt;

use crate::error::Error;

/// The runtime's extra arguments, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    pairs: Vec<(String, String)>,
}

// === impl Args ===

impl Args {
    /// Reads `text`; the empty text has no arguments.
    ///
    /// # Errors
    /// Code 4 for a part that is not `KEY=VALUE`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut pairs = Vec::new();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    pairs.push((key.to_owned(), value.to_owned()));
                }
                _ => {
                    let msg = format!("CNI_ARGS: {part:?} is not KEY=VALUE; separate pairs by ';'");
                    return Err(Error::environment(msg));
                }
            }
        }
        Ok(Self { pairs })
    }

    /// The value of `key`, the last one if there are several.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Refuses keys that are not in `known`, unless `IgnoreUnknown` is `1` or `true`.
    ///
    /// # Errors
    /// Code 4 naming the unknown keys.
    pub fn check_known(&self, known: &[&str]) -> Result<(), Error> {
        if self
            .get("IgnoreUnknown")
            .is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"))
        {
            return Ok(());
        }
        let is_known = |key: &str| key == "IgnoreUnknown" || known.contains(&key);
        let unknown: Vec<&str> = self
            .pairs
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| !is_known(key))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let msg = format!(
            "CNI_ARGS: unknown keys {}; add IgnoreUnknown=1",
            unknown.join(", ")
        );
        Err(Error::environment(msg))
    }
}

impl FromIterator<(String, String)> for Args {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self {
            pairs: pairs.into_iter().collect(),
        }
    }
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.pairs.iter().enumerate() {
            let separator = if at == 0 { "" } else { ";" };
            write!(f, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}
