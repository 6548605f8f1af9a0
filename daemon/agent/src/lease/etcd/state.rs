//! What outlives a connection: the leases as they were last known, and this node's own.

use std::time::Duration;

use desired::lease::acquire::overlap;
use desired::lease::{Attributes, LeaseKey};
use desired::stable_id::ContentHash;
use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::hold::Own;
use super::table::{Pair, Table};
use super::{EtcdLeases, jittered};

/// First and longest wait after another node was faster.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How many values are remembered.
const WRITTEN: usize = 16;

/// What is known.
pub(super) struct State {
    pub(super) table: Table,
    /// The revision of the last list or event.
    pub(super) revision: i64,
    pub(super) own: Option<Own>,
    /// What this run has written, the last of it: an older one of these is this node's too, as it
    /// is after a restore.
    pub(super) written: Vec<Attributes>,
    /// An etcd lease that was granted and that no lease hangs on.
    pub(super) granted: Option<i64>,
    /// Subnets that were held before etcd forgot about them: their nodes may still live.
    pub(super) forgotten: Vec<IpNetwork>,
    /// No attempt before this.
    pub(super) retry: Option<Instant>,
    node: String,
    /// How often a subnet was chosen, and how often in a row another node was faster.
    choices: u64,
    lost_races: u64,
}

// === impl State ===

impl State {
    pub(super) fn new(leases: &EtcdLeases) -> Self {
        Self {
            table: Table::new(leases.settings.leases_prefix()),
            revision: 0,
            own: None,
            written: Vec::new(),
            granted: None,
            forgotten: Vec::new(),
            retry: None,
            node: leases.node.clone(),
            choices: 0,
            lost_races: 0,
        }
    }

    /// These are all leases there are at `revision`; whether that is older than what was known,
    /// because etcd was wiped or restored from a backup.
    pub(super) fn list<'a>(
        &mut self,
        revision: i64,
        pairs: impl Iterator<Item = Pair<'a>>,
    ) -> bool {
        let is_older = revision < self.revision;
        if is_older {
            self.forgotten.extend(self.table.subnets());
        }
        self.table.reset(pairs);
        self.revision = revision;
        // Whoever is back needs no more care.
        let taken = self.table.subnets();
        self.forgotten
            .retain(|one| !taken.iter().any(|other| overlap(*one, *other)));
        self.forgotten.sort_unstable();
        self.forgotten.dedup();
        is_older
    }

    /// Picks one of `many` free subnets, another one each time and on each node.
    pub(super) fn choose(&mut self, many: usize) -> usize {
        self.choices += 1;
        let hash = ContentHash::new("subnet-choice")
            .part(self.node.as_bytes())
            .number(self.choices)
            .finish();
        usize::try_from(hash).unwrap_or(usize::MAX) % many.max(1)
    }

    /// Another node was faster: it is looked again after a while, when the watch has told of it.
    pub(super) fn lost_race(&mut self) {
        self.retry = Some(Instant::now() + jittered(&self.node, self.lost_races, RETRY));
        self.lost_races += 1;
    }

    /// This is the node's lease now.
    pub(super) fn hold(&mut self, own: Own) {
        if !self.written.contains(&own.attributes) {
            self.written.truncate(WRITTEN - 1);
            self.written.insert(0, own.attributes.clone());
        }
        self.own = Some(own);
        self.retry = None;
        self.lost_races = 0;
    }

    /// The node has no lease any more.
    pub(super) fn lose(&mut self) -> Option<LeaseKey> {
        self.own.take().map(|own| own.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_etcd_has_forgotten_are_remembered_until_somebody_has_them() {
        let mut state = State {
            table: Table::new("/p/subnets/".to_owned()),
            revision: 0,
            own: None,
            written: Vec::new(),
            granted: None,
            forgotten: Vec::new(),
            retry: None,
            node: "n1".to_owned(),
            choices: 0,
            lost_races: 0,
        };
        let pair = |key: &'static str| Pair {
            key: key.as_bytes(),
            value: b"{}",
            created: 1,
            modified: 1,
            etcd_lease: 0,
        };
        let (one, two) = ("/p/subnets/10.5.1.0-24", "/p/subnets/10.5.2.0-24");
        assert!(!state.list(9, [pair(one), pair(two)].into_iter()));
        // A lease that is gone at a later revision is free.
        assert!(!state.list(12, [pair(one), pair(two)].into_iter()));
        assert!(state.forgotten.is_empty());
        assert!(state.list(2, std::iter::empty()));
        assert_eq!(state.forgotten.len(), 2);
        assert!(!state.list(3, [pair(two)].into_iter()));
        assert_eq!(state.forgotten, ["10.5.1.0/24".parse().unwrap()]);
    }
}
