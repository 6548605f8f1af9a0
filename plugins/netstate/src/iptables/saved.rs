//! A table as `iptables-save` prints it.

use std::collections::BTreeMap;

use super::{Rule, words};

/// A table as `iptables-save` printed it. One that is not there has no chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain as `iptables-save` printed it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// `ACCEPT` or `DROP` for a chain of the kernel, `-` for one made by a user.
    pub policy: String,
    /// The rules in order.
    pub rules: Vec<Rule>,
}

// === impl Saved ===

impl Saved {
    /// Reads `table` from what `iptables-save` printed. Lines that are none of a table are left out.
    #[must_use]
    pub fn parse(text: &str, table: &str) -> Self {
        let mut saved = Self::default();
        let mut ours = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                ours = name.trim() == table;
            } else if let Some(chain) = line.strip_prefix(':').filter(|_| ours) {
                let mut parts = chain.split_whitespace();
                let (name, policy) = (parts.next().unwrap_or_default(), parts.next());
                let chain = saved.chains.entry(name.to_owned()).or_default();
                policy.unwrap_or_default().clone_into(&mut chain.policy);
            } else if let Some(rule) = line.strip_prefix("-A ").filter(|_| ours) {
                let mut words = words(rule);
                if !words.is_empty() {
                    let chain = saved.chains.entry(words.remove(0)).or_default();
                    chain.rules.push(Rule(words));
                }
            }
        }
        saved
    }

    /// The rules of a chain; one that is not there has none.
    #[must_use]
    pub fn rules(&self, chain: &str) -> &[Rule] {
        self.chains
            .get(chain)
            .map_or(&[], |chain| chain.rules.as_slice())
    }

    /// Whether a chain has exactly this rule.
    #[must_use]
    pub fn has(&self, chain: &str, rule: &Rule) -> bool {
        self.rules(chain).contains(rule)
    }

    /// Whether any rule goes to `chain`.
    #[must_use]
    pub fn is_target(&self, chain: &str) -> bool {
        let mut rules = self.chains.values().flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.target() == Some(chain))
    }
}
