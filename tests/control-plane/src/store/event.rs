//! Changes as watchers see them.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::Stored;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It appeared.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

impl EventKind {
    /// The word used in a watch stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// The line of a watch stream that reports `object`, with its newline.
    pub fn line(self, object: &[u8]) -> Bytes {
        let word = self.as_str();
        let mut line = BytesMut::with_capacity(object.len() + word.len() + 24);
        line.put_slice(b"{\"type\":\"");
        line.put_slice(word.as_bytes());
        line.put_slice(b"\",\"object\":");
        line.put_slice(object);
        line.put_slice(b"}\n");
        line.freeze()
    }
}

/// One committed change.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for a deletion its last version, carrying the deletion's revision.
    pub object: Arc<Stored>,
    /// The object before the change.
    pub previous: Option<Arc<Stored>>,
    at: Instant,
    line: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(kind: EventKind, object: Arc<Stored>, previous: Option<Arc<Stored>>) -> Self {
        Self {
            kind,
            object,
            previous,
            at: Instant::now(),
            line: OnceLock::new(),
        }
    }

    /// Revision of the change.
    pub fn revision(&self) -> u64 {
        self.object.revision
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// The line of an unfiltered JSON watch; made once, shared by all watchers.
    pub fn line(&self) -> Bytes {
        self.line
            .get_or_init(|| self.kind.line(&self.object.body))
            .clone()
    }
}
