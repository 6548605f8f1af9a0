//! Rules of the iptables programs as values: what `iptables-save` prints, what `iptables-restore`
//! is given, and how words are quoted between them.
//!
//! A rule is compared word by word, so write it as `iptables-save` prints it: `-s`, `-d`, `-i`,
//! `-o`, `-p` in this order and addresses with a prefix length, then matches, then the target.

mod owned;
mod saved;

use std::fmt;
use std::fmt::Write as _;

pub use owned::Owned;
pub use saved::{Chain, Saved};

/// One rule: the words after `-A CHAIN`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rule(Vec<String>);

/// Changes to one table, made by one `iptables-restore` in this order, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    table: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    command: &'static str,
    chain: String,
    /// What stands between the chain's name and the rule.
    place: String,
    rule: Rule,
}

/// A word that cannot be written into a line for `iptables-restore`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} holds a line break or a zero byte")]
pub struct Unwritable(pub String);

// === impl Rule ===

impl Rule {
    /// The words of `text`, quoted as `iptables-save` quotes.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(words(text))
    }

    /// The same rule with `-m comment --comment TEXT` at its end.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.0
            .extend(["-m", "comment", "--comment"].map(str::to_owned));
        self.0.push(text.into());
        self
    }

    /// The same rule with `words` at its end.
    #[must_use]
    pub fn and(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.extend(words.into_iter().map(Into::into));
        self
    }

    /// The same rule with `-j TARGET` at its end.
    #[must_use]
    pub fn jump(mut self, target: &str) -> Self {
        self.0.extend(["-j".to_owned(), target.to_owned()]);
        self
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// The word after `flag`, such as `--comment`.
    #[must_use]
    pub fn value(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == flag)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// The chain or target that it jumps to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.value("-j").or_else(|| self.value("-g"))
    }
}

/// Quoted as `iptables-restore` reads it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char(' ')?;
            }
            let special =
                |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '\'');
            if !word.is_empty() && !word.contains(special) {
                f.write_str(word)?;
                continue;
            }
            f.write_char('"')?;
            for c in word.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_char('\\')?;
                }
                f.write_char(c)?;
            }
            f.write_char('"')?;
        }
        Ok(())
    }
}

// === impl Batch ===

impl Batch {
    /// No changes to `table`, such as `nat`.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        let (table, lines) = (table.into(), Vec::new());
        Self { table, lines }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Makes a chain; fails if it is there.
    pub fn new_chain(&mut self, chain: &str) -> &mut Self {
        self.line("-N", chain, String::new(), Rule::default())
    }

    /// Makes a chain, or empties it where it is there.
    pub fn clear_chain(&mut self, chain: &str) -> &mut Self {
        self.line(":", chain, String::new(), Rule::default())
    }

    /// Removes all rules of a chain, which must be there.
    pub fn flush_chain(&mut self, chain: &str) -> &mut Self {
        self.line("-F", chain, String::new(), Rule::default())
    }

    /// Removes a chain, which must be there, empty, and the target of no rule.
    pub fn delete_chain(&mut self, chain: &str) -> &mut Self {
        self.line("-X", chain, String::new(), Rule::default())
    }

    /// Adds a rule at the end of a chain.
    pub fn append(&mut self, chain: &str, rule: Rule) -> &mut Self {
        self.line("-A", chain, String::new(), rule)
    }

    /// Adds a rule before the one at `position`, the first being 1.
    pub fn insert(&mut self, chain: &str, position: usize, rule: Rule) -> &mut Self {
        self.line("-I", chain, position.to_string(), rule)
    }

    /// Removes the first rule of a chain with exactly these words, which must be there.
    pub fn delete(&mut self, chain: &str, rule: Rule) -> &mut Self {
        self.line("-D", chain, String::new(), rule)
    }

    /// Makes a chain unless `saved` has it.
    pub fn ensure_chain(&mut self, saved: &Saved, chain: &str) -> &mut Self {
        if saved.chains.contains_key(chain) {
            return self;
        }
        self.new_chain(chain)
    }

    /// Adds a rule at the end of a chain unless `saved` has it there.
    pub fn ensure_last(&mut self, saved: &Saved, chain: &str, rule: Rule) -> &mut Self {
        if saved.has(chain, &rule) {
            return self;
        }
        self.append(chain, rule)
    }

    /// Adds a rule at the beginning of a chain unless `saved` has it there, wherever.
    pub fn ensure_first(&mut self, saved: &Saved, chain: &str, rule: Rule) -> &mut Self {
        if saved.has(chain, &rule) {
            return self;
        }
        self.insert(chain, 1, rule)
    }

    /// Removes the rules of a chain that `is_stale` says so of.
    pub fn delete_where(
        &mut self,
        saved: &Saved,
        chain: &str,
        is_stale: impl Fn(&Rule) -> bool,
    ) -> &mut Self {
        for rule in saved.rules(chain).iter().filter(|rule| is_stale(rule)) {
            self.delete(chain, rule.clone());
        }
        self
    }

