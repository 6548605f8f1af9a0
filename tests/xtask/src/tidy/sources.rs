//! Rules about the text of the sources: length, names, the places of `unsafe`, stray machine paths.

use std::path::Path;

use anyhow::Context;
use walkdir::WalkDir;

/// Longest source file, in lines.
const LONGEST: usize = 400;
/// The only folders whose code may say `unsafe`.
const UNSAFE_MAY_STAND_IN: &[&str] = &["plugins/hostnet/", "ebpf/"];
/// File names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "helpers", "manager", "common", "misc", "types",
];
/// Attributes and macros that leave work undone or silence a check without a reason.
const UNDONE: &[&str] = &["todo!(", "unimplemented!(", "#[ignore"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let walk = WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0
                || !(name == "target" || name == "out" || (name.starts_with('.') && name != ".ci"))
        });
    for entry in walk {
        let entry = entry.context("walking the sources")?;
        if !entry.file_type().is_file() {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let path = path.to_string_lossy();
        if path != "tests/xtask/src/tidy/sources.rs" && path != "Cargo.lock" {
            findings.extend(of(&path, &text));
            findings.extend(stray_paths(root, &path, &text));
        }
    }
    Ok(findings)
}

/// Home folders and this very checkout: what is written on one machine is wrong on every other.
fn stray_paths(root: &Path, path: &str, text: &str) -> Vec<String> {
    let checkout = format!("{}/", root.display());
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| {
            ["/root/", "/home/", &checkout]
                .iter()
                .any(|place| line.contains(place))
        })
        .map(|(number, _)| format!("{path}:{number}: names a path of one machine"))
        .collect()
}

fn of(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !path.ends_with(".rs") {
        return findings;
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        findings.push(format!(
            "{path}: {lines} lines, at most {LONGEST}: split by concern"
        ));
    }
    let stem = Path::new(path)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    if EMPTY_NAMES.contains(&stem.as_ref()) {
        findings.push(format!(
            "{path}: `{stem}` says nothing about what is inside"
        ));
    }
    let unsafe_allowed = UNSAFE_MAY_STAND_IN
        .iter()
        .any(|folder| path.starts_with(folder));
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        if !unsafe_allowed && (code.contains("unsafe {") || code.contains("unsafe fn")) {
            findings.push(format!(
                "{path}:{number}: `unsafe` may stand in hostnet and ebpf only"
            ));
        }
        if UNDONE.iter().any(|mark| code.contains(mark)) {
            findings.push(format!("{path}:{number}: unfinished or skipped work"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{of, stray_paths};

    #[test]
    fn a_path_of_this_checkout_is_found() {
        assert_eq!(
            stray_paths(
                Path::new("/srv/checkout"),
                "README.md",
                "a\ncd /srv/checkout/docs\n"
            ),
            ["README.md:2: names a path of one machine"]
        );
    }

    #[test]
    fn each_rule_names_file_and_line() {
        assert_eq!(
            of(
                "daemon/agent/src/utils.rs",
                "fn a() {\n    unsafe { b() }\n    todo!()\n}\n"
            ),
            vec![
                "daemon/agent/src/utils.rs: `utils` says nothing about what is inside",
                "daemon/agent/src/utils.rs:2: `unsafe` may stand in hostnet and ebpf only",
                "daemon/agent/src/utils.rs:3: unfinished or skipped work",
            ]
        );
    }

    #[test]
    fn clean_text_has_no_finding() {
        assert_eq!(
            of("plugins/hostnet/src/a.rs", "// SAFETY: …\nunsafe { b() }\n"),
            [""; 0]
        );
    }
}
