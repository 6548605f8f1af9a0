//! flanneld's rules in iptables, after `pkg/trafficmngr/iptables`: masquerade and forwarding, looked
//! at one by one, and written anew all together when one is missing.

use anyhow::Result;

use super::host::{run_with, succeeds};

/// The rules of one family.
#[derive(Clone, Debug)]
pub struct Rules {
    program: &'static str,
    masquerade: Vec<Rule>,
    forward: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    chain: &'static str,
    spec: Vec<String>,
}

// === impl Rules ===

impl Rules {
    /// What `--ip-masq` and `--iptables-forward-rules` ask for, of IPv4 or else IPv6.
    #[must_use]
    pub fn new(v4: bool, network: &str, pods: &str) -> Self {
        let (program, multicast) = match v4 {
            true => ("iptables", "224.0.0.0/4"),
            false => ("ip6tables", "ff00::/8"),
        };
        let masq =
            |chain, spec: &[&str], target: &[&str]| Rule::new(chain, spec, "flanneld masq", target);
        let (own, leave) = ("FLANNEL-POSTRTG", ["MASQUERADE", "--random-fully"]);
        let mark = ["-m", "mark", "--mark", "0x4000/0x4000"];
        let masquerade = vec![
            masq("POSTROUTING", &[], &[own]),
            masq(own, &mark, &["RETURN"]),
            masq(own, &["-s", pods, "-d", network], &["RETURN"]),
            masq(own, &["-s", network, "-d", pods], &["RETURN"]),
            masq(own, &["!", "-s", network, "-d", pods], &["RETURN"]),
            masq(own, &["-s", network, "!", "-d", multicast], &leave),
            masq(own, &["!", "-s", network, "-d", network], &leave),
        ];
        let pass =
            |chain, spec: &[&str], target| Rule::new(chain, spec, "flanneld forward", &[target]);
        let forward = vec![
            pass("FORWARD", &[], "FLANNEL-FWD"),
            pass("FLANNEL-FWD", &["-s", network], "ACCEPT"),
            pass("FLANNEL-FWD", &["-d", network], "ACCEPT"),
        ];
        Self {
            program,
            masquerade,
            forward,
        }
    }

    /// `ensureIPTables`, every `--iptables-resync` seconds.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn ensure(&self) -> Result<()> {
        self.ensure_table("nat", "FLANNEL-POSTRTG", &self.masquerade)?;
        self.ensure_table("filter", "FLANNEL-FWD", &self.forward)
    }

    fn ensure_table(&self, table: &str, own: &str, rules: &[Rule]) -> Result<()> {
        // It is there already, most of the time.
        succeeds(self.program, &["-w", "-t", table, "-N", own]);
        let exists: Vec<bool> = rules
            .iter()
            .map(|rule| {
                let mut all = vec!["-w", "-t", table, "-C", rule.chain];
                all.extend(rule.spec.iter().map(String::as_str));
                succeeds(self.program, &all)
            })
            .collect();
        if !exists.contains(&false) {
            return Ok(());
        }
        let mut text = format!("*{table}\n");
        for (rule, _) in rules.iter().zip(exists).filter(|(_, exists)| *exists) {
            text += &rule.line("-D");
        }
        for rule in rules {
            text += &rule.line("-A");
        }
        text += "COMMIT\n";
        let restore = format!("{}-restore", self.program);
        run_with(&restore, &["-w", "--noflush"], &text)?;
        Ok(())
    }
}

// === impl Rule ===

impl Rule {
    fn new(chain: &'static str, spec: &[&str], comment: &str, target: &[&str]) -> Self {
        let comment = ["-m", "comment", "--comment", comment, "-j"];
        let spec = [spec, &comment, target].concat();
        Self {
            chain,
            spec: spec.into_iter().map(str::to_owned).collect(),
        }
    }

    fn line(&self, action: &str) -> String {
        let words = self.spec.iter();
        let words = words.map(|word| match word.contains(' ') {
            true => format!("\"{word}\""),
            false => word.clone(),
        });
        let words: Vec<String> = words.collect();
        format!("{action} {} {}\n", self.chain, words.join(" "))
    }
}
