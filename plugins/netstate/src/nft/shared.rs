//! Rules of many owners, such as one owner for each container, in nftables tables that they share.
//!
//! Such a table is never replaced: its frame is made if need be, and an owner's rules are found
//! again by what they carry.

use serde::{Deserialize, Serialize};

use super::{Rule, Table, TableFamily};

/// Rules of one owner, in one table or several, also of several families.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRules {
    /// Whose they are.
    pub owner: Owner,
    /// The tables, with what is the owner's in each.
    pub tables: Vec<SharedTable>,
}

/// One table of [`SharedRules`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTable {
    /// What must be there. Chains that have rules here are made to hold exactly these; other
    /// chains, base chains too, are made if they are absent and keep what they hold. No sets.
    pub frame: Table,
    /// The owner's rules, each put into its chain in this order.
    pub rules: Vec<SharedRule>,
}

/// A rule of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRule {
    /// A chain of the frame.
    pub chain: String,
    /// Before all rules of the chain, instead of after them.
    pub first: bool,
    /// The rule. Its own comment, if it has one, gives way to the owner's.
    pub rule: Rule,
}

/// Whose rules they are: written into each of them, so that they are found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The comment that `nft list` shows; at most 128 bytes.
    pub comment: String,
    /// More than the comment says, in the rule's user data where `nft` shows nothing: at most 100
    /// bytes. Rules that another program made have none.
    pub tag: Option<String>,
}

/// A chain's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainRef {
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
}

// === impl SharedRules ===

impl SharedRules {
    /// Rules in a single chain of a single table, owned by who has this comment.
    #[must_use]
    pub fn in_chain(
        frame: Table,
        chain: &str,
        comment: impl Into<String>,
        rules: Vec<Rule>,
    ) -> Self {
        let rules = rules.into_iter().map(|rule| SharedRule::last(chain, rule));
        let rules = rules.collect();
        Self {
            owner: Owner::commented(comment),
            tables: vec![SharedTable { frame, rules }],
        }
    }

    /// The chains that hold rules of the owner, each once.
    #[must_use]
    pub fn chains(&self) -> Vec<ChainRef> {
        let of_table = |table: &SharedTable| {
            let (family, name) = (table.frame.family, table.frame.name.clone());
            let chains = table.rules.iter().map(|rule| rule.chain.clone());
            let full = move |chain| ChainRef {
                family,
                table: name.clone(),
                chain,
            };
            chains.map(full).collect::<Vec<_>>()
        };
        let mut chains: Vec<ChainRef> = self.tables.iter().flat_map(of_table).collect();
        chains.sort();
        chains.dedup();
        chains
    }
}

// === impl SharedRule ===

impl SharedRule {
    /// A rule after those that the chain holds.
    #[must_use]
    pub fn last(chain: &str, rule: Rule) -> Self {
        Self {
            chain: chain.to_owned(),
            first: false,
            rule,
        }
    }

    /// A rule before those that the chain holds.
    #[must_use]
    pub fn first(chain: &str, rule: Rule) -> Self {
        Self {
            first: true,
            ..Self::last(chain, rule)
        }
    }
}

// === impl Owner ===

impl Owner {
    /// An owner whom the comment alone tells from others.
    #[must_use]
    pub fn commented(comment: impl Into<String>) -> Self {
        Self {
            comment: comment.into(),
            tag: None,
        }
    }

    /// An owner whom the comment and a tag tell from others.
    #[must_use]
    pub fn tagged(comment: impl Into<String>, tag: impl Into<String>) -> Self {
        Self {
            comment: comment.into(),
            tag: Some(tag.into()),
        }
    }
}

// === impl ChainRef ===

impl ChainRef {
    /// A chain of a table of family `inet`.
    #[must_use]
    pub fn inet(table: &str, chain: &str) -> Self {
        Self::of(TableFamily::Inet, table, chain)
    }

    /// A chain.
    #[must_use]
    pub fn of(family: TableFamily, table: &str, chain: &str) -> Self {
        Self {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
        }
    }
}
