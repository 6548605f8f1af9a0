//! What belongs to the node as a whole: the socket programs and the data path's configuration.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ebpf_shared::hook::CGROUP_PROGRAMS;
use ebpf_shared::maps::Config;
use loader::{Datapath, Error, Maps};
use netstate::Target;

use crate::reconcile::services::SOCKET_PROGRAMS;

/// The programs at the cgroup that balance connections when they are opened: one entry that
/// stands for all of them, because one alone makes no sense.
///
/// It is there if all are at this cgroup and run what this daemon loaded; so the first pass after
/// an upgrade replaces the programs, each without a gap.
pub struct SocketTarget {
    datapath: Arc<Mutex<Datapath>>,
    bpf_root: PathBuf,
    cgroup: PathBuf,
}

/// The one entry of `towline_config`.
pub struct ConfigTarget {
    maps: Maps,
}

// === impl SocketTarget ===

impl SocketTarget {
    /// The programs of `datapath` at `cgroup`, their links pinned under `bpf_root`.
    #[must_use]
    pub fn new(datapath: Arc<Mutex<Datapath>>, bpf_root: PathBuf, cgroup: PathBuf) -> Self {
        Self {
            datapath,
            bpf_root,
            cgroup,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Datapath> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for SocketTarget {
    type Key = &'static str;
    type Value = ();
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<&'static str, ()>, Error> {
        let failed = |source| Error::Io {
            operation: "opening cgroup",
            path: self.cgroup.clone(),
            source,
        };
        let cgroup = std::fs::metadata(&self.cgroup).map_err(failed)?.ino();
        let datapath = self.lock();
        let mut found = 0;
        for link in loader::cgroup_attachments(&self.bpf_root)? {
            let ours = link.cgroup == cgroup && link.id == datapath.program_id(&link.program)?;
            found += usize::from(ours);
        }
        let complete = found == CGROUP_PROGRAMS.len();
        Ok(complete
            .then_some((SOCKET_PROGRAMS, ()))
            .into_iter()
            .collect())
    }

    fn put(&mut self, _: &&'static str, (): &()) -> Result<(), Error> {
        self.lock().attach_cgroup(&self.cgroup)
    }

    fn delete(&mut self, _: &&'static str) -> Result<(), Error> {
        loader::detach_cgroup(&self.bpf_root)
    }
}

// === impl ConfigTarget ===

impl ConfigTarget {
    /// The entry in `maps`.
    #[must_use]
    pub fn new(maps: Maps) -> Self {
        Self { maps }
    }
}

impl Target for ConfigTarget {
    type Key = u32;
    type Value = Config;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<u32, Config>, Error> {
        Ok(BTreeMap::from([(0, self.maps.config()?)]))
    }

    fn put(&mut self, _: &u32, config: &Config) -> Result<(), Error> {
        self.maps.set_config(config)
    }

    fn delete(&mut self, _: &u32) -> Result<(), Error> {
        self.maps.set_config(&Config::default())
    }
}
