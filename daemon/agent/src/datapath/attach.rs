//! Programs on pods' devices as a Target.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ebpf_shared::hook::{FROM_POD, TO_POD};
use loader::{Datapath, Error};
use netstate::{IfName, Target};

/// The devices this daemon has attached its programs to, by kernel index.
///
/// A restarted daemon knows of none at first and so attaches anew, which replaces the programs of
/// its predecessor without a gap. Programs are never detached: a device that nobody registers has
/// programs and no pod entry, and so stays closed until it is deleted.
pub struct AttachTarget {
    datapath: Arc<Mutex<Datapath>>,
    attached: BTreeMap<u32, IfName>,
}

// === impl AttachTarget ===

impl AttachTarget {
    /// Attaches the programs of `datapath`.
    #[must_use]
    pub fn new(datapath: Arc<Mutex<Datapath>>) -> Self {
        Self {
            datapath,
            attached: BTreeMap::new(),
        }
    }
}

impl Target for AttachTarget {
    type Key = u32;
    type Value = IfName;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<u32, IfName>, Error> {
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        let from_pod = Some(datapath.program_id(FROM_POD)?);
        let to_pod = Some(datapath.program_id(TO_POD)?);
        let mut found = BTreeMap::new();
        for device in loader::pod_attachments()? {
            let current = device.from_pod == from_pod && device.to_pod == to_pod;
            if let Some(name) = self.attached.get(&device.ifindex).filter(|_| current) {
                found.insert(device.ifindex, name.clone());
            }
        }
        Ok(found)
    }

    fn put(&mut self, ifindex: &u32, device: &IfName) -> Result<(), Error> {
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        let attached = datapath.attach_pod(device)?;
        if attached == *ifindex {
            self.attached.insert(attached, device.clone());
        }
        Ok(())
    }

    fn delete(&mut self, ifindex: &u32) -> Result<(), Error> {
        self.attached.remove(ifindex);
        Ok(())
    }
}
