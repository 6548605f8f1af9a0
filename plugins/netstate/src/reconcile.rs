//! One pass over several Targets: observe, diff, put in listed order, delete in reverse.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use crate::diff::{Diff, diff};
use crate::target::Target;

/// One thing that did not work in a pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}: {action} {key}: {message}")]
pub struct Failure {
    /// The table's name, as given to [`Wanted::new`].
    pub table: &'static str,
    /// `observe`, `put` or `delete`.
    pub action: &'static str,
    /// The key as text; empty for `observe`.
    pub key: String,
    /// The Target's error as text.
    pub message: String,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries written.
    pub puts: usize,
    /// Entries removed.
    pub deletes: usize,
    /// How many of both somebody else had changed.
    pub drift: usize,
    /// What did not work, in the order in which it happened.
    pub errors: Vec<Failure>,
}

// === impl Report ===

impl Report {
    /// Whether the pass found nothing to do and nothing wrong.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.puts == 0 && self.deletes == 0 && self.errors.is_empty()
    }
}

/// A Target with its wanted contents, its types hidden so that differing ones fit in one list.
pub trait Stage {
    /// Observes and works out the changes. A failure leaves nothing to put or delete.
    fn prepare(&mut self, report: &mut Report);
    /// Puts what is missing or differs.
    fn put(&mut self, report: &mut Report);
    /// Deletes what nobody wants.
    fn delete(&mut self, report: &mut Report);
}

/// The [`Stage`] of a Target.
pub struct Wanted<'a, T: Target> {
    name: &'static str,
    target: &'a mut T,
    wanted: &'a BTreeMap<T::Key, T::Value>,
    change: Option<Diff<T::Key, T::Value>>,
}

// === impl Wanted ===

impl<'a, T: Target> Wanted<'a, T> {
    /// `target` shall hold exactly `wanted`; `name` stands in the report.
    pub fn new(
        name: &'static str,
        target: &'a mut T,
        wanted: &'a BTreeMap<T::Key, T::Value>,
    ) -> Self {
        Self {
            name,
            target,
            wanted,
            change: None,
        }
    }
}

impl<T> Wanted<'_, T>
where
    T: Target,
    T::Error: Display,
{
    fn failure(&self, action: &'static str, key: String, error: &T::Error) -> Failure {
        Failure {
            table: self.name,
            action,
            key,
            message: error.to_string(),
        }
    }
}

impl<T> Stage for Wanted<'_, T>
where
    T: Target,
    T::Key: Debug,
    T::Error: Display,
{
    fn prepare(&mut self, report: &mut Report) {
        match self.target.observe() {
            Ok(actual) => self.change = Some(diff(self.wanted, &actual)),
            Err(error) => report
                .errors
                .push(self.failure("observe", String::new(), &error)),
        }
    }

    fn put(&mut self, report: &mut Report) {
        let puts = self
            .change
            .as_mut()
            .map(|c| std::mem::take(&mut c.puts))
            .unwrap_or_default();
        for (key, value) in &puts {
            let strayed = self.target.has_strayed(key);
            match self.target.put(key, value) {
                Ok(()) => {
                    report.puts += 1;
                    report.drift += usize::from(strayed);
                }
                Err(error) => {
                    report
                        .errors
                        .push(self.failure("put", format!("{key:?}"), &error));
                }
            }
        }
    }

    fn delete(&mut self, report: &mut Report) {
        let keys = self.change.take().map(|c| c.deletes).unwrap_or_default();
        for key in &keys {
            let strayed = self.target.has_strayed(key);
            match self.target.delete(key) {
                Ok(()) => {
                    report.deletes += 1;
                    report.drift += usize::from(strayed);
                }
                Err(error) => {
                    report
                        .errors
                        .push(self.failure("delete", format!("{key:?}"), &error));
                }
            }
        }
    }
}

/// One pass: every stage observes, then all put in listed order, then all delete in reverse, so
/// that nothing ever refers to an entry that is not there. An error never stops the others.
pub fn reconcile(stages: &mut [&mut dyn Stage]) -> Report {
    let mut report = Report::default();
    for stage in stages.iter_mut() {
        stage.prepare(&mut report);
    }
    for stage in stages.iter_mut() {
        stage.put(&mut report);
    }
    for stage in stages.iter_mut().rev() {
        stage.delete(&mut report);
    }
    report
}
