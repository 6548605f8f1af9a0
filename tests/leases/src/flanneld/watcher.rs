//! How flanneld makes events for its backend of what it reads: `leaseWatcher`.

use std::collections::BTreeMap;

use super::registry::{FlannelLease, Subnets};

/// What the backend is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a lease under this name, with this value.
    Added(String, String),
    /// There is none under this name any more.
    Removed(String),
}

/// What a backend has been told and makes of it: the peers that it has a way to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// By name, the value.
    pub reached: BTreeMap<String, String>,
    /// Everything that it was told.
    pub events: Vec<Event>,
}

/// The leases that flanneld knows, but its own.
pub(super) struct LeaseWatcher {
    own: Subnets,
    leases: Vec<FlannelLease>,
}

// === impl Peers ===

impl Peers {
    pub(super) fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            match &event {
                Event::Added(name, value) => self.reached.insert(name.clone(), value.clone()),
                Event::Removed(name) => self.reached.remove(name),
            };
            self.events.push(event);
        }
    }
}

// === impl LeaseWatcher ===

impl LeaseWatcher {
    pub(super) const fn new(own: Subnets) -> Self {
        Self {
            own,
            leases: Vec::new(),
        }
    }

    /// A snapshot is compared by subnets alone: a lease with another value is not new.
    pub(super) fn reset(&mut self, leases: Vec<FlannelLease>) -> Vec<Event> {
        let mut before = std::mem::take(&mut self.leases);
        let mut events = Vec::new();
        for lease in leases.iter().filter(|lease| lease.subnets != self.own) {
            match before.iter().position(|one| one.subnets == lease.subnets) {
                Some(at) => drop(before.remove(at)),
                None => events.push(Event::Added(lease.subnets.key(), lease.value.clone())),
            }
        }
        let gone = before.iter().filter(|lease| lease.subnets != self.own);
        events.extend(gone.map(|lease| Event::Removed(lease.subnets.key())));
        self.leases = leases;
        events
    }

    pub(super) fn add(&mut self, lease: FlannelLease) -> Vec<Event> {
        if lease.subnets == self.own {
            return Vec::new();
        }
        let event = Event::Added(lease.subnets.key(), lease.value.clone());
        self.leases.retain(|one| one.subnets != lease.subnets);
        self.leases.push(lease);
        vec![event]
    }

    pub(super) fn remove(&mut self, subnets: &Subnets) -> Vec<Event> {
        if *subnets == self.own {
            return Vec::new();
        }
        self.leases.retain(|one| one.subnets != *subnets);
        vec![Event::Removed(subnets.key())]
    }
}
