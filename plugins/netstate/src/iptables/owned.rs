//! What one owner keeps in one table of iptables: chains of its own, and one jump to each of them
//! from a chain that belongs to others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Batch, Rule, Saved};

/// Chains of an owner with their rules in order, and the jumps to them by the chain they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Owned {
    /// Rules by chain.
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// The jumps of each of the others' chains: one for each chain to go to.
    pub jumps: BTreeMap<String, Vec<Rule>>,
}

// === impl Owned ===

impl Owned {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// What `saved` has of the chains called `names`, and every jump to one of them.
    #[must_use]
    pub fn find(saved: &Saved, names: &BTreeSet<String>) -> Self {
        let mut found = Self::default();
        for (name, chain) in &saved.chains {
            if names.contains(name) {
                found.chains.insert(name.clone(), chain.rules.clone());
                continue;
            }
            let is_jump = |rule: &&Rule| rule.target().is_some_and(|to| names.contains(to));
            let jumps: Vec<Rule> = chain.rules.iter().filter(is_jump).cloned().collect();
            if !jumps.is_empty() {
                found.jumps.insert(name.clone(), jumps);
            }
        }
        found
    }

    /// The changes to `table` that make the chains called `names` of `saved` like this. Jumps that
    /// are there once stay where they are; missing ones come last, behind the rules of others.
    #[must_use]
    pub fn changes(&self, table: &str, saved: &Saved, names: &BTreeSet<String>) -> Batch {
        let mut batch = Batch::new(table);
        let found = Self::find(saved, names);
        let before: BTreeSet<&String> = found.jumps.keys().chain(self.jumps.keys()).collect();
        let none = Vec::new();
        // Chains come before the jumps to them, and go after.
        for (chain, rules) in &self.chains {
            if found.chains.get(chain) != Some(rules) {
                batch.clear_chain(chain);
                for rule in rules {
                    batch.append(chain, rule.clone());
                }
            }
        }
        for chain in before {
            let there = found.jumps.get(chain).unwrap_or(&none);
            let wanted = self.jumps.get(chain).unwrap_or(&none);
            if there == wanted {
                continue;
            }
            for jump in there {
                batch.delete(chain, jump.clone());
            }
            for jump in wanted {
                batch.append(chain, jump.clone());
            }
        }
        let gone = found
            .chains
            .keys()
            .filter(|name| !self.chains.contains_key(*name));
        for chain in gone.clone() {
            batch.flush_chain(chain);
        }
        for chain in gone {
            batch.delete_chain(chain);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const SAVED: &str = "*nat\n:POSTROUTING ACCEPT [0:0]\n:TOWLINE-POSTRTG - [0:0]\n\
        -A POSTROUTING -j TOWLINE-POSTRTG\n-A POSTROUTING -o lo -j ACCEPT\n\
        -A POSTROUTING -j TOWLINE-POSTRTG\n-A TOWLINE-POSTRTG -j RETURN\nCOMMIT\n";

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["TOWLINE-POSTRTG".to_owned()])
    }

    fn wanted(rules: &[&str]) -> Owned {
        let rules = rules.iter().map(|rule| Rule::of(rule)).collect();
        let jumps = vec![Rule::of("-j TOWLINE-POSTRTG")];
        Owned {
            chains: BTreeMap::from([("TOWLINE-POSTRTG".to_owned(), rules)]),
            jumps: BTreeMap::from([("POSTROUTING".to_owned(), jumps)]),
        }
    }

    fn changes(wanted: &Owned, saved: &str) -> String {
        let saved = Saved::parse(saved, "nat");
        wanted.changes("nat", &saved, &names()).render().unwrap()
    }

    #[test]
    fn a_second_jump_and_a_wrong_rule_are_put_right() {
        assert_eq!(
            changes(&wanted(&["-s 10.0.0.0/8 -j MASQUERADE"]), SAVED),
            "*nat\n:TOWLINE-POSTRTG - [0:0]\n-A TOWLINE-POSTRTG -s 10.0.0.0/8 -j MASQUERADE\n\
             -D POSTROUTING -j TOWLINE-POSTRTG\n-D POSTROUTING -j TOWLINE-POSTRTG\n\
             -A POSTROUTING -j TOWLINE-POSTRTG\nCOMMIT\n"
        );
    }

    #[test]
    fn what_is_there_stays_and_what_nobody_wants_goes() {
        let once = SAVED.replacen("-A POSTROUTING -j TOWLINE-POSTRTG\n", "", 1);
        let same = wanted(&["-j RETURN"]);
        assert!(
            same.changes("nat", &Saved::parse(&once, "nat"), &names())
                .is_empty()
        );
        assert_eq!(Owned::find(&Saved::parse(&once, "nat"), &names()), same);
        assert_eq!(
            changes(&Owned::default(), &once),
            "*nat\n-D POSTROUTING -j TOWLINE-POSTRTG\n-F TOWLINE-POSTRTG\n-X TOWLINE-POSTRTG\nCOMMIT\n"
        );
    }
}
