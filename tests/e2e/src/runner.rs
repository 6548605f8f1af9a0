//! A test runner that shares one cluster: results are printed as libtest does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, anyhow};

/// How a test ended.
pub enum Verdict {
    /// As it should.
    Passed,
    /// It could not run here, and why.
    Skipped(String),
}

/// Names and outcomes so far.
#[derive(Default)]
pub struct Runner {
    filter: Option<String>,
    passed: usize,
    skipped: usize,
    failures: Vec<(String, String)>,
}

impl Runner {
    /// A runner for the command line of `cargo test`: the first word that is no flag chooses tests by
    /// part of their name; libtest's flags are accepted and mean nothing.
    pub fn from_args() -> Self {
        let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
        Self {
            filter,
            ..Self::default()
        }
    }

    /// Whether a test of this name is chosen.
    pub fn wants(&self, name: &str) -> bool {
        self.filter
            .as_deref()
            .is_none_or(|filter| name.contains(filter))
    }

    /// Runs a test if it is chosen. A panic is a failure.
    pub fn test(&mut self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
        if !self.wants(name) {
            return;
        }
        let start = Instant::now();
        let result =
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("panicked")));
        let took = start.elapsed();
        match result {
            Ok(Verdict::Passed) => {
                self.record(name, Ok(format!("ok ({:.1} s)", took.as_secs_f32())));
            }
            Ok(Verdict::Skipped(why)) => {
                println!("test {name} ... skipped: {why}");
                self.skipped += 1;
            }
            Err(error) => self.record(name, Err(format!("{error:#}"))),
        }
    }

    /// Records a result that was found elsewhere.
    pub fn record(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => {
                println!("test {name} ... {detail}");
                self.passed += 1;
            }
            Err(why) => {
                println!("test {name} ... FAILED");
                self.failures.push((name.to_owned(), why));
            }
        }
    }

    /// Whether any test has failed so far.
    pub fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// How many tests have failed so far.
    pub fn failures(&self) -> usize {
        self.failures.len()
    }

    /// Prints the failures and the tally; gives the exit code.
    pub fn finish(self) -> i32 {
        for (name, why) in &self.failures {
            println!("\n---- {name} ----\n{why}");
        }
        let verdict = if self.failures.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; {} skipped",
            self.passed,
            self.failures.len(),
            self.skipped
        );
        i32::from(!self.failures.is_empty())
    }
}
