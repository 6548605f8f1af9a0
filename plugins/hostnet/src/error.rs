//! What the kernel refused, said by operation and object.

use std::io;

use nix::errno::Errno;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed, the object it was about, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {object}: {reason}")]
pub struct Error {
    /// Such as `add route`.
    pub operation: &'static str,
    /// Such as `10.244.1.0/24`.
    pub object: String,
    /// What to decide by.
    pub kind: ErrorKind,
    /// The kernel's error, with its extended explanation where it gave one.
    pub reason: String,
}

/// Why an operation failed, as far as a caller decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is there already.
    Exists,
    /// It, or something it needs, is not there.
    NotFound,
    /// It is in use.
    Busy,
    /// The caller lacks the privilege.
    Denied,
    /// This kernel cannot do it.
    Unsupported,
    /// The request itself is wrong.
    Invalid,
    /// Anything else.
    Other,
}

// === impl Error ===

#[allow(
    clippy::needless_pass_by_value,
    reason = "what is passed is formatted, whatever it is"
)]
impl Error {
    pub(crate) fn errno(operation: &'static str, object: impl ToString, errno: Errno) -> Self {
        let (object, kind) = (object.to_string(), kind_of(errno));
        Self {
            operation,
            object,
            kind,
            reason: errno.desc().to_owned(),
        }
    }

    pub(crate) fn io(operation: &'static str, object: impl ToString, error: &io::Error) -> Self {
        let kind = error
            .raw_os_error()
            .map_or(ErrorKind::Other, |e| kind_of(Errno::from_raw(e)));
        Self {
            operation,
            object: object.to_string(),
            kind,
            reason: error.to_string(),
        }
    }

    pub(crate) fn not_found(operation: &'static str, object: impl ToString) -> Self {
        let (object, kind) = (object.to_string(), ErrorKind::NotFound);
        Self {
            operation,
            object,
            kind,
            reason: "does not exist".to_owned(),
        }
    }

    pub(crate) fn invalid(
        operation: &'static str,
        object: impl ToString,
        reason: impl ToString,
    ) -> Self {
        let (object, kind) = (object.to_string(), ErrorKind::Invalid);
        Self {
            operation,
            object,
            kind,
            reason: reason.to_string(),
        }
    }

    /// Whether the thing was there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.kind == ErrorKind::Exists
    }

    /// Whether the thing, or something it needs, was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::EEXIST => ErrorKind::Exists,
        Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO => {
            ErrorKind::NotFound
        }
        Errno::EBUSY => ErrorKind::Busy,
        Errno::EPERM | Errno::EACCES => ErrorKind::Denied,
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => ErrorKind::Unsupported,
        Errno::EINVAL | Errno::ERANGE => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}

/// Turns "it was not there" into success, for deletions.
pub(crate) fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
