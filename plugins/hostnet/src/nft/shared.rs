//! Rules of many owners in tables that they share.

pub(crate) mod listed;
pub(crate) mod redirect;

use std::collections::BTreeMap;

use netstate::nft::{ChainRef, Owner, SharedRules, SharedTable, Table, TableFamily};

use crate::error::Result;
use crate::nft::{Nftables, encode, message, named, verify};
use crate::wire::message::{Message, NLM_F_CREATE, Reply};
use crate::wire::nf;
use listed::Listed;

pub use redirect::Redirect;

/// A rule in the kernel that has an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRule {
    /// Where it is.
    pub chain: ChainRef,
    /// Whose it is.
    pub owner: Owner,
    /// What it does, if it sends packets elsewhere.
    pub redirect: Option<Redirect>,
    handle: [u8; 8],
}

// === impl Nftables: shared tables ===

impl Nftables {
    /// Makes the frames if need be and adds the owner's rules, in one transaction. Rules that the
    /// owner has already stay.
    ///
    /// # Errors
    /// When a name does not fit or the kernel refuses. Nothing has changed then.
    pub fn add_rules(&mut self, shared: &SharedRules) -> Result<()> {
        self.replace_rules(shared, &[], &|_| false).map(drop)
    }

    /// Makes the frames if need be, removes the rules in `chains` whose owner `is_stale` says so,
    /// and adds the owner's rules, in one transaction; returns how many were removed.
    ///
    /// # Errors
    /// When a name does not fit or the kernel refuses. Nothing has changed then.
    pub fn replace_rules(
        &mut self,
        shared: &SharedRules,
        chains: &[ChainRef],
        is_stale: &dyn Fn(&Owner) -> bool,
    ) -> Result<usize> {
        self.change(Some(shared), chains, &stale(is_stale))
            .map(|gone| gone.len())
    }

