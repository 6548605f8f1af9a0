//! What can be seen of a call and of the kernel afterwards, as lines of text in which everything
//! that changes from run to run has one spelling.

use std::fs;

use serde_json::Value;

use crate::node::{Node, Pod};
use crate::traffic::inside;
use crate::world::{Answer, run};

/// What was seen, in order.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) Vec<String>);

impl Seen {
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.0.push(plain(text.as_ref()));
    }

    /// How the call ended; results are not shown.
    pub(crate) fn outcome(&mut self, what: &str, answer: &Answer) {
        self.line(format!("{what}: {}", outcome(answer)));
    }

    /// How the call ended, and its result.
    pub(crate) fn result(&mut self, what: &str, answer: &Answer) {
        self.outcome(what, answer);
        if !answer.success || answer.stdout.is_empty() {
            return;
        }
        for (key, value) in answer.json().as_object().unwrap() {
            match value {
                Value::Array(items) if !items.is_empty() => {
                    for (at, item) in items.iter().enumerate() {
                        self.line(format!("    {key}[{at}] {item}"));
                    }
                }
                other => self.line(format!("    {key} {other}")),
            }
        }
    }

    /// Everything there is on the node and in the pods.
    pub(crate) fn state(&mut self, node: &Node, pods: &[&Pod]) {
        for line in links("").into_iter().chain(routes("")) {
            self.line(format!("    {line}"));
        }
        for line in rules().into_iter().chain(reservations(node)) {
            self.line(format!("    {line}"));
        }
        for pod in pods.iter().filter(|pod| pod.path.exists()) {
            let of_pod = inside(pod, || {
                let shown = format!("{}: ", pod.id);
                let mut lines = links(&shown);
                lines.extend(routes(&shown));
                lines
            });
            for line in of_pod {
                self.line(format!("    {line}"));
            }
        }
    }

    /// What a detached pod may have left: links of the node but bridges, rules, reservations.
    pub(crate) fn leftovers(&mut self, node: &Node) {
        let left = leftovers(node);
        if left.is_empty() {
            self.line("left behind: nothing");
        }
        for line in left {
            self.line(format!("left behind: {line}"));
        }
    }
}

