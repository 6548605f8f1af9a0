//! Whole nftables tables as a Target.

use std::collections::BTreeMap;

use netstate::Target;
use netstate::nft::Table;

use crate::error::{Error, Result};
use crate::nft::Nftables;

/// One table of family `inet` of ours, keyed by its name.
///
/// Rules are not decoded. What was written is remembered with a digest of what the kernel then
/// showed; a table that shows anything else is observed as empty, so that the next pass replaces it
/// if it is wanted and deletes it if not. After a restart nothing is remembered, and the first pass
/// replaces the table, which costs a transaction and loses nothing but counters.
#[derive(Debug)]
pub struct NftTarget {
    nftables: Nftables,
    name: String,
    written: Option<(Table, u64)>,
}

// === impl NftTarget ===

impl NftTarget {
    /// Works on table `name` in `nftables`' namespace.
    #[must_use]
    pub fn new(nftables: Nftables, name: impl Into<String>) -> Self {
        Self {
            nftables,
            name: name.into(),
            written: None,
        }
    }

    fn check(&self, operation: &'static str, name: &str) -> Result<()> {
        if name == self.name {
            Ok(())
        } else {
            let reason = format!("is not ours; this target owns {}", self.name);
            Err(Error::invalid(operation, name, reason))
        }
    }
}

impl Target for NftTarget {
    type Key = String;
    type Value = Table;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<String, Table>> {
        let Some(digest) = self.nftables.fingerprint(&self.name)? else {
            return Ok(BTreeMap::new());
        };
        let table = match &self.written {
            Some((table, written)) if *written == digest => table.clone(),
            _ => Table::new(self.name.clone()),
        };
        Ok(BTreeMap::from([(self.name.clone(), table)]))
    }

    fn put(&mut self, key: &String, value: &Table) -> Result<()> {
        self.check("replace nftables table", key)?;
        self.check("replace nftables table", &value.name)?;
        self.nftables.replace(value)?;
        let digest = self.nftables.fingerprint(key)?;
        self.written = digest.map(|digest| (value.clone(), digest));
        Ok(())
    }

    fn delete(&mut self, key: &String) -> Result<()> {
        self.check("delete nftables table", key)?;
        self.written = None;
        self.nftables.delete(key)
    }
}
