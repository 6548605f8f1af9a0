//! The peers without Towline: two hosts and a router between them, by veth, in namespaces of their
//! own; optionally with Services as kube-proxy's nftables mode does them (a verdict map and DNAT).

use std::fmt::Write as _;

use anyhow::Context;

use crate::command::{output, run};

/// Address of the serving host.
pub(crate) const SERVER: &str = "198.18.2.2";
/// Virtual address of the first Service.
pub(crate) const VIP: &str = "198.19.0.1";

/// Two hosts and a router; removed on drop.
pub(crate) struct Routed {
    name: String,
}

impl Routed {
    /// Makes `towline-bench-<name>-{a,r,b}`, clearing what a killed run left.
    ///
    /// # Errors
    /// When a namespace, link or rule cannot be made.
    pub(crate) fn new(name: &str, services: usize) -> anyhow::Result<Self> {
        let routed = Self {
            name: name.to_owned(),
        };
        routed.remove();
        routed
            .build()
            .with_context(|| format!("building the plain topology {name}"))?;
        if services > 0 {
            output(
                &["ip", "netns", "exec", &routed.host('r'), "nft", "-f", "-"],
                Some(&dnat(services)),
            )?;
        }
        Ok(routed)
    }

    fn host(&self, which: char) -> String {
        format!("towline-bench-{}-{which}", self.name)
    }

    /// The words that run a command on the client.
    pub(crate) fn client(&self) -> Vec<String> {
        self.inside('a')
    }

    /// The words that run a command on the server.
    pub(crate) fn server(&self) -> Vec<String> {
        self.inside('b')
    }

    fn inside(&self, which: char) -> Vec<String> {
        ["ip", "netns", "exec", &self.host(which)]
            .map(str::to_owned)
            .to_vec()
    }

    fn build(&self) -> anyhow::Result<()> {
        let router = self.host('r');
        run(&format!("ip netns add {router}"))?;
        for (number, which) in [(1, 'a'), (2, 'b')] {
            let host = self.host(which);
            run(&format!("ip netns add {host}"))?;
            run(&format!(
                "ip -n {router} link add to-{which} type veth peer name eth0 netns {host}"
            ))?;
            run(&format!(
                "ip -n {router} addr add 198.18.{number}.1/24 dev to-{which}"
            ))?;
            run(&format!("ip -n {router} link set to-{which} up"))?;
            run(&format!(
                "ip -n {host} addr add 198.18.{number}.2/24 dev eth0"
            ))?;
            run(&format!("ip -n {host} link set lo up"))?;
            run(&format!("ip -n {host} link set eth0 up"))?;
            run(&format!(
                "ip -n {host} route add default via 198.18.{number}.1"
            ))?;
        }
        run(&format!(
            "ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"
        ))?;
        Ok(())
    }

    fn remove(&self) {
        for which in ['a', 'b', 'r'] {
            // Absent unless a run was killed.
            let _ = run(&format!("ip netns delete {}", self.host(which)));
        }
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.remove();
    }
}

/// `services` virtual addresses, each answered by the one server, port 7001.
fn dnat(services: usize) -> String {
    let mut text = String::from(
        "table ip services {\n map vips {\n  type ipv4_addr . inet_proto . inet_service : verdict\n",
    );
    text.push_str("  elements = {\n");
    for number in 1..=services {
        let (high, low) = (number / 256, number % 256);
        let _ = writeln!(text, "   198.19.{high}.{low} . tcp . 80 : goto one,");
    }
    text.push_str("  }\n }\n chain one { meta l4proto tcp dnat to 198.18.2.2:7001\n }\n");
    text.push_str(" chain pre { type nat hook prerouting priority dstnat; ");
    text.push_str("ip daddr . meta l4proto . th dport vmap @vips\n }\n");
    text.push_str(" chain post { type nat hook postrouting priority srcnat;\n }\n}\n");
    text
}
