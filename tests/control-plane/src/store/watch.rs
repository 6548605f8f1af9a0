//! Following a resource.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, Shared, read, write};

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History does not reach back to the revision asked for.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// Revision asked for.
        asked: u64,
        /// Oldest revision that can be asked for.
        oldest: u64,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A place in the history of one resource. It pulls: a slow reader costs no memory and, when it
/// falls behind the kept history, learns so.
#[derive(Debug)]
pub struct Watch {
    state: Arc<Shared>,
    resource: Arc<str>,
    cursor: u64,
    changed: watch::Receiver<u64>,
}

impl Watch {
    pub(crate) fn start(
        state: &Arc<Shared>,
        resource: &Arc<str>,
        revision: u64,
    ) -> Result<Self, WatchError> {
        let changed = write(state).subscribe(resource);
        read(state).events(resource, revision)?;
        Ok(Self {
            state: state.clone(),
            resource: resource.clone(),
            cursor: revision,
            changed,
        })
    }

    /// The events not yet seen, waiting until there is at least one.
    ///
    /// # Errors
    /// When the reader fell behind the kept history, or the store was closed.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            self.changed.mark_unchanged();
            let events = self.drain()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if read(&self.state).closed {
                return Err(WatchError::Closed);
            }
            self.changed
                .changed()
                .await
                .map_err(|_| WatchError::Closed)?;
        }
    }

    /// The events not yet seen, without waiting. Afterwards [`Watch::revision`] is the store's.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn drain(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        let state = read(&self.state);
        let events = state.events(&self.resource, self.cursor)?;
        self.cursor = self.cursor.max(state.revision);
        Ok(events)
    }

    /// Revision up to which everything was handed out: fit for a bookmark.
    pub fn revision(&self) -> u64 {
        self.cursor
    }
}