    /// The input of `iptables-restore --noflush`.
    ///
    /// # Errors
    /// When a word would end its line.
    pub fn render(&self) -> Result<String, Unwritable> {
        let mut text = format!("*{}\n", self.table);
        for line in &self.lines {
            let names = [&self.table, &line.chain];
            let mut all = names.into_iter().chain(&line.rule.0);
            if let Some(bad) = all.find(|word| word.contains(['\n', '\r', '\0'])) {
                return Err(Unwritable(bad.clone()));
            }
            // Writing to a String does not fail.
            let _ = match line.command {
                ":" => writeln!(text, ":{} - [0:0]", line.chain),
                command => write!(text, "{command} {}", line.chain).and_then(|()| {
                    for part in [line.place.clone(), line.rule.to_string()] {
                        if !part.is_empty() {
                            write!(text, " {part}")?;
                        }
                    }
                    writeln!(text)
                }),
            };
        }
        text.push_str("COMMIT\n");
        Ok(text)
    }

    fn line(&mut self, command: &'static str, chain: &str, place: String, rule: Rule) -> &mut Self {
        let chain = chain.to_owned();
        self.lines.push(Line {
            command,
            chain,
            place,
            rule,
        });
        self
    }
}

/// The words of a line: separated by white space, `"` begins and ends what is taken as it is, and
/// within it `\` takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted && !escaped && c == '\\' {
            escaped = true;
        } else if c == '"' && !escaped {
            quoted = !quoted;
            word.get_or_insert_default();
        } else if c.is_whitespace() && !quoted {
            words.extend(word.take());
        } else {
            escaped = false;
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAVED: &str = r#"# Generated by iptables-nft-save v1.8.9 (nf_tables)
*filter
:FORWARD DROP [0:0]
-A FORWARD -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [1:60]
:CNI-a - [0:0]
-A POSTROUTING -s 10.0.0.1/32 -m comment --comment "name: \"a\" id: \"b\"" -j CNI-a
-A CNI-a ! -d 224.0.0.0/4 -m comment --comment plain -j MASQUERADE
COMMIT
# Warning: iptables-legacy tables present, use iptables-legacy-save to see them
"#;

    #[test]
    fn a_saved_table_is_read_whole() {
        let saved = Saved::parse(SAVED, "nat");
        let jump = Rule::of("-s 10.0.0.1/32")
            .comment("name: \"a\" id: \"b\"")
            .jump("CNI-a");
        assert_eq!(
            saved.chains.keys().collect::<Vec<_>>(),
            ["CNI-a", "POSTROUTING"]
        );
        assert_eq!(saved.chains["POSTROUTING"].policy, "ACCEPT");
        assert_eq!(saved.rules("POSTROUTING"), [jump]);
        assert_eq!(saved.rules("CNI-a")[0].value("--comment"), Some("plain"));
        assert_eq!(saved.rules("absent"), []);
        assert!(saved.is_target("CNI-a") && !saved.is_target("POSTROUTING"));
        assert_eq!(Saved::parse(SAVED, "mangle"), Saved::default());
    }

    #[test]
    fn a_batch_is_written_in_order_and_makes_only_what_is_missing() {
        let saved = Saved::parse(SAVED, "nat");
        let mut batch = Batch::new("nat");
        batch
            .ensure_chain(&saved, "CNI-a")
            .ensure_chain(&saved, "CNI-b")
            .ensure_last(&saved, "POSTROUTING", saved.rules("POSTROUTING")[0].clone())
            .ensure_first(&saved, "POSTROUTING", Rule::of("").jump("CNI-b"))
            .append("CNI-b", Rule::of("! -d ff00::/8").comment("it's").jump("X"))
            .delete_where(&saved, "CNI-a", |rule| rule.target() == Some("MASQUERADE"))
            .clear_chain("CNI-c")
            .flush_chain("CNI-a")
            .delete_chain("CNI-a");
        assert_eq!(
            batch.render().unwrap(),
            r#"*nat
-N CNI-b
-I POSTROUTING 1 -j CNI-b
-A CNI-b ! -d ff00::/8 -m comment --comment "it's" -j X
-D CNI-a ! -d 224.0.0.0/4 -m comment --comment plain -j MASQUERADE
:CNI-c - [0:0]
-F CNI-a
-X CNI-a
COMMIT
"#
        );
    }

    #[test]
    fn a_word_that_would_end_its_line_is_refused() {
        let mut batch = Batch::new("nat");
        batch.append("A", Rule::of("").comment("x\n-F POSTROUTING"));
        assert!(batch.render().is_err());
    }

    proptest! {
        #[test]
        fn quoting_is_read_back(texts in prop::collection::vec("[^\n\r\0]{0,20}", 0..5)) {
            let rule = Rule(texts);
            prop_assert_eq!(Rule::of(&rule.to_string()), rule);
        }
    }
}
