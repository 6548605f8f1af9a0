//! Whether the kernel holds exactly what shared rules should be.

use netstate::nft::{Chain, Rule, SharedRules, SharedTable, Table};

use crate::error::Result;
use crate::nft::shared::listed::Listed;
use crate::nft::{Nftables, encode, message};
use crate::wire::message::{HEADER, Message, attrs, find, read_text};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;
const IMMEDIATE_DATA: u16 = 2;
/// What the kernel shows of an expression although nobody has to say it.
const SHOWN_UNASKED: &[(&str, u16)] = &[
    ("bitwise", 6),
    ("lookup", 5),
    ("nat", 4),
    ("nat", 6),
    ("nat", 7),
];

// === impl Nftables: checks ===

impl Nftables {
    /// What is missing or differs of the frames and of the owner's rules, in words; `None` when the
    /// kernel holds all of it, and no rule of the owner besides. Chains for which the frame has
    /// rules must hold these, and may hold others.
    ///
    /// # Errors
    /// When a name does not fit or the kernel refuses to tell.
    pub fn find_damage(&mut self, shared: &SharedRules) -> Result<Option<String>> {
        for table in &shared.tables {
            for (name, chain) in &table.frame.chains {
                if let Some(damage) = self.chain_damage(table, name, chain)? {
                    return Ok(Some(damage));
                }
            }
            let mut request = message(table.frame.family, nf::GETRULE, 0);
            request.text(nf::RULE_TABLE, &table.frame.name);
            let about = ("list nftables rules of", &*table.frame.name);
            let found = self.wire.dump(&request, (about.0, &about.1))?;
            let listed = found
                .iter()
                .filter_map(|reply| Listed::read(reply, table.frame.family));
            let listed: Vec<Listed<'_>> = listed
                .filter(|rule| rule.chain.table == table.frame.name)
                .collect();
            for name in table.frame.chains.keys() {
                if let Some(damage) = rule_damage(shared, table, name, &listed)? {
                    return Ok(Some(damage));
                }
            }
        }
        Ok(None)
    }

    fn chain_damage(
        &mut self,
        table: &SharedTable,
        name: &str,
        chain: &Chain,
    ) -> Result<Option<String>> {
        let frame = &table.frame;
        let shown = format!("chain {name} of nftables table {}", frame.name);
        let mut request = message(frame.family, nf::GETCHAIN, 0);
        request
            .text(nf::CHAIN_TABLE, &frame.name)
            .text(nf::CHAIN_NAME, name);
        let found = match self.wire.query(request, ("find", &shown)) {
            Err(error) if error.is_not_found() => None,
            other => other?,
        };
        let Some(found) = found else {
            return Ok(Some(format!("{shown} is gone")));
        };
        if chain.base.is_none() {
            return Ok(None);
        }
        let wanted = body(encode::chain_message(frame, name, chain));
        let value = |from: &[u8], kind, inner| {
            let outer = find(from.get(NFGEN..)?, kind)?;
            match inner {
                0 => Some(outer.to_vec()),
                _ => find(outer, inner).map(<[u8]>::to_vec),
            }
        };
        let marks = [
            (nf::CHAIN_HOOK, nf::HOOK_HOOKNUM),
            (nf::CHAIN_HOOK, nf::HOOK_PRIORITY),
            (nf::CHAIN_POLICY, 0),
            (nf::CHAIN_TYPE, 0),
        ];
        let differs =
            |(kind, inner)| value(&wanted, kind, inner) != value(&found.body, kind, inner);
        Ok(marks
            .into_iter()
            .any(differs)
            .then(|| format!("{shown} is hooked elsewhere")))
    }
}

fn rule_damage(
    shared: &SharedRules,
    table: &SharedTable,
    name: &str,
    listed: &[Listed<'_>],
) -> Result<Option<String>> {
    let frame = &table.frame;
    let shown = format!("chain {name} of nftables table {}", frame.name);
    let of_chain = listed.iter().filter(|rule| rule.chain.chain == name);
    let of_chain: Vec<&Listed<'_>> = of_chain.collect();
    let has = |rule: &Rule, among: &[&Listed<'_>]| -> Result<bool> {
        for listed in among {
            if is_rule(frame, name, rule, listed.expressions)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    for rule in frame.chains.get(name).iter().flat_map(|chain| &chain.rules) {
        if !has(rule, &of_chain)? {
            return Ok(Some(format!("a rule of {shown} is gone")));
        }
    }
    let mut own = of_chain;
    own.retain(|rule| rule.owner.as_ref() == Some(&shared.owner));
    let wanted = table.rules.iter().filter(|rule| rule.chain == name);
    let mut count = 0;
    for rule in wanted {
        count += 1;
        if !has(&rule.rule, &own)? {
            let whose = &shared.owner.comment;
            return Ok(Some(format!("a rule of {whose} in {shown} is gone")));
        }
    }
    if own.len() != count {
        let (found, whose) = (own.len(), &shared.owner.comment);
        let damage = format!("{shown} holds {found} rules of {whose} instead of {count}");
        return Ok(Some(damage));
    }
    Ok(None)
}

/// Whether the kernel's list of expressions is `rule` of chain `name`.
pub(crate) fn is_rule(frame: &Table, name: &str, rule: &Rule, kernel: &[u8]) -> Result<bool> {
    let message = body(encode::rule_message(frame, name, rule)?);
    let ours = find(
        message.get(NFGEN..).unwrap_or_default(),
        nf::RULE_EXPRESSIONS,
    );
    Ok(same_expressions(kernel, ours.unwrap_or_default()))
}

fn body(message: Message) -> Vec<u8> {
    message.finish(0).split_off(HEADER)
}

/// Whether the kernel's list of expressions is what we would write.
fn same_expressions(kernel: &[u8], ours: &[u8]) -> bool {
    let (mut kernel, mut ours) = (attrs(kernel), attrs(ours));
    loop {
        match (kernel.next(), ours.next()) {
            (None, None) => return true,
            (Some((_, theirs)), Some((_, own))) if same_expression(theirs, own) => {}
            _ => return false,
        }
    }
}

fn same_expression(kernel: &[u8], ours: &[u8]) -> bool {
    let name = |of| find(of, nf::EXPR_NAME).map(read_text).unwrap_or_default();
    let data = |of| find(of, nf::EXPR_DATA).unwrap_or_default();
    let which = name(ours);
    if which != name(kernel) {
        return false;
    }
    if which == "counter" {
        return true;
    }
    let (theirs, own) = (data(kernel), data(ours));
    let same = |kind, a: &[u8], b: &[u8]| {
        a == b || (which == "immediate" && kind == IMMEDIATE_DATA && unmarked(a) == unmarked(b))
    };
    let all_there =
        attrs(own).all(|(kind, value)| find(theirs, kind).is_some_and(|v| same(kind, v, value)));
    let nothing_else = attrs(theirs).all(|(kind, _)| {
        find(own, kind).is_some() || SHOWN_UNASKED.contains(&(which.as_str(), kind))
    });
    all_there && nothing_else
}

/// A nested verdict without the mark that it is nested, which the kernel leaves out.
fn unmarked(data: &[u8]) -> Vec<(u16, Vec<u8>)> {
    attrs(data)
        .map(|(kind, value)| (kind, value.to_vec()))
        .collect()
}
