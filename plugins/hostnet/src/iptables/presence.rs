//! Whether iptables is in use, asked of the kernel rather than of a program.
//!
//! The nft variant keeps its state in nftables tables `ip nat`, `ip6 filter` and so on, which netlink
//! finds by name. The legacy variant's tables are listed in a file of `/proc`, but not their chains.

use std::fs;
use std::io::ErrorKind as Io;

use netstate::nft::Family;
use nix::sys::socket::SockProtocol;

use crate::error::{Error, Result};
use crate::socket::Wire;
use crate::wire::message::{Message, Reply, find};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;
const DROP: u32 = 0;

/// Whether iptables has `table` (such as `nat`) for `family`, whichever variant made it.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn has_table(family: Family, table: &str) -> Result<bool> {
    Ok(has_legacy(family, table)? || has_nft(family, table)?)
}

/// Whether `chain` of `table` can be there. False is certain; true is certain unless the legacy
/// variant has the table, whose chains only its program can list.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn may_have_chain(family: Family, table: &str, chain: &str) -> Result<bool> {
    Ok(has_legacy(family, table)? || nft_chain(family, table, chain)?.is_some())
}

/// Whether the `FORWARD` chain of iptables can discard packets: its policy is `DROP` or it has
/// rules. Runs a program only where the legacy variant has a `filter` table.
///
/// # Errors
/// When the kernel refuses to tell or the program fails.
pub fn is_forwarding_filtered(family: Family) -> Result<bool> {
    if let Some(chain) = nft_chain(family, "filter", "FORWARD")? {
        let attributes = chain.body.get(NFGEN..).unwrap_or_default();
        let number = |kind| {
            let bytes: Option<[u8; 4]> = find(attributes, kind).and_then(|v| v.try_into().ok());
            bytes.map(u32::from_be_bytes)
        };
        // The kernel counts a chain's rules among its users.
        if number(nf::CHAIN_POLICY) == Some(DROP) || number(nf::CHAIN_USE).is_some_and(|n| n > 0) {
            return Ok(true);
        }
    }
    if !has_legacy(family, "filter")? {
        return Ok(false);
    }
    let saved = super::read(&super::Program::legacy(family)?, "filter")?;
    let chain = saved.chains.get("FORWARD");
    Ok(chain.is_some_and(|chain| chain.policy == "DROP" || !chain.rules.is_empty()))
}

/// Whether the legacy variant has `table`. Old kernels list all tables once the module is loaded.
pub(super) fn has_legacy(family: Family, table: &str) -> Result<bool> {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().any(|name| name == table)),
        Err(error) if error.kind() == Io::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path, &error)),
    }
}

/// Whether the nft variant has `table`.
pub(super) fn has_nft(family: Family, table: &str) -> Result<bool> {
    let mut request = message(nf::GETTABLE, family);
    request.text(nf::TABLE_NAME, table);
    query(request, table).map(|found| found.is_some())
}

fn nft_chain(family: Family, table: &str, chain: &str) -> Result<Option<Reply>> {
    let mut request = message(nf::GETCHAIN, family);
    request
        .text(nf::CHAIN_TABLE, table)
        .text(nf::CHAIN_NAME, chain);
    query(request, chain)
}

fn query(request: Message, name: &str) -> Result<Option<Reply>> {
    let mut wire = Wire::open(SockProtocol::NetlinkNetFilter)?;
    match wire.query(request, ("find in nftables", &name)) {
        Err(error) if error.is_not_found() => Ok(None),
        other => other,
    }
}

fn message(kind: u16, family: Family) -> Message {
    let family = match family {
        Family::V4 => nf::NFPROTO_IPV4,
        Family::V6 => nf::NFPROTO_IPV6,
    };
    Message::new(nf::SUBSYSTEM << 8 | kind, 0, &[family, 0, 0, 0])
}
