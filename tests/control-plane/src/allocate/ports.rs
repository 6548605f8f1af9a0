//! The pool of node ports.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rand::Rng;

/// The range of node ports.
const RANGE: RangeInclusive<u16> = 30_000..=32_767;

/// Ports kept, as long as there are others, for Services that name their port.
const STATIC: u16 = 86;

#[derive(Debug, Default)]
pub(super) struct PortPool {
    taken: BTreeSet<u16>,
}

impl PortPool {
    /// Takes a free port.
    pub(super) fn allocate(&mut self) -> Option<u16> {
        let (first, last) = (*RANGE.start(), *RANGE.end());
        let upper = first + STATIC..=last;
        let start = rand::rng().random_range(upper.clone());
        let port = (start..=last)
            .chain(first + STATIC..start)
            .chain(first..first + STATIC)
            .find(|port| !self.taken.contains(port))?;
        self.taken.insert(port);
        Some(port)
    }

    /// Takes this port.
    pub(super) fn reserve(&mut self, port: u16) -> Result<(), String> {
        if !RANGE.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                RANGE.start(),
                RANGE.end()
            ));
        }
        if !self.taken.insert(port) {
            return Err("provided port is already allocated".into());
        }
        Ok(())
    }

    /// Takes note of a port in use.
    pub(super) fn adopt(&mut self, port: u16) {
        self.taken.insert(port);
    }

    pub(super) fn free(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}
