//! Names that come from outside, checked on parse.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A value from outside that is not what its type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {problem}")]
pub struct NameError {
    /// What was being read, such as `interface name`.
    pub what: &'static str,
    /// The text as it came.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub problem: &'static str,
}

impl NameError {
    /// An error for `value`, read as a `what`.
    pub(crate) fn new(what: &'static str, value: &str, problem: &'static str) -> Self {
        Self {
            what,
            value: value.to_owned(),
            problem,
        }
    }
}

/// Longest interface name in bytes (`IFNAMSIZ` less the final zero).
pub const IFNAME_MAX: usize = 15;

/// A network interface's name: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`
/// (the kernel's `dev_valid_name`, which the CNI specification repeats).
///
/// The text is in the value itself: tables of thousands of entries name their interface in each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName {
    /// Zeros follow, which no name holds: names are in the order of their texts.
    bytes: [u8; IFNAME_MAX],
    len: u8,
}

// === impl IfName ===

impl IfName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len));
        text.and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or_default()
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IfName").field(&self.as_str()).finish()
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |problem| Err(NameError::new("interface name", text, problem));
        if text.is_empty() {
            return bad("is empty; give 1 to 15 bytes");
        }
        if text.len() > IFNAME_MAX {
            return bad("is longer than 15 bytes; shorten it");
        }
        if text == "." || text == ".." {
            return bad("is reserved; choose another");
        }
        if text.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) {
            return bad("holds '/', ':', a zero byte or white space; remove it");
        }
        if text.contains('%') {
            return bad("holds '%', by which the kernel makes up another name; remove it");
        }
        let mut bytes = [0; IFNAME_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        let len = u8::try_from(text.len()).unwrap_or(0);
        Ok(Self { bytes, len })
    }
}

impl TryFrom<String> for IfName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The path of a network namespace, such as `/run/netns/x`: absolute, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetnsPath(String);

// === impl NetnsPath ===

impl NetnsPath {
    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetnsPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |problem| Err(NameError::new("network namespace path", text, problem));
        let path = Path::new(text);
        if !path.is_absolute() {
            return bad("is not absolute; give a path such as /run/netns/NAME");
        }
        if text.contains('\0') || path.components().any(|part| part == Component::ParentDir) {
            return bad("holds '..' or a zero byte; give the plain path");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NetnsPath {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NetnsPath> for String {
    fn from(path: NetnsPath) -> Self {
        path.0
    }
}

impl From<NetnsPath> for PathBuf {
    fn from(path: NetnsPath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for NetnsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_shown_and_ordered_as_their_texts() {
        let texts = ["a", "aa", "ab", "b", "eth0", "eth0.1", "ethä", "z"];
        let names: Vec<IfName> = texts.iter().map(|text| text.parse().unwrap()).collect();
        assert!(names.is_sorted());
        assert_eq!(
            format!("{:?} {}", names[4], names[6]),
            r#"IfName("eth0") ethä"#
        );
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "flannel.1", "abcdefghijklmno", "veth-1_2"] {
            assert_eq!(
                good.parse::<IfName>().map(|n| n.to_string()).as_deref(),
                Ok(good)
            );
        }
        for bad in [
            "",
            "abcdefghijklmnop",
            "a/b",
            "a:b",
            "a b",
            ".",
            "..",
            "a\tb",
            "a\0",
            "eth%d",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_error_names_what_value_and_remedy() {
        let error = "a/b".parse::<IfName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface name \"a/b\": holds '/', ':', a zero byte or white space; remove it"
        );
    }

    #[test]
    fn namespace_paths_are_absolute_and_plain() {
        assert!("/run/netns/x".parse::<NetnsPath>().is_ok());
        assert!("/proc/12/ns/net".parse::<NetnsPath>().is_ok());
        for bad in ["", "run/netns/x", "/run/../etc/x"] {
            assert!(bad.parse::<NetnsPath>().is_err(), "{bad:?} was accepted");
        }
    }
}
