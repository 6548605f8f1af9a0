//! What is wrong with the configuration, in one line.

use std::fmt;

/// A setting that cannot be used: where it stands, what was given, what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ConfigError {
    /// The file, or "settings" for flags, variables and the file merged.
    pub source_name: String,
    /// The key, with its path where it is nested.
    pub field: String,
    /// The value as given; empty if it is missing.
    pub value: String,
    /// What is wrong and what to do about it.
    pub remedy: String,
}

// === impl ConfigError ===

impl ConfigError {
    /// An error about `field` of `source_name`.
    pub fn new(
        source_name: impl Into<String>,
        field: impl Into<String>,
        value: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            source_name: source_name.into(),
            field: field.into(),
            value: value.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.value.is_empty() {
            "(missing)"
        } else {
            &self.value
        };
        write!(
            f,
            "{}: {}: {value}: {}",
            self.source_name, self.field, self.remedy
        )
    }
}
