//! Rules of one owner in a table that many owners share.

use netstate::nft::SharedRules;

use crate::error::Result;
use crate::nft::{Nftables, encode, message, named};
use crate::wire::message::{Message, NLM_F_CREATE, find, read_text};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;

// === impl Nftables: shared tables ===

impl Nftables {
    /// Makes the frame if need be and adds the owner's rules, in one transaction.
    ///
    /// # Errors
    /// When a name does not fit or the kernel refuses. Nothing has changed then.
    pub fn add_rules(&mut self, shared: &SharedRules) -> Result<()> {
        let frame = &shared.frame;
        encode::check_name("table", &frame.name)?;
        let mut messages = vec![named(nf::NEWTABLE, &frame.name).flag(NLM_F_CREATE)];
        for (name, chain) in &frame.chains {
            encode::check_name("chain", name)?;
            messages.push(encode::chain_message(frame, name, chain));
        }
        for (name, chain) in frame
            .chains
            .iter()
            .filter(|(_, chain)| chain.base.is_some())
        {
            messages.push(rules_of(nf::DELRULE, &frame.name, name));
            for rule in &chain.rules {
                messages.push(encode::rule_message(frame, name, rule)?);
            }
        }
        for rule in &shared.rules {
            let rule = rule.clone().comment(shared.comment.clone());
            messages.push(encode::rule_message(frame, &shared.chain, &rule)?);
        }
        self.batch(messages, ("add nftables rules to", &frame.name))
    }

    /// Removes the rules of `chain` whose comment `is_stale` says so; returns how many. A table or
    /// chain that is not there has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_rules(
        &mut self,
        table: &str,
        chain: &str,
        is_stale: &dyn Fn(&str) -> bool,
    ) -> Result<usize> {
        let delete = |handle: &[u8; 8]| {
            let mut message = rules_of(nf::DELRULE, table, chain);
            message.attr(nf::RULE_HANDLE, handle);
            message
        };
        loop {
            let handles = self.stale_handles(table, chain, is_stale)?;
            if handles.is_empty() {
                return Ok(0);
            }
            let messages = handles.iter().map(delete).collect();
            match self.batch(messages, ("delete nftables rules from", &table)) {
                // Somebody else removed one since, so that none was removed here: what is left?
                Err(error) if error.is_not_found() => {}
                other => return other.map(|()| handles.len()),
            }
        }
    }

    /// The comments of the rules of `chain`, in order. A chain that is not there has none.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn rule_comments(&mut self, table: &str, chain: &str) -> Result<Vec<String>> {
        let rules = self.commented_rules(table, chain)?;
        Ok(rules.into_iter().map(|(_, comment)| comment).collect())
    }

    fn stale_handles(
        &mut self,
        table: &str,
        chain: &str,
        is_stale: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<[u8; 8]>> {
        let rules = self.commented_rules(table, chain)?;
        let stale = rules.into_iter().filter(|(_, comment)| is_stale(comment));
        Ok(stale.map(|(handle, _)| handle).collect())
    }

    /// Handle and comment of every rule that has a comment.
    fn commented_rules(&mut self, table: &str, chain: &str) -> Result<Vec<([u8; 8], String)>> {
        let request = rules_of(nf::GETRULE, table, chain);
        let found = match self.wire.dump(&request, ("list nftables rules of", &table)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let mut rules = Vec::new();
        for reply in &found {
            let attributes = reply.body.get(NFGEN..).unwrap_or_default();
            let text = |kind| find(attributes, kind).map(read_text).unwrap_or_default();
            if text(nf::RULE_TABLE) != table || text(nf::RULE_CHAIN) != chain {
                continue;
            }
            let handle = find(attributes, nf::RULE_HANDLE).and_then(|h| h.try_into().ok());
            let comment = find(attributes, nf::RULE_USERDATA).and_then(comment_of);
            if let (Some(handle), Some(comment)) = (handle, comment) {
                rules.push((handle, comment));
            }
        }
        Ok(rules)
    }
}

fn rules_of(kind: u16, table: &str, chain: &str) -> Message {
    let mut message = message(kind, 0);
    message
        .text(nf::RULE_TABLE, table)
        .text(nf::RULE_CHAIN, chain);
    message
}

/// The comment among a rule's user data: kind, length, value, one byte each for the first two.
fn comment_of(mut data: &[u8]) -> Option<String> {
    loop {
        let [kind, length, rest @ ..] = data else {
            return None;
        };
        let value = rest.get(..usize::from(*length))?;
        if *kind == nf::UDATA_COMMENT {
            return Some(read_text(value));
        }
        data = &rest[usize::from(*length)..];
    }
}
