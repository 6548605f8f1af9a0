//! The rules of ARCHITECTURE.md, checked by machine. Each rule yields findings; one finding fails.

mod layers;
mod licences;
mod sources;

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// Runs every rule over the workspace and prints each finding on a line of its own.
///
/// # Errors
/// When cargo's metadata cannot be read, or when there is any finding.
pub(crate) fn run() -> anyhow::Result<()> {
    let metadata: Metadata = MetadataCommand::new()
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("reading the workspace by `cargo metadata`")?;
    let root = metadata.workspace_root.as_std_path();

    let mut findings = layers::check(&metadata);
    findings.extend(licences::check(&metadata));
    findings.extend(sources::check(root)?);

    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} finding(s)", findings.len());
    }
    println!("tidy: layers, licences, lengths, names and unsafe are in order");
    println!("tidy: NOT checked: security advisories (their database cannot be read offline)");
    Ok(())
}
