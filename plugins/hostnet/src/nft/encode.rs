//! A table as the messages that make it.

use netstate::nft::{Base, Chain, ChainKind, Family, Hook, Policy, Rule, Set, Table};

use crate::error::{Error, Result};
use crate::nft::{element, expression, message, named};
use crate::wire::message::{Message, NLM_F_APPEND, NLM_F_CREATE};
use crate::wire::nf;

/// Longest name of a table, chain or set in bytes.
const NAME_MAX: usize = 255;
/// Longest rule comment in bytes; `nft` shows no longer one.
const COMMENT_MAX: usize = 128;

/// Adds the table, its chains, sets, elements and rules, in an order without forward references.
pub(crate) fn table(table: &Table) -> Result<Vec<Message>> {
    check_name("table", &table.name)?;
    let mut messages = vec![named(nf::NEWTABLE, &table.name).flag(NLM_F_CREATE)];
    for (name, chain) in &table.chains {
        check_name("chain", name)?;
        messages.push(chain_message(table, name, chain));
    }
    for (id, (name, set)) in (1..).zip(&table.sets) {
        check_name("set", name)?;
        messages.push(set_message(table, name, set, id));
        messages.extend(element::messages(table, name, set, id)?);
    }
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            messages.push(rule_message(table, name, rule)?);
        }
    }
    Ok(messages)
}

pub(crate) fn chain_message(table: &Table, name: &str, chain: &Chain) -> Message {
    let mut message = message(nf::NEWCHAIN, NLM_F_CREATE);
    message
        .text(nf::CHAIN_TABLE, &table.name)
        .text(nf::CHAIN_NAME, name);
    if let Some(Base {
        kind,
        hook,
        priority,
        policy,
    }) = chain.base
    {
        message.nest(nf::CHAIN_HOOK, |hooks| {
            hooks.be32(nf::HOOK_HOOKNUM, hook_number(hook));
            hooks.be32(nf::HOOK_PRIORITY, priority.cast_unsigned());
        });
        message.be32(nf::CHAIN_POLICY, u32::from(policy == Policy::Accept));
        message.text(nf::CHAIN_TYPE, kind_name(kind));
    }
    message
}

fn set_message(table: &Table, name: &str, set: &Set, id: u32) -> Message {
    let mut message = message(nf::NEWSET, NLM_F_CREATE);
    let (key_type, length) = match set.family {
        Family::V4 => (nf::TYPE_IPADDR, 4),
        Family::V6 => (nf::TYPE_IP6ADDR, 16),
    };
    message
        .text(nf::SET_TABLE, &table.name)
        .text(nf::SET_NAME, name);
    message.be32(
        nf::SET_FLAGS,
        if set.interval { nf::SET_INTERVAL } else { 0 },
    );
    message
        .be32(nf::SET_KEY_TYPE, key_type)
        .be32(nf::SET_KEY_LEN, length);
    message.be32(nf::SET_ID, id);
    message
}

pub(crate) fn rule_message(table: &Table, chain: &str, rule: &Rule) -> Result<Message> {
    let mut message = message(nf::NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    message
        .text(nf::RULE_TABLE, &table.name)
        .text(nf::RULE_CHAIN, chain);
    let expressions = expression::of(table, rule)?;
    message.nest(nf::RULE_EXPRESSIONS, |list| {
        for expression in &expressions {
            list.nest(nf::LIST_ELEM, |element| expression.write(element));
        }
    });
    if let Some(comment) = &rule.comment {
        message.attr(nf::RULE_USERDATA, &comment_data(comment)?);
    }
    Ok(message)
}

fn comment_data(comment: &str) -> Result<Vec<u8>> {
    let length = comment.len() + 1;
    if comment.len() > COMMENT_MAX || comment.contains('\0') {
        let reason = format!("is longer than {COMMENT_MAX} bytes or holds a zero byte");
        return Err(Error::invalid("encode rule comment", comment, reason));
    }
    let mut data = vec![nf::UDATA_COMMENT, u8::try_from(length).unwrap_or(u8::MAX)];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    Ok(data)
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(sound) {
        return Ok(());
    }
    let reason = "is not 1 to 255 letters, digits, '_', '-', '.' or '/'";
    Err(Error::invalid(
        "encode nftables name",
        format!("{what} {name:?}"),
        reason,
    ))
}

const fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}
