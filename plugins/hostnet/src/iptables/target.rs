//! Chains of ours in iptables as a Target.

use std::collections::{BTreeMap, BTreeSet};

use netstate::Target;
use netstate::iptables::Owned;
use netstate::nft::Family;

use crate::error::Result;

/// The chains of ours in one table (such as `nat`) of one family, keyed by the table's name.
///
/// As long as the kernel says that there are no such chains, no program is run.
#[derive(Debug)]
pub struct IptablesTarget {
    family: Family,
    table: &'static str,
    chains: BTreeSet<String>,
}

// === impl IptablesTarget ===

impl IptablesTarget {
    /// Works on the chains called `chains`, and on the jumps to them, in the network namespace of
    /// the calling thread.
    #[must_use]
    pub fn new(family: Family, table: &'static str, chains: &[&str]) -> Self {
        let chains = chains.iter().map(|chain| (*chain).to_owned()).collect();
        Self {
            family,
            table,
            chains,
        }
    }

    fn change(&self, wanted: &Owned) -> Result<()> {
        super::update(self.family, self.table, &|saved| {
            wanted.changes(self.table, saved, &self.chains)
        })
    }
}

impl Target for IptablesTarget {
    type Key = String;
    type Value = Owned;
    type Error = crate::error::Error;

    fn observe(&mut self) -> Result<BTreeMap<String, Owned>> {
        let mut possible = false;
        for chain in &self.chains {
            possible |= super::may_have_chain(self.family, self.table, chain)?;
        }
        if !possible {
            return Ok(BTreeMap::new());
        }
        let found = Owned::find(&super::save(self.family, self.table)?, &self.chains);
        let there = !found.is_empty();
        Ok(there
            .then(|| (self.table.to_owned(), found))
            .into_iter()
            .collect())
    }

    fn put(&mut self, _: &String, wanted: &Owned) -> Result<()> {
        self.change(wanted)
    }

    fn delete(&mut self, _: &String) -> Result<()> {
        self.change(&Owned::default())
    }
}
