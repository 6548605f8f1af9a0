//! The flow tables: dump and removal of flows that have ended.

use std::collections::BTreeMap;

use ebpf_shared::{
    V4,
    conntrack::{CT_SERVICE, CT_TRANSLATED, CtKey, CtValue, Timeouts},
    policy::{PodKey, PodValue},
};

use crate::{Error, MapTarget};

/// `towline_ct_new_v4` and `towline_ct_est_v4`, and whose flows they are.
#[derive(Clone, Debug)]
pub struct Conntrack {
    pub(crate) new4: MapTarget<CtKey<V4>, CtValue<V4>>,
    pub(crate) established4: MapTarget<CtKey<V4>, CtValue<V4>>,
    pub(crate) pods: MapTarget<PodKey, PodValue>,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which flow.
    pub key: CtKey<V4>,
    /// Its state.
    pub value: CtValue<V4>,
    /// It is in the table that is never evicted from.
    pub established: bool,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Entries seen.
    pub seen: usize,
    /// Entries removed.
    pub removed: usize,
}

impl Conntrack {
    /// All entries, by key.
    ///
    /// # Errors
    /// When a map cannot be listed.
    pub fn flows(&self) -> Result<Vec<Flow>, Error> {
        let mut flows = BTreeMap::new();
        for (map, established) in [(&self.new4, false), (&self.established4, true)] {
            map.for_each(|key, value| {
                flows.insert(
                    key,
                    Flow {
                        key,
                        value,
                        established,
                    },
                );
            })?;
        }
        Ok(flows.into_values().collect())
    }

    /// Removes what has been idle for too long at `now_ns` (see [`crate::monotonic_ns`]), and what
    /// belongs to a pod that is gone.
    ///
    /// The two entries of a service flow live as long as the younger one. An entry that was used
    /// between listing and removal stays.
    ///
    /// # Errors
    /// When a map cannot be listed or written.
    pub fn sweep(&self, timeouts: &Timeouts, now_ns: u64) -> Result<Sweep, Error> {
        let flows = self.flows()?;
        // Listed after the flows: a flow that was listed had its pod in the table before.
        let mut pods = BTreeMap::new();
        self.pods.for_each(|key, value| {
            pods.insert(key.ifindex, value.addr4);
        })?;
        let last: BTreeMap<_, _> = flows.iter().map(|f| (f.key, f.value.last_ns)).collect();
        let mut sweep = Sweep {
            seen: flows.len(),
            removed: 0,
        };
        for flow in flows {
            let partner = partner(&flow.key, &flow.value)
                .and_then(|key| last.get(&key))
                .copied();
            let used = flow.value.last_ns.max(partner.unwrap_or(0));
            let gone = pods.get(&flow.key.zone) != Some(&flow.key.pod);
            let expired = timeouts.expired(flow.key.proto, flow.value.flags, used, now_ns);
            if (gone || expired) && self.remove(&flow)? {
                sweep.removed += 1;
            }
        }
        Ok(sweep)
    }

    /// Forgets every flow of a pod's device.
    ///
    /// # Errors
    /// When a map cannot be listed or written.
    pub fn forget(&self, ifindex: u32) -> Result<usize, Error> {
        let flows: Vec<_> = self
            .flows()?
            .into_iter()
            .filter(|flow| flow.key.zone == ifindex)
            .collect();
        for flow in &flows {
            self.new4.remove(&flow.key)?;
            self.established4.remove(&flow.key)?;
        }
        Ok(flows.len())
    }

    fn remove(&self, flow: &Flow) -> Result<bool, Error> {
        let map = if flow.established {
            &self.established4
        } else {
            &self.new4
        };
        match map.get(&flow.key)? {
            Some(value) if value.last_ns == flow.value.last_ns => {
                map.remove(&flow.key)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Key of the other entry of a service flow.
fn partner(key: &CtKey<V4>, value: &CtValue<V4>) -> Option<CtKey<V4>> {
    matches!(value.kind, CT_SERVICE | CT_TRANSLATED).then_some(CtKey {
        remote: value.nat_addr,
        remote_port: value.nat_port,
        ..*key
    })
}
