//! Chains of one owner each, which a rule in a shared chain jumps to.

use netstate::IfName;
use netstate::nft::{ChainRef, Owner, TableFamily};

use crate::error::Result;
use crate::nft::{Nftables, message, shared};
use crate::wire::message::{Message, attrs, find, read_text};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;
const COMPARE: &str = "cmp";
const COMPARE_DATA: u16 = 3;

// === impl Nftables: chains ===

impl Nftables {
    /// How many rules a chain holds; `None` when it is not there. Rules that jump to it count too.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn rule_count(&mut self, chain: &ChainRef) -> Result<Option<u32>> {
        let found = match self
            .wire
            .query(named(nf::GETCHAIN, chain), ("find chain", &chain.chain))
        {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let count = found.and_then(|reply| {
            let value = find(reply.body.get(NFGEN..)?, nf::CHAIN_USE)?;
            Some(u32::from_be_bytes(value.try_into().ok()?))
        });
        Ok(count)
    }

    /// The owners of the rules of a chain, each with the first interface name that its rule
    /// compares with.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn rules_by_device(&mut self, chain: &ChainRef) -> Result<Vec<(Owner, Option<IfName>)>> {
        let mut request = message(chain.family, nf::GETRULE, 0);
        request
            .text(nf::RULE_TABLE, &chain.table)
            .text(nf::RULE_CHAIN, &chain.chain);
        let found = match self.wire.dump(&request, ("list rules of", &chain.chain)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let rules = found.iter().filter_map(|reply| {
            let rule = shared::owned(reply, chain.family).filter(|rule| rule.chain == *chain)?;
            let list = find(reply.body.get(NFGEN..)?, nf::RULE_EXPRESSIONS)?;
            let device = attrs(list).find_map(|(_, expression)| compared_name(expression));
            Some((rule.owner, device))
        });
        Ok(rules.collect())
    }

    /// Removes the rules of `entry` whose owner `is_stale` says so, and then those of `chains` that
    /// are there, with all they hold, in one transaction.
    ///
    /// # Errors
    /// When the kernel refuses. Nothing has changed then.
    pub fn remove_chains(
        &mut self,
        entry: &ChainRef,
        is_stale: &dyn Fn(&Owner) -> bool,
        chains: &[String],
    ) -> Result<()> {
        loop {
            let rules = self.owned_rules(std::slice::from_ref(entry))?;
            let stale = rules.iter().filter(|rule| is_stale(&rule.owner));
            let mut messages: Vec<Message> = stale.map(shared::delete).collect();
            for (first, kind) in [(true, nf::DELRULE), (false, nf::DELCHAIN)] {
                for chain in chains {
                    let chain = ChainRef::of(entry.family, &entry.table, chain);
                    if self.rule_count(&chain)?.is_none() {
                        continue;
                    }
                    messages.push(if first {
                        flush(kind, &chain)
                    } else {
                        named(kind, &chain)
                    });
                }
            }
            if messages.is_empty() {
                return Ok(());
            }
            match self.batch(messages, ("remove chains of table", &entry.table)) {
                // Somebody else removed one since, so that nothing was done here: what is left?
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
    }

    /// The chains of a table; one that is not there has none.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn chains(&mut self, family: TableFamily, table: &str) -> Result<Vec<String>> {
        let request = message(family, nf::GETCHAIN, 0);
        let found = match self.wire.dump(&request, ("list chains of", &table)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let names = found.iter().filter_map(|reply| {
            let attributes = reply.body.get(NFGEN..)?;
            let own = read_text(find(attributes, nf::CHAIN_TABLE)?) == table;
            own.then(|| find(attributes, nf::CHAIN_NAME).map(read_text))?
        });
        Ok(names.collect())
    }
}

fn named(kind: u16, chain: &ChainRef) -> Message {
    let mut message = message(chain.family, kind, 0);
    message
        .text(nf::CHAIN_TABLE, &chain.table)
        .text(nf::CHAIN_NAME, &chain.chain);
    message
}

/// The deletion of all rules of a chain.
fn flush(kind: u16, chain: &ChainRef) -> Message {
    let mut message = message(chain.family, kind, 0);
    message
        .text(nf::RULE_TABLE, &chain.table)
        .text(nf::RULE_CHAIN, &chain.chain);
    message
}

/// The interface name that an expression compares with, if it does such a thing.
fn compared_name(expression: &[u8]) -> Option<IfName> {
    let kind = find(expression, nf::EXPR_NAME).map(read_text)?;
    if kind != COMPARE {
        return None;
    }
    let data = find(find(expression, nf::EXPR_DATA)?, COMPARE_DATA)?;
    read_text(find(data, nf::DATA_VALUE)?).parse().ok()
}
