//! Packet counters by direction and reason, summed over CPUs.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use ebpf_shared::{
    event::Counter,
    maps::name,
    policy::{EGRESS, INGRESS},
    reason::{Reason, counter_index},
};

use crate::Error;

/// Reader of `towline_counters`.
pub struct Counters {
    map: PerCpuArray<MapData, Counter>,
}

/// What was counted for one reason in one direction since the map was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Why.
    pub reason: Reason,
    /// [`INGRESS`] = to pods, [`EGRESS`] = from pods.
    pub direction: u8,
    /// Packets and bytes.
    pub total: Counter,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Map {
            name: name::COUNTERS.to_owned(),
            source,
        };
        let data = MapData::from_pin(path).map_err(failed)?;
        let map = Map::from_map_data(data)
            .and_then(PerCpuArray::try_from)
            .map_err(failed)?;
        Ok(Self { map })
    }

    /// One counter.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn get(&self, reason: Reason, direction: u8) -> Result<Counter, Error> {
        let failed = |source| Error::Map {
            name: name::COUNTERS.to_owned(),
            source,
        };
        let values = self
            .map
            .get(&counter_index(reason, direction), 0)
            .map_err(failed)?;
        Ok(values
            .iter()
            .fold(Counter::default(), |sum, value| Counter {
                packets: sum.packets.wrapping_add(value.packets),
                bytes: sum.bytes.wrapping_add(value.bytes),
            }))
    }

    /// All counters, including those at zero: by direction, then by code.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn all(&self) -> Result<Vec<Count>, Error> {
        let mut counts = Vec::new();
        for direction in [INGRESS, EGRESS] {
            for reason in Reason::ALL {
                let total = self.get(*reason, direction)?;
                counts.push(Count {
                    reason: *reason,
                    direction,
                    total,
                });
            }
        }
        Ok(counts)
    }
}
