//! `conditionsV4` and `conditionsV6` in nftables' words, as matches.
//!
//! `nft` is never run, so what is understood is what conditions of port mappings are made of:
//! addresses, devices, the mark and what an address is to the host.

use ipnetwork::IpNetwork;
use netstate::nft::{Addresses, DeviceName, Family, FibKind, Mark, Match};
use protocol::Error;

/// The alternatives that `words` come to, in each of which all matches must hold. A set of
/// addresses gives one alternative for each.
///
/// # Errors
/// Code 7 for words that are not understood; they are named with `key`.
pub fn parse(key: &str, words: &[String], family: Family) -> Result<Vec<Vec<Match>>, Error> {
    let text = words.join(" ").replace('{', " { ").replace('}', " } ");
    let text = text.replace(',', " ");
    let mut reader = Reader {
        key,
        words: text.split_whitespace().collect(),
        family,
    };
    reader.words.reverse();
    let mut alternatives = vec![Vec::new()];
    while !reader.words.is_empty() {
        let either = reader.condition()?;
        alternatives = alternatives
            .iter()
            .flat_map(|before: &Vec<Match>| {
                either.iter().map(|more| {
                    let mut all = before.clone();
                    all.extend(more.iter().cloned());
                    all
                })
            })
            .collect();
    }
    Ok(alternatives)
}