    /// Removes the rules in `chains` whose owner `is_stale` says so, in one transaction; returns
    /// how many. A table or chain that is not there has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_rules(
        &mut self,
        chains: &[ChainRef],
        is_stale: &dyn Fn(&Owner) -> bool,
    ) -> Result<usize> {
        self.change(None, chains, &stale(is_stale))
            .map(|gone| gone.len())
    }

    /// Removes those rules in `chains` that `choose` returns of all that have an owner, in one
    /// transaction; returns them. `choose` is asked again when others change the chains meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_chosen_rules(
        &mut self,
        chains: &[ChainRef],
        choose: &dyn Fn(Vec<OwnedRule>) -> Vec<OwnedRule>,
    ) -> Result<Vec<OwnedRule>> {
        self.change(None, chains, choose)
    }

    /// The owners of the rules of a chain, in the rules' order. A chain that is not there has none.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn rule_owners(&mut self, chain: &ChainRef) -> Result<Vec<Owner>> {
        let rules = self.owned_rules(std::slice::from_ref(chain))?;
        Ok(rules.into_iter().map(|rule| rule.owner).collect())
    }

    /// One transaction of what is added and of the deletion of what is stale. Handles are those of
    /// the rules before it, so its own additions are never hit.
    fn change(
        &mut self,
        adding: Option<&SharedRules>,
        chains: &[ChainRef],
        choose: &dyn Fn(Vec<OwnedRule>) -> Vec<OwnedRule>,
    ) -> Result<Vec<OwnedRule>> {
        let shown = chains.first().map_or("shared", |chain| &*chain.table);
        let mut trust = true;
        loop {
            let stale = choose(self.owned_rules(chains)?);
            let mut messages: Vec<Message> = stale.iter().map(delete).collect();
            if let Some(shared) = adding {
                self.additions(shared, trust, &mut messages)?;
            }
            if messages.is_empty() {
                return Ok(stale);
            }
            match self.batch(messages, ("change nftables rules of", &shown)) {
                // Somebody else removed a rule since, or a chain, so that nothing was done here:
                // what is left?
                Err(error) if error.is_not_found() && (trust || !stale.is_empty()) => trust = false,
                other => return other.map(|()| stale),
            }
        }
    }

    /// The messages that add the owner's rules, each table's after those that make its frame. With
    /// `trust` a frame counts as whole, and is left alone, when its own rules are there: to write it
    /// anew for every container would keep the kernel busy for several milliseconds each time.
    fn additions(
        &mut self,
        shared: &SharedRules,
        trust: bool,
        messages: &mut Vec<Message>,
    ) -> Result<()> {
        for table in &shared.tables {
            if !trust || !self.holds_rules_of(&table.frame)? {
                frame(table, messages)?;
            }
            for rule in &table.rules {
                messages.push(encode::owned_rule(&table.frame, rule, &shared.owner)?);
            }
        }
        Ok(())
    }

    /// Whether each chain of `frame` that has rules there has exactly these in the kernel.
    fn holds_rules_of(&mut self, frame: &Table) -> Result<bool> {
        let exact = frame.chains.iter();
        for (name, chain) in exact.filter(|(_, chain)| !chain.rules.is_empty()) {
            let mut request = message(frame.family, nf::GETRULE, 0);
            request
                .text(nf::RULE_TABLE, &frame.name)
                .text(nf::RULE_CHAIN, name);
            let found = match self.wire.dump(&request, ("list nftables rules of", name)) {
                Err(error) if error.is_not_found() => return Ok(false),
                other => other?,
            };
            let mut same = found.len() == chain.rules.len();
            for (rule, reply) in chain.rules.iter().zip(&found) {
                let listed = Listed::read(reply, frame.family);
                let expressions = listed.map_or(&[][..], |listed| listed.expressions);
                same = same && verify::is_rule(frame, name, rule, expressions)?;
            }
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every rule of `chains` that has an owner, in the tables' order. Each table is asked once.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn owned_rules(&mut self, chains: &[ChainRef]) -> Result<Vec<OwnedRule>> {
        let mut tables: BTreeMap<(TableFamily, &str), Vec<&str>> = BTreeMap::new();
        for ChainRef {
            family,
            table,
            chain,
        } in chains
        {
            tables.entry((*family, table)).or_default().push(chain);
        }
        let mut rules = Vec::new();
        for ((family, table), chains) in tables {
            let mut request = message(family, nf::GETRULE, 0);
            request.text(nf::RULE_TABLE, table);
            if let [chain] = chains[..] {
                request.text(nf::RULE_CHAIN, chain);
            }
            let about = "list nftables rules of";
            let found = match self.wire.dump(&request, (about, &table)) {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            let owned = found.iter().filter_map(|reply| owned(reply, family));
            rules.extend(owned.filter(|rule| {
                rule.chain.table == table && chains.contains(&rule.chain.chain.as_str())
            }));
        }
        Ok(rules)
    }
}

/// The messages that make the frame of `table`.
fn frame(table: &SharedTable, messages: &mut Vec<Message>) -> Result<()> {
    let frame = &table.frame;
    encode::check_name("table", &frame.name)?;
    messages.push(named(frame.family, nf::NEWTABLE, &frame.name).flag(NLM_F_CREATE));
    for (name, chain) in &frame.chains {
        encode::check_name("chain", name)?;
        messages.push(encode::chain_message(frame, name, chain));
    }
    let exact = frame
        .chains
        .iter()
        .filter(|(_, chain)| !chain.rules.is_empty());
    for (name, chain) in exact {
        let mut flush = message(frame.family, nf::DELRULE, 0);
        flush
            .text(nf::RULE_TABLE, &frame.name)
            .text(nf::RULE_CHAIN, name);
        messages.push(flush);
        for rule in &chain.rules {
            messages.push(encode::rule_message(frame, name, rule)?);
        }
    }
    Ok(())
}

pub(crate) fn delete(rule: &OwnedRule) -> Message {
    let mut message = message(rule.chain.family, nf::DELRULE, 0);
    message
        .text(nf::RULE_TABLE, &rule.chain.table)
        .text(nf::RULE_CHAIN, &rule.chain.chain)
        .attr(nf::RULE_HANDLE, &rule.handle);
    message
}

fn stale(is_stale: &dyn Fn(&Owner) -> bool) -> impl Fn(Vec<OwnedRule>) -> Vec<OwnedRule> {
    |mut rules| {
        rules.retain(|rule| is_stale(&rule.owner));
        rules
    }
}

pub(crate) fn owned(reply: &Reply, family: TableFamily) -> Option<OwnedRule> {
    let Listed {
        chain,
        handle,
        owner,
        expressions,
    } = Listed::read(reply, family)?;
    Some(OwnedRule {
        chain,
        owner: owner?,
        redirect: redirect::of(expressions),
        handle,
    })
}
