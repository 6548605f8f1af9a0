//! A rule as the kernel lists it.

use netstate::nft::{ChainRef, Owner, TableFamily};

use crate::wire::message::{Reply, attrs, read_text};
use crate::wire::nf;

/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;

/// One listed rule.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) chain: ChainRef,
    pub(crate) handle: [u8; 8],
    pub(crate) owner: Option<Owner>,
    /// The list of its expressions.
    pub(crate) expressions: &'a [u8],
}

// === impl Listed ===

impl<'a> Listed<'a> {
    /// Reads an answer of the kernel about a table of `family`.
    pub(crate) fn read(reply: &'a Reply, family: TableFamily) -> Option<Self> {
        let (mut table, mut chain) = (String::new(), String::new());
        let (mut handle, mut owner, mut expressions) = (None, None, &[][..]);
        for (kind, value) in attrs(reply.body.get(NFGEN..)?) {
            match kind {
                nf::RULE_TABLE => table = read_text(value),
                nf::RULE_CHAIN => chain = read_text(value),
                nf::RULE_HANDLE => handle = value.try_into().ok(),
                nf::RULE_USERDATA => owner = owner_of(value),
                nf::RULE_EXPRESSIONS => expressions = value,
                _ => {}
            }
        }
        let chain = ChainRef {
            family,
            table,
            chain,
        };
        Some(Self {
            chain,
            handle: handle?,
            owner,
            expressions,
        })
    }
}

/// Comment and tag among a rule's user data: kind and length, one byte each, then the value. Without
/// a comment there is no owner.
fn owner_of(mut data: &[u8]) -> Option<Owner> {
    let (mut comment, mut tag) = (None, None);
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        match *kind {
            nf::UDATA_COMMENT => comment = Some(read_text(value)),
            nf::UDATA_TAG => tag = Some(read_text(value)),
            _ => {}
        }
        data = &rest[usize::from(*length)..];
    }
    let comment = comment?;
    Some(Owner { comment, tag })
}
