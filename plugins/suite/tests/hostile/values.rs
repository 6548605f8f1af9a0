//! What is put where something else belongs.

use serde_json::{Value, json};

/// Texts for names, paths, addresses, numbers and whatever else is text.
pub(crate) const TEXTS: &[&str] = &[
    "",
    ".",
    "..",
    "/",
    "../../../../../../hostile",
    "/hostile",
    "/run/../hostile",
    "a/b",
    "a\0b",
    "-rf",
    "a b",
    "a\nb",
    "$(touch /hostile)",
    "`touch /hostile`",
    "\"; drop table inet x; \"",
    "%d",
    "eth%d",
    "%s%n",
    "日本語",
    "e\u{301}\u{202e}",
    "lo",
    "br0",
    "all",
    "default",
    "eth0",
    "abcdefghijklmnop",
    "0",
    "-1",
    "4294967296",
    "10.1.0.1",
    "10.1.0.0/33",
    "10.1.0.0/0",
    "10.1.0.255/24",
    "255.255.255.255/32",
    "0.0.0.0/0",
    "224.0.0.1/24",
    "::/0",
    "fd00::/129",
    "fe80::1%eth0",
    "::ffff:10.0.0.1/120",
    "00:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "02:00:00:00:00",
    "1.1.0",
    "0.1.0",
    "0.2.0",
    "0.3.1",
    "0.4.0",
    "1.0.0",
    "9.9.9",
    "not.a.version",
    "iptables",
    "nftables",
    "tcp",
    "true",
    "null",
];

/// Names of plugins, of this program and none.
pub(crate) fn plugin_names() -> Vec<String> {
    let own = towline_suite::PLUGINS.iter().map(|plugin| plugin.name());
    let others = ["towline-cni", "missing", "../bin/ptp", "/bin/sh", "sh", "."];
    own.chain(others).map(str::to_owned).collect()
}

/// A value of any form, chosen by `pick`.
pub(crate) fn value(pick: usize) -> Value {
    let others = [
        Value::Null,
        true.into(),
        false.into(),
        0.into(),
        1.into(),
        (-1).into(),
        1.5.into(),
        1e308.into(),
        4095.into(),
        65536.into(),
        u32::MAX.into(),
        i64::MIN.into(),
        u64::MAX.into(),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!([{}, {}]),
        json!({ "": "" }),
        json!({ "a": { "b": { "c": [] } } }),
        json!(["10.1.0.0/24", "10.1.0.0/24"]),
        "a".repeat(5000).into(),
        "ä".repeat(300).into(),
        json!(vec![0; 2000]),
        nested(100),
    ];
    let pick = pick % (others.len() + TEXTS.len());
    match others.get(pick) {
        Some(value) => value.clone(),
        None => TEXTS[pick - others.len()].into(),
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| json!([inner]))
}
