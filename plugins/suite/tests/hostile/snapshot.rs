//! What the kernel has, to be compared.

use std::collections::BTreeSet;
use std::process::Command;

use hostnet::Netlink;
use netstate::QdiscAt;

use crate::node::{Pod, shown_routes};

/// What the kernel has, one thing a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) host: BTreeSet<String>,
    pub(crate) pod: BTreeSet<String>,
    pub(crate) other: BTreeSet<String>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Of the thread's namespace as host, and of both pods.
    pub(crate) fn take(pod: &Pod, other: &Pod) -> Self {
        let mut host = seen(&mut Netlink::open().unwrap());
        let rules = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        host.extend(
            String::from_utf8_lossy(&rules.stdout)
                .lines()
                .map(str::to_owned),
        );
        Self {
            host,
            pod: seen(&mut pod.netlink()),
            other: seen(&mut other.netlink()),
        }
    }

    pub(crate) fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (before, after) in [
            (&self.host, &after.host),
            (&self.pod, &after.pod),
            (&self.other, &after.other),
        ] {
            for line in before.difference(after) {
                text += &format!("\n  - {line}");
            }
            for line in after.difference(before) {
                text += &format!("\n  + {line}");
            }
        }
        text
    }
}

/// Links with what hangs at them, addresses and routes.
fn seen(netlink: &mut Netlink) -> BTreeSet<String> {
    let mut lines: BTreeSet<String> = shown_routes(netlink).into_iter().collect();
    for mut link in netlink.links().unwrap() {
        // Up once it was in use, for good.
        if link.name.as_str() == "lo" {
            continue;
        }
        // Follows the carrier, some time later.
        link.running = false;
        for at in [QdiscAt::Root, QdiscAt::Ingress] {
            let qdisc = netlink.qdisc(link.index, at).unwrap();
            if let Some(qdisc) = qdisc.filter(|qdisc| qdisc.handle != 0) {
                lines.insert(format!("{} {qdisc:?}", link.name));
            }
        }
        for filter in netlink.ingress_filters(link.index).unwrap() {
            lines.insert(format!("{} {filter:?}", link.name));
        }
        for address in netlink.addresses(&link.name).unwrap_or_default() {
            let text = format!("{} {}", link.name, address.ip);
            // The kernel's own come and go.
            if !text.contains(" fe80:") {
                lines.insert(text);
            }
        }
        lines.insert(format!("{link:?}"));
    }
    lines
}
