//! Every dependency must come under a licence that Apache-2.0 software may be shipped with.

use cargo_metadata::Metadata;

const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    metadata
        .packages
        .iter()
        .filter_map(|package| match package.license.as_deref() {
            Some(licence) if accepted(licence) => None,
            Some(licence) => Some(format!(
                "{}: licence {licence} is not accepted",
                package.name
            )),
            None if package.license_file.is_some() => None,
            None => Some(format!("{}: names no licence", package.name)),
        })
        .collect()
}

/// An SPDX expression is accepted when every part joined by AND has an accepted alternative.
/// Parentheses occur only around such alternatives in the field, so they are dropped.
fn accepted(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| ACCEPTED.contains(&licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::accepted;

    #[test]
    fn alternatives_and_conjunctions_are_understood() {
        assert!(accepted("MIT OR GPL-3.0"));
        assert!(accepted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(accepted("MIT/Apache-2.0"));
        assert!(!accepted("GPL-3.0-or-later"));
        assert!(!accepted("MIT AND GPL-2.0"));
    }
}
