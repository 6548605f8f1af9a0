//! Running other programs: the output on success, one clear error otherwise.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs `words` to the end and returns its standard output.
///
/// # Errors
/// When it cannot be started, or exits non-zero (with what it said on standard error).
pub(crate) fn output(words: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let line = words.join(" ");
    let (program, arguments) = words.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin
            .write_all(text.as_bytes())
            .with_context(|| format!("writing to `{line}`"))?;
    }
    let finished = child
        .wait_with_output()
        .with_context(|| format!("waiting for `{line}`"))?;
    if !finished.status.success() {
        let said = String::from_utf8_lossy(&finished.stderr);
        bail!("`{line}` failed ({}): {}", finished.status, said.trim());
    }
    String::from_utf8(finished.stdout).with_context(|| format!("reading what `{line}` printed"))
}

/// Runs a line of words separated by spaces.
///
/// # Errors
/// As [`output`].
pub(crate) fn run(line: &str) -> anyhow::Result<String> {
    output(&line.split_whitespace().collect::<Vec<_>>(), None)
}
