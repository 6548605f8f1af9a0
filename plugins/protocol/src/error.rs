//! Errors with the specification's codes.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// What a plugin says instead of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Error {
    /// The specification's code; 100 and above are a plugin's own.
    #[serde(default)]
    pub code: u32,
    /// What is wrong, in one line.
    #[serde(default)]
    pub msg: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Code of an error that has no code of its own in the specification.
pub const CODE_OTHER: u32 = 999;
/// Code of "try again later".
pub const CODE_TRY_AGAIN: u32 = 11;
/// Code of "cannot serve ADD now".
pub const CODE_NOT_AVAILABLE: u32 = 50;

// === impl Error ===

impl Error {
    /// An error with `code`.
    #[must_use]
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same error with more about it.
    #[must_use]
    pub fn details(mut self, details: impl Display) -> Self {
        self.details = details.to_string();
        self
    }

    /// 1: the version of the configuration is not spoken, or lacks the command.
    #[must_use]
    pub fn version(msg: impl Into<String>) -> Self {
        Self::new(1, msg)
    }

    /// 2: a field of the configuration is not supported.
    #[must_use]
    pub fn unsupported_field(msg: impl Into<String>) -> Self {
        Self::new(2, msg)
    }

    /// 3: the container is unknown.
    #[must_use]
    pub fn unknown_container(msg: impl Into<String>) -> Self {
        Self::new(3, msg)
    }

    /// 4: an environment variable is missing or wrong.
    #[must_use]
    pub fn environment(msg: impl Into<String>) -> Self {
        Self::new(4, msg)
    }

    /// 5: input or output failed.
    #[must_use]
    pub fn io(msg: impl Into<String>) -> Self {
        Self::new(5, msg)
    }

    /// 6: the configuration or a result cannot be decoded.
    #[must_use]
    pub fn decode(msg: impl Into<String>) -> Self {
        Self::new(6, msg)
    }

    /// 7: the configuration is wrong.
    #[must_use]
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(7, msg)
    }

    /// 8: the network namespace is wrong.
    #[must_use]
    pub fn netns(msg: impl Into<String>) -> Self {
        Self::new(8, msg)
    }

    /// 11: something is not ready; the runtime should try again.
    #[must_use]
    pub fn try_again(msg: impl Into<String>) -> Self {
        Self::new(CODE_TRY_AGAIN, msg)
    }

    /// 50: no ADD can be served now.
    #[must_use]
    pub fn not_available(msg: impl Into<String>) -> Self {
        Self::new(CODE_NOT_AVAILABLE, msg)
    }

    /// 999: anything else.
    #[must_use]
    pub fn other(msg: impl Into<String>) -> Self {
        Self::new(CODE_OTHER, msg)
    }
}
