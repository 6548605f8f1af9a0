//! A table as the messages that make it.

use netstate::nft::{
    Base, Chain, ChainKind, Family, Hook, Owner, Policy, Rule, Set, SharedRule, Table,
};

use crate::error::{Error, Result};
use crate::nft::{element, expression, message, named};
use crate::wire::message::{Message, NLM_F_APPEND, NLM_F_CREATE};
use crate::wire::nf;

/// Longest name of a table, chain or set in bytes.
const NAME_MAX: usize = 255;
/// Longest rule comment in bytes; `nft` shows no longer one.
const COMMENT_MAX: usize = 128;
/// Longest tag in bytes: with the longest comment it fits the kernel's 256 bytes of user data.
const TAG_MAX: usize = 100;

/// Adds the table, its chains, sets, elements and rules, in an order without forward references.
pub(crate) fn table(table: &Table) -> Result<Vec<Message>> {
    check_name("table", &table.name)?;
    let mut messages = vec![named(table.family, nf::NEWTABLE, &table.name).flag(NLM_F_CREATE)];
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
    let mut message = message(table.family, nf::NEWCHAIN, NLM_F_CREATE);
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
    let mut message = message(table.family, nf::NEWSET, NLM_F_CREATE);
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

/// The message that adds `rule` behind the others of `chain`.
pub(crate) fn rule_message(table: &Table, chain: &str, rule: &Rule) -> Result<Message> {
    let userdata = match &rule.comment {
        Some(comment) => userdata(&Owner::commented(comment))?,
        None => Vec::new(),
    };
    unplaced_rule(table, chain, rule, &userdata).map(|message| message.flag(NLM_F_APPEND))
}

/// The message that adds a rule of `owner` where it belongs.
pub(crate) fn owned_rule(table: &Table, owned: &SharedRule, owner: &Owner) -> Result<Message> {
    let message = unplaced_rule(table, &owned.chain, &owned.rule, &userdata(owner)?)?;
    Ok(if owned.first {
        message
    } else {
        message.flag(NLM_F_APPEND)
    })
}

fn unplaced_rule(table: &Table, chain: &str, rule: &Rule, userdata: &[u8]) -> Result<Message> {
    let mut message = message(table.family, nf::NEWRULE, NLM_F_CREATE);
    message
        .text(nf::RULE_TABLE, &table.name)
        .text(nf::RULE_CHAIN, chain);
    let expressions = expression::of(table, rule)?;
    message.nest(nf::RULE_EXPRESSIONS, |list| {
        for expression in &expressions {
            list.nest(nf::LIST_ELEM, |element| expression.write(element));
        }
    });
    if !userdata.is_empty() {
        message.attr(nf::RULE_USERDATA, userdata);
    }
    Ok(message)
}

/// Kind and length, one byte each, then the value; comments end with a zero.
fn userdata(owner: &Owner) -> Result<Vec<u8>> {
    let refuse = |text: &str, max| {
        let reason = format!("is longer than {max} bytes or holds a zero byte");
        Err(Error::invalid("encode rule comment", text, reason))
    };
    let Owner { comment, tag } = owner;
    if comment.len() > COMMENT_MAX || comment.contains('\0') {
        return refuse(comment, COMMENT_MAX);
    }
    let mut data = vec![nf::UDATA_COMMENT, length(comment.len() + 1)];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    if let Some(tag) = tag {
        if tag.len() > TAG_MAX || tag.contains('\0') {
            return refuse(tag, TAG_MAX);
        }
        data.extend_from_slice(&[nf::UDATA_TAG, length(tag.len())]);
        data.extend_from_slice(tag.as_bytes());
    }
    Ok(data)
}

fn length(bytes: usize) -> u8 {
    u8::try_from(bytes).unwrap_or(u8::MAX)
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