struct Reader<'a> {
    key: &'a str,
    /// What is left, the next one last.
    words: Vec<&'a str>,
    family: Family,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn condition(&mut self) -> Result<Vec<Vec<Match>>, Error> {
        let word = match self.next()? {
            "meta" => self.next()?,
            word => word,
        };
        let one = |found| Ok(vec![vec![found]]);
        match (word, self.family) {
            ("ip", Family::V4) | ("ip6", Family::V6) => self.addresses(),
            ("iifname" | "oifname", _) => {
                let (inverted, name) = (self.inverted(), self.device()?);
                one(match (word, inverted) {
                    ("iifname", false) => Match::InDevice(name),
                    ("iifname", true) => Match::NotInDevice(name),
                    (_, false) => Match::OutDevice(name),
                    (_, true) => Match::NotOutDevice(name),
                })
            }
            ("mark", _) => one(self.mark()?),
            ("fib", _) => {
                let which = self.next()?;
                self.expect("type")?;
                let kind = match self.next()? {
                    "local" => FibKind::Local,
                    "broadcast" => FibKind::Broadcast,
                    "multicast" => FibKind::Multicast,
                    "unicast" => FibKind::Unicast,
                    other => return Err(self.refused(other)),
                };
                match which {
                    "saddr" => one(Match::SourceKind(kind)),
                    "daddr" => one(Match::DestinationKind(kind)),
                    other => Err(self.refused(other)),
                }
            }
            (other, _) => Err(self.refused(other)),
        }
    }

    fn addresses(&mut self) -> Result<Vec<Vec<Match>>, Error> {
        let which = self.next()?;
        let inverted = self.inverted();
        let found = match (which, inverted) {
            ("saddr", false) => Match::Source,
            ("saddr", true) => Match::NotSource,
            ("daddr", false) => Match::Destination,
            ("daddr", true) => Match::NotDestination,
            (other, _) => return Err(self.refused(other)),
        };
        let first = self.next()?;
        let mut networks = Vec::new();
        if first == "{" {
            loop {
                match self.next()? {
                    "}" => break,
                    word => networks.push(self.network(word)?),
                }
            }
        } else {
            networks.push(self.network(first)?);
        }
        if networks.is_empty() {
            return Err(self.refused("{ }"));
        }
        let matches = networks.into_iter().map(|n| found(Addresses::Prefix(n)));
        // None of several addresses is one condition, any of them is several alternatives.
        Ok(if inverted {
            vec![matches.collect()]
        } else {
            matches.map(|one| vec![one]).collect()
        })
    }

    fn network(&self, word: &str) -> Result<IpNetwork, Error> {
        let network: IpNetwork = word.parse().map_err(|_| self.refused(word))?;
        if Family::of(&network) != self.family {
            return Err(self.refused(word));
        }
        Ok(netstate::route::masked(network))
    }

    fn device(&mut self) -> Result<DeviceName, Error> {
        let word = self.next()?;
        let name = word.trim_matches('"');
        let parse = |name: &str| name.parse().map_err(|_| self.refused(word));
        Ok(match name.strip_suffix('*') {
            Some(beginning) => DeviceName::BeginsWith(parse(beginning)?),
            None => DeviceName::Is(parse(name)?),
        })
    }

    /// `VALUE`, or `& MASK == VALUE`.
    fn mark(&mut self) -> Result<Match, Error> {
        let number = |reader: &mut Self| {
            let word = reader.next()?;
            let parsed = match word.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => word.parse(),
            };
            parsed.map_err(|_| reader.refused(word))
        };
        let mut mask = u32::MAX;
        if matches!(self.words.last(), Some(&("&" | "and"))) {
            self.words.pop();
            mask = number(self)?;
            self.expect("==")?;
        } else if self.words.last() == Some(&"==") {
            self.words.pop();
        }
        let value = number(self)?;
        Ok(Match::Mark(Mark { mask, value }))
    }

    fn inverted(&mut self) -> bool {
        let word = self.words.last().copied();
        if matches!(word, Some("!=" | "==")) {
            self.words.pop();
        }
        word == Some("!=")
    }

    fn next(&mut self) -> Result<&'a str, Error> {
        self.words.pop().ok_or_else(|| {
            let msg = format!(
                "{} ends in the middle of a condition; complete it",
                self.key
            );
            Error::config(msg)
        })
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Error> {
        match self.next()? {
            word if word == wanted => Ok(()),
            other => Err(self.refused(other)),
        }
    }

    fn refused(&self, word: &str) -> Error {
        let (key, ip) = match self.family {
            Family::V4 => (self.key, "ip"),
            Family::V6 => (self.key, "ip6"),
        };
        Error::config(format!(
            "{key}: {word:?} is not understood; give {ip} saddr|daddr, iifname|oifname, mark, or \
             fib saddr|daddr type"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, family: Family) -> Result<Vec<Vec<Match>>, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        parse("conditionsV4", &words, family).map_err(|error| error.msg)
    }

    fn prefix(text: &str) -> Addresses {
        Addresses::Prefix(text.parse().unwrap())
    }

    #[test]
    fn any_of_a_set_is_an_alternative_each_and_none_of_it_is_one() {
        let found = parsed(
            "ip saddr { 10.0.0.0/8, 192.0.2.1 } iifname != \"eth*\"",
            Family::V4,
        );
        let not_eth = Match::NotInDevice(DeviceName::BeginsWith("eth".parse().unwrap()));
        let either = |text| vec![Match::Source(prefix(text)), not_eth.clone()];
        assert_eq!(
            found.unwrap(),
            [either("10.0.0.0/8"), either("192.0.2.1/32")]
        );
        let found = parsed(
            "ip6 daddr != {fd00::1,fd00::2} meta mark & 0xff == 0x1",
            Family::V6,
        );
        let mark = Mark {
            mask: 0xff,
            value: 1,
        };
        let all = vec![
            Match::NotDestination(prefix("fd00::1/128")),
            Match::NotDestination(prefix("fd00::2/128")),
            Match::Mark(mark),
        ];
        assert_eq!(found.unwrap(), [all]);
        assert_eq!(
            parsed("fib saddr type local", Family::V4).unwrap(),
            [[Match::SourceKind(FibKind::Local)]]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let help = "give ip saddr|daddr, iifname|oifname, mark, or fib saddr|daddr type";
        for (text, word) in [
            ("ip saddr fd00::1", "fd00::1"),
            ("ip6 saddr fd00::1", "ip6"),
            ("tcp dport 80", "tcp"),
            ("ip saddr 10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
            ("mark & 1 = 1", "="),
        ] {
            let error = parsed(text, Family::V4).unwrap_err();
            let expected = format!("conditionsV4: {word:?} is not understood; {help}");
            assert_eq!(error, expected, "{text}");
        }
        let error = parsed("ip saddr {", Family::V4).unwrap_err();
        assert_eq!(
            error,
            "conditionsV4 ends in the middle of a condition; complete it"
        );
    }
}
