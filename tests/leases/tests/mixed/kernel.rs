//! What a daemon has made on a node, as an administrator's programs show it.

use serde_json::Value;

use crate::place::Place;

const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];

/// All of it, but what nobody but the kernel makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The devices: index, MAC, MTU and addresses.
    pub(crate) devices: Vec<String>,
    /// Routes through them.
    pub(crate) routes: Vec<String>,
    /// Their permanent neighbours and forwarding entries.
    pub(crate) peers: Vec<String>,
    /// flannel's chains and what leads to them.
    pub(crate) rules: Vec<String>,
}

// === impl State ===

impl State {
    pub(crate) fn of(place: &Place) -> Self {
        let mut state = Self {
            devices: Vec::new(),
            routes: Vec::new(),
            peers: Vec::new(),
            rules: Vec::new(),
        };
        let lines = |text: String| -> Vec<String> {
            let lines = text.lines().map(|line| line.trim().to_owned());
            lines.collect()
        };
        for device in DEVICES {
            let family = if device.contains("v6") { "-6" } else { "-4" };
            state.devices.push(shown(place, device));
            let routes = lines(place.ip(&format!("{family} route show dev {device}")));
            let made = |route: &String| !route.contains("proto kernel");
            state.routes.extend(routes.into_iter().filter(made));
            let neighbours = format!("neighbour show dev {device} nud permanent");
            state.peers.extend(lines(place.ip(&neighbours)));
            let entries = format!("bridge fdb show dev {device}");
            state.peers.extend(lines(place.tool(&entries)));
        }
        for program in ["iptables-save", "ip6tables-save"] {
            let rules = lines(place.tool(program));
            let flannels = rules.into_iter().filter(|rule| rule.contains("FLANNEL-"));
            // Without the counters of packets.
            state
                .rules
                .extend(flannels.map(|rule| match rule.split_once(" [") {
                    Some((rule, _)) => rule.to_owned(),
                    None => rule,
                }));
        }
        state.routes.sort();
        state.peers.sort();
        state
    }

    /// The same after towlined has succeeded flanneld: the routes are its own, and the rules of
    /// flannel's are gone.
    pub(crate) fn succeeded(&self) -> Self {
        let routes = self.routes.iter().map(|route| {
            let mut words: Vec<&str> = route.split(' ').collect();
            assert_eq!(words[1], "via", "{route}");
            words.splice(3..3, ["proto", "84"]);
            words.join(" ")
        });
        Self {
            routes: routes.collect(),
            rules: Vec::new(),
            ..self.clone()
        }
    }
}

fn shown(place: &Place, device: &str) -> String {
    let text = place.ip(&format!("-j addr show dev {device}"));
    let shown: Value = serde_json::from_str(&text).unwrap();
    let shown = &shown[0];
    let addresses = shown["addr_info"].as_array().unwrap().iter();
    let own = addresses.filter(|one| one["scope"] == "global");
    let addresses: Vec<String> = own
        .map(|one| format!("{}/{}", one["local"], one["prefixlen"]))
        .collect();
    format!(
        "{} {device} {} mtu {} {}",
        shown["ifindex"],
        shown["address"],
        shown["mtu"],
        addresses.join(" ")
    )
}
