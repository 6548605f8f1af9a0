//! What the kernel holds of a table, reduced to a number.

use std::hash::{DefaultHasher, Hasher};

use netstate::nft::TableFamily;

use crate::error::Result;
use crate::nft::message;
use crate::socket::Wire;
use crate::wire::message::{Reply, attrs, find, read_text};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;

/// The digest of chains, rules, sets and elements of table `name`.
pub(crate) fn of(wire: &mut Wire, name: &str) -> Result<u64> {
    let mut lines = Vec::new();
    let mut chains = dump(wire, nf::GETCHAIN, nf::CHAIN_TABLE, name)?
        .iter()
        .map(|reply| {
            let volatile = [nf::CHAIN_HANDLE, nf::CHAIN_USE, nf::CHAIN_COUNTERS];
            line(b'c', reply, &volatile)
        })
        .collect::<Vec<_>>();
    chains.sort_unstable();
    lines.extend(chains);
    lines.extend(rules(wire, name)?);
    let mut sets = Vec::new();
    for reply in dump(wire, nf::GETSET, nf::SET_TABLE, name)? {
        sets.push(line(b's', &reply, &[nf::SET_HANDLE, nf::SET_ID]));
        if let Some(set) = reply.body.get(NFGEN..).and_then(|a| find(a, nf::SET_NAME)) {
            sets.extend(elements(wire, name, &read_text(set))?);
        }
    }
    sets.sort_unstable();
    lines.extend(sets);
    let mut hasher = DefaultHasher::new();
    for line in &lines {
        hasher.write_usize(line.len());
        hasher.write(line);
    }
    Ok(hasher.finish())
}

/// Rules in order, chain by chain; counters carry no meaning here.
fn rules(wire: &mut Wire, name: &str) -> Result<Vec<Vec<u8>>> {
    let found = dump(wire, nf::GETRULE, nf::RULE_TABLE, name)?;
    let mut lines: Vec<(String, usize, Vec<u8>)> = Vec::new();
    for (place, reply) in found.iter().enumerate() {
        let attributes = reply.body.get(NFGEN..).unwrap_or_default();
        let mut text = vec![b'r'];
        for (kind, value) in attrs(attributes) {
            match kind {
                nf::RULE_HANDLE | nf::RULE_POSITION => {}
                nf::RULE_EXPRESSIONS => expressions(value, &mut text),
                _ => push(&mut text, kind, value),
            }
        }
        let chain = find(attributes, nf::RULE_CHAIN)
            .map(read_text)
            .unwrap_or_default();
        lines.push((chain, place, text));
    }
    lines.sort_unstable();
    Ok(lines.into_iter().map(|(_, _, text)| text).collect())
}

fn expressions(list: &[u8], text: &mut Vec<u8>) {
    for (_, expression) in attrs(list) {
        let name = find(expression, nf::EXPR_NAME).unwrap_or_default();
        push(text, nf::EXPR_NAME, name);
        if !name.starts_with(b"counter") {
            push(
                text,
                nf::EXPR_DATA,
                find(expression, nf::EXPR_DATA).unwrap_or_default(),
            );
        }
    }
}

fn elements(wire: &mut Wire, table: &str, set: &str) -> Result<Vec<Vec<u8>>> {
    let mut request = message(TableFamily::Inet, nf::GETSETELEM, 0);
    request
        .text(nf::ELEM_LIST_TABLE, table)
        .text(nf::ELEM_LIST_SET, set);
    let found = wire.dump(&request, ("list elements of nftables set", &set))?;
    let mut lines = Vec::new();
    for reply in &found {
        let attributes = reply.body.get(NFGEN..).unwrap_or_default();
        for (_, element) in attrs(find(attributes, nf::ELEM_LIST_ELEMENTS).unwrap_or_default()) {
            let mut text = vec![b'e'];
            push(&mut text, 0, set.as_bytes());
            push(&mut text, 1, element);
            lines.push(text);
        }
    }
    Ok(lines)
}

fn dump(wire: &mut Wire, kind: u16, table: u16, name: &str) -> Result<Vec<Reply>> {
    let mut request = message(TableFamily::Inet, kind, 0);
    request.text(table, name);
    let found = wire.dump(&request, ("list nftables table", &name))?;
    let of_table = |reply: &Reply| {
        let attributes = reply.body.get(NFGEN..).unwrap_or_default();
        find(attributes, table).map(read_text).as_deref() == Some(name)
    };
    Ok(found.into_iter().filter(of_table).collect())
}

fn line(tag: u8, reply: &Reply, volatile: &[u16]) -> Vec<u8> {
    let mut text = vec![tag];
    for (kind, value) in attrs(reply.body.get(NFGEN..).unwrap_or_default()) {
        if !volatile.contains(&kind) {
            push(&mut text, kind, value);
        }
    }
    text
}

fn push(text: &mut Vec<u8>, kind: u16, value: &[u8]) {
    text.extend_from_slice(&kind.to_ne_bytes());
    text.extend_from_slice(&value.len().to_ne_bytes());
    text.extend_from_slice(value);
}