/// Waits until the kernel is done with the devices of namespaces that are gone, which it removes
/// when it finds the time: until no more than `living` veth are left.
pub(crate) fn settle(living: usize) {
    let veth = |link: &Value| link["linkinfo"]["info_kind"] == "veth" && link["ifname"] != "out0";
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while json(&["-d", "link", "show"])
        .iter()
        .filter(|link| veth(link))
        .count()
        > living
    {
        assert!(
            std::time::Instant::now() < patience,
            "a veth outlives its namespace"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// How a call ended. That every answer of ours is one document with a version is asserted here.
pub(crate) fn outcome(answer: &Answer) -> String {
    if answer.success {
        return "ok".to_owned();
    }
    let documents = serde_json::Deserializer::from_str(&answer.stdout).into_iter::<Value>();
    let documents: Vec<Value> = documents.map_while(Result::ok).collect();
    match documents.as_slice() {
        [] if answer.stderr.contains("panic") => "panic".to_owned(),
        [] => "failure without a document".to_owned(),
        [one] => format!("error {}", one["code"]),
        more => format!(
            "error {} in {} documents",
            more[more.len() - 1]["code"],
            more.len()
        ),
    }
}

/// What a detached pod may have left, as [`Seen::leftovers`] shows it.
pub(crate) fn leftovers(node: &Node) -> Vec<String> {
    let mut left: Vec<String> = json(&["-d", "link", "show"])
        .iter()
        .filter(|link| link["linkinfo"]["info_kind"] != "bridge")
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .filter(|name| name != "lo" && name != "out0")
        .map(|name| format!("link {name}"))
        .collect();
    let mut tables: Vec<(String, usize)> = vec![];
    for rule in rules() {
        let Some(rule) = rule.strip_prefix("nft ") else {
            left.push(rule);
            continue;
        };
        let (table, text) = rule.split_once(": ").unwrap_or((rule, ""));
        match tables.last_mut().filter(|(last, _)| last == table) {
            Some((_, count)) if !text.contains(['{', ';']) => *count += 1,
            Some(_) => {}
            None => tables.push((table.to_owned(), 0)),
        }
    }
    let shown = |(table, count): &(String, usize)| format!("nft table {table}, {count} rules");
    left.extend(tables.iter().map(shown));
    left.extend(reservations(node));
    left.iter().map(|line| plain(line)).collect()
}

fn json(arguments: &[&str]) -> Vec<Value> {
    let text = run("ip", &[&["-j"], arguments].concat());
    // `ip` prints nothing at all where there is nothing to show.
    match text.trim() {
        "" => vec![],
        text => serde_json::from_str(text).unwrap(),
    }
}

fn links(of: &str) -> Vec<String> {
    let mut lines = vec![];
    for link in json(&["-d", "link", "show"]) {
        let name = link["ifname"].as_str().unwrap();
        if name == "lo" || name == "out0" {
            continue;
        }
        let info = &link["linkinfo"];
        let mut text = format!(
            "{of}link {name} {}",
            info["info_kind"].as_str().unwrap_or("?")
        );
        text += &format!(" mtu {}", link["mtu"]);
        for flag in link["flags"].as_array().unwrap() {
            if matches!(flag.as_str(), Some("UP" | "PROMISC" | "ALLMULTI")) {
                text += &format!(" {}", flag.as_str().unwrap().to_lowercase());
            }
        }
        if let Some(master) = link["master"].as_str() {
            text += &format!(" port of {master}");
        }
        for flag in ["hairpin", "isolated"] {
            if info["info_slave_data"][flag] == true {
                text += &format!(" {flag}");
            }
        }
        if let Some(mode) = info["info_data"]["mode"].as_str() {
            text += &format!(" mode {mode}");
        }
        lines.push(text);
        lines.extend(addresses(of, name));
    }
    lines.sort();
    lines
}

fn addresses(of: &str, name: &str) -> Vec<String> {
    let mut lines = vec![];
    for entry in json(&["addr", "show", "dev", name]) {
        for address in entry["addr_info"].as_array().into_iter().flatten() {
            if address["scope"] == "link" {
                continue;
            }
            let mut text = format!("{of}address {name}");
            let (ip, length) = (&address["local"], &address["prefixlen"]);
            text += &format!(" {}/{length}", ip.as_str().unwrap());
            // On the node this depends on how fast one looks.
            if !of.is_empty() && address["tentative"] == true {
                text += " tentative";
            }
            lines.push(text);
        }
    }
    lines
}

fn routes(of: &str) -> Vec<String> {
    let mut lines = vec![];
    for family in ["-4", "-6"] {
        for route in json(&[family, "route", "show", "table", "all"]) {
            let local = matches!(
                route["type"].as_str(),
                Some("local" | "broadcast" | "multicast" | "anycast")
            ) || route["table"] == "local";
            let destination = route["dst"].as_str().unwrap();
            if local || destination.starts_with("fe80") || route["dev"] == "out0" {
                continue;
            }
            let mut text = format!("{of}route {family} {destination}");
            for key in ["gateway", "dev", "table", "scope", "prefsrc", "metric"] {
                match &route[key] {
                    Value::Null => {}
                    Value::String(value) => text += &format!(" {key} {value}"),
                    value => text += &format!(" {key} {value}"),
                }
            }
            lines.push(text);
        }
    }
    lines.sort();
    lines
}

/// Every rule of nftables and of both iptables, and every queue that shapes.
pub(crate) fn rules() -> Vec<String> {
    let mut lines = vec![];
    for program in ["iptables", "ip6tables"] {
        let mut table = String::new();
        for line in run(&format!("{program}-save"), &[]).lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            }
            let own_chain = line.starts_with(':') && line.contains(" - ");
            if own_chain || line.starts_with("-A") {
                let line = line.trim_end_matches(" [0:0]").trim_end_matches(" -");
                lines.push(format!("{program} {table} {line}"));
            }
        }
    }
    lines.extend(nft_rules());
    for line in run("tc", &["qdisc", "show"]).lines() {
        if ["tbf", "ingress", "clsact"].contains(&line.split(' ').nth(1).unwrap_or_default()) {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            lines.push(words.join(" "));
        }
    }
    lines
}

/// What nftables holds besides the tables of iptables.
fn nft_rules() -> Vec<String> {
    let (mut lines, mut at, mut foreign) = (vec![], String::new(), false);
    for line in run("nft", &["-s", "list", "ruleset"]).lines() {
        let text = line.trim();
        let words: Vec<&str> = text.split(' ').collect();
        if words[0] == "table" {
            let iptables = ["nat", "filter", "mangle", "raw", "security"];
            foreign = matches!(words[1], "ip" | "ip6") && iptables.contains(&words[2]);
            at = format!("nft {} {}", words[1], words[2]);
            if !foreign {
                lines.push(at.clone());
            }
        } else if !foreign && !text.is_empty() && text != "}" && words[0] != "#" {
            lines.push(format!("{at}: {text}"));
        }
    }
    lines
}

/// Addresses that host-local has given, and to whom.
pub(crate) fn reservations(node: &Node) -> Vec<String> {
    let mut lines = vec![];
    for network in fs::read_dir(node.path("state")).unwrap() {
        let network = network.unwrap().path();
        for entry in fs::read_dir(&network).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.parse::<std::net::IpAddr>().is_ok() {
                let owner = fs::read_to_string(&path).unwrap().replace("\r\n", " ");
                lines.push(format!("reserved {name} for {owner}"));
            }
        }
    }
    lines.sort();
    lines
}

/// `text` with one spelling for made-up names and addresses.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(mac) = rest.get(..17).filter(|window| is_mac(window)) {
            let fixed = mac.starts_with("02:00:00") || mac == "00:00:00:00:00:00";
            out += if fixed { mac } else { "MAC" };
            rest = &rest[17..];
        } else if first.is_ascii_alphanumeric() {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            out += &word(&rest[..end]);
            rest = &rest[end..];
        } else if let Some(path) = rest.strip_prefix("/tmp/") {
            // A pod's namespace or a folder of the node.
            let end = path.find(|c: char| "\" ".contains(c)).unwrap_or(path.len());
            out += path[..end].rsplit('/').next().unwrap_or_default();
            rest = &path[end..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn is_mac(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match at % 3 {
        2 => *byte == b':',
        _ => byte.is_ascii_hexdigit(),
    })
}

fn word(text: &str) -> String {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for prefix in ["veth", "bwp"] {
        if let Some(rest) = text.strip_prefix(prefix)
            && rest.len() >= 8
            && hex(rest)
        {
            return format!("{prefix}#");
        }
    }
    if text.len() >= 16 && hex(text) {
        return "#".to_owned();
    }
    text.to_owned()
}
