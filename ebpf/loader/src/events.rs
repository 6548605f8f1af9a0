//! The event ring: drops and verdicts, decoded.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
};

use aya::maps::{Map, MapData, RingBuf};
use ebpf_shared::{event::Event, maps::name};

use crate::{Error, map_target::decode};

/// Reader of `towline_events`.
///
/// Its descriptor becomes readable when there are events ([`AsFd`], [`AsRawFd`]): wrap it in an
/// `AsyncFd` or poll it, then call [`Events::next`] until it returns `None`.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Map {
            name: name::EVENTS.to_owned(),
            source,
        };
        let data = MapData::from_pin(path).map_err(failed)?;
        let ring = Map::from_map_data(data)
            .and_then(RingBuf::try_from)
            .map_err(failed)?;
        Ok(Self { ring })
    }

    /// The next event, without waiting.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end for good at None"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = decode(&item) {
                return Some(event);
            }
        }
    }

    /// All events that are there now.
    pub fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
