//! Environment variables as a value, so that a run needs no process of its own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// The environment of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    variables: BTreeMap<OsString, OsString>,
}

// === impl Env ===

impl Env {
    /// This process' environment.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// The value of `name`; an empty one counts as absent, and so does one that is not UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(OsStr::new(name))
            .and_then(|v| v.to_str())
            .filter(|v| !v.is_empty())
    }

    /// The first of `names` that is set to something that is not UTF-8.
    #[must_use]
    pub fn unreadable<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        let value = |name: &str| self.variables.get(OsStr::new(name));
        let is_unreadable = |name: &&&str| value(name).is_some_and(|v| v.to_str().is_none());
        names.iter().find(is_unreadable).copied()
    }

    /// The same environment with `name` set to `value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Env {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self {
            variables: pairs
                .into_iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
        }
    }
}
