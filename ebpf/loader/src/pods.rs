//! The pods of this node: one target over the pod map and its address index.

use std::collections::BTreeMap;

use ebpf_shared::{
    V4, V6,
    policy::{LocalKey, LocalValue, PodKey, PodValue},
};
use netstate::target::Target;

use crate::{Error, MapTarget};

/// `towline_pod` together with `towline_local_v4`/`_v6`, which lead from a pod's address to its device.
///
/// A pod whose address does not lead to it is observed as absent, so that the next put mends it.
#[derive(Clone, Debug)]
pub struct PodTarget {
    pub(crate) pods: MapTarget<PodKey, PodValue>,
    pub(crate) local4: MapTarget<LocalKey<V4>, LocalValue>,
    pub(crate) local6: MapTarget<LocalKey<V6>, LocalValue>,
}

impl PodTarget {
    /// The pod behind a device.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn get(&self, key: &PodKey) -> Result<Option<PodValue>, Error> {
        self.pods.get(key)
    }

    fn indexed(&self, key: &PodKey, value: &PodValue) -> Result<bool, Error> {
        let here = Some(LocalValue {
            ifindex: key.ifindex,
        });
        let four = value.addr4 == V4::default()
            || self.local4.get(&LocalKey { addr: value.addr4 })? == here;
        let six = value.addr6 == V6::default()
            || self.local6.get(&LocalKey { addr: value.addr6 })? == here;
        Ok(four && six)
    }

    /// Removes the index entries of `value`, unless they already lead to another device.
    fn unindex(&self, key: &PodKey, value: &PodValue) -> Result<(), Error> {
        let here = Some(LocalValue {
            ifindex: key.ifindex,
        });
        let (four, six) = (
            LocalKey { addr: value.addr4 },
            LocalKey { addr: value.addr6 },
        );
        if self.local4.get(&four)? == here {
            self.local4.remove(&four)?;
        }
        if self.local6.get(&six)? == here {
            self.local6.remove(&six)?;
        }
        Ok(())
    }
}

impl Target for PodTarget {
    type Key = PodKey;
    type Value = PodValue;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<PodKey, PodValue>, Error> {
        let mut table = self.pods.observe()?;
        let mut broken = Vec::new();
        for (key, value) in &table {
            if !self.indexed(key, value)? {
                broken.push(*key);
            }
        }
        for key in broken {
            table.remove(&key);
        }
        Ok(table)
    }

    fn put(&mut self, key: &PodKey, value: &PodValue) -> Result<(), Error> {
        if let Some(old) = self.pods.get(key)?
            && (old.addr4, old.addr6) != (value.addr4, value.addr6)
        {
            self.unindex(key, &old)?;
        }
        self.pods.set(key, value)?;
        let here = LocalValue {
            ifindex: key.ifindex,
        };
        if value.addr4 != V4::default() {
            self.local4.set(&LocalKey { addr: value.addr4 }, &here)?;
        }
        if value.addr6 != V6::default() {
            self.local6.set(&LocalKey { addr: value.addr6 }, &here)?;
        }
        Ok(())
    }

    fn delete(&mut self, key: &PodKey) -> Result<(), Error> {
        if let Some(old) = self.pods.get(key)? {
            self.unindex(key, &old)?;
        }
        self.pods.remove(key)
    }
}
