//! `towline node adopt`: what flanneld has left on this node, and what towlined does with each.
//!
//! It only looks, and needs no daemon: it is meant to be read before towlined takes over.

use std::fs;
use std::path::Path;

use hostnet::{Netlink, PROTOCOL_BOOT, PROTOCOL_TOWLINE, iptables};
use netstate::nft::{Family, TableFamily};
use serde_json::{Value, json};

use crate::table::{Column, cell, render};

const FOUND: &[Column] = &[
    ("WHAT", "/what"),
    ("FOUND", "/found"),
    ("TOWLINED", "/towlined"),
];

/// Where flannel's CNI plugin notes what it has delegated.
const PLUGIN_STATE: &str = "/var/lib/cni/flannel";

/// Everything there is, with what to do next.
///
/// # Errors
/// When the kernel refuses to tell.
pub(crate) fn report(subnet_file: &Path, leases: Option<&Value>) -> anyhow::Result<Value> {
    let flanneld = processes("flanneld");
    let mut found = Vec::new();
    if !flanneld.is_empty() {
        found.push(json!({
            "what": "process", "found": flanneld,
            "towlined": "must not run beside it: stop flanneld first, its kernel state stays",
        }));
    }
    let mut netlink = Netlink::open()?;
    found.extend(devices(&mut netlink)?);
    found.extend(routes(&mut netlink)?);
    found.extend(subnet_env(subnet_file));
    found.push(lease(leases));
    found.extend(rules());
    found.extend(plugin_state());
    let running = leases.is_some();
    Ok(json!({
        "found": found,
        "flanneldRuns": !flanneld.is_empty(),
        "towlinedRuns": running,
        "next": next(!flanneld.is_empty(), running),
    }))
}

/// The report as a table, and the next step.
pub(crate) fn text(report: &Value) -> String {
    let rows = report["found"].as_array().map(Vec::as_slice);
    let table = render(FOUND, rows.unwrap_or_default());
    format!("{table}\nNext: {}\n", cell(&report["next"]))
}

fn next(flanneld: bool, towlined: bool) -> &'static str {
    match (flanneld, towlined) {
        (true, true) => {
            "two daemons keep one overlay: stop flanneld now (docs/migrate-from-flannel.md)"
        }
        (true, false) => {
            "stop flanneld on this node, then start towlined with the same configuration (docs/migrate-from-flannel.md)"
        }
        (false, false) => {
            "start towlined with flanneld's configuration: same store, prefix, network, backend and interface"
        }
        (false, true) => "look at `towline status` and `towline diff`; nothing else is to be done",
    }
}

fn processes(name: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    pids.filter(is_it).collect()
}

fn devices(netlink: &mut Netlink) -> hostnet::Result<Vec<Value>> {
    let links = netlink.links()?;
    let name_of = |index: u32| {
        let mut links = links.iter();
        links
            .find(|link| link.index == index)
            .map(|link| link.name.to_string())
    };
    let ours = links
        .iter()
        .filter(|link| link.name.as_str().starts_with("flannel"));
    let row = |link: &hostnet::LinkInfo| {
        let mut said = vec![link.name.to_string(), link.kind.clone()];
        if let Some(vxlan) = &link.vxlan {
            said.push(format!("VNI {} port {}", vxlan.vni, vxlan.port));
            said.extend(vxlan.local.map(|local| format!("local {local}")));
            let below = link.vxlan_device.and_then(name_of);
            said.extend(below.map(|below| format!("dev {below}")));
        }
        said.extend(link.mac.map(|mac| format!("MAC {mac}")));
        said.extend(link.mtu.map(|mtu| format!("MTU {}", mtu.get())));
        let does = match &link.vxlan {
            Some(_) => {
                "keeps it, with its MAC, if VNI, port, local address and interface are those of the configuration; else makes it anew under the same MAC"
            }
            None => "keeps it if it is of the configured backend, else leaves it alone",
        };
        json!({ "what": "device", "found": said.join(" "), "towlined": does })
    };
    Ok(ours.map(row).collect())
}

/// Routes through an overlay device, and those that flanneld's `host-gw` would make.
fn routes(netlink: &mut Netlink) -> hostnet::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (protocol, what, does) in [
        (
            PROTOCOL_BOOT,
            "routes of flanneld",
            "replaces each by its own (protocol 84) when its node has a lease; the rest stays, remove it by hand",
        ),
        (PROTOCOL_TOWLINE, "routes of towlined", "keeps them true"),
    ] {
        let all = netlink.routes(Some(protocol))?;
        let through = all.iter().filter(|route| {
            let device = route.device.as_ref().map(netstate::IfName::as_str);
            let overlay = device.is_some_and(|device| device.starts_with("flannel"));
            protocol == PROTOCOL_TOWLINE || overlay
        });
        let shown: Vec<String> = through
            .map(|route| route.key.destination.to_string())
            .collect();
        if !shown.is_empty() {
            rows.push(json!({ "what": what, "found": shown, "towlined": does }));
        }
    }
    Ok(rows)
}

fn subnet_env(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    let wanted = [
        "FLANNEL_SUBNET=",
        "FLANNEL_IPV6_SUBNET=",
        "FLANNEL_NETWORK=",
        "FLANNEL_MTU=",
    ];
    let lines = text.lines();
    let shown: Vec<&str> = lines
        .filter(|line| wanted.iter().any(|key| line.starts_with(key)))
        .collect();
    Some(json!({
        "what": path.display().to_string(),
        "found": shown,
        "towlined": "asks the store for this subnet again, and keeps the file true",
    }))
}

fn lease(leases: Option<&Value>) -> Value {
    let all = leases.and_then(|answer| answer["leases"].as_array());
    let own = all.and_then(|all| all.iter().find(|one| one["own"] == Value::Bool(true)));
    let (found, does) = match (leases, own) {
        (Some(_), Some(own)) => (own["subnets"].clone(), "holds it"),
        (Some(_), None) => (Value::Null, "holds none yet: see `towline leases`"),
        (None, _) => (
            Value::String("not asked, towlined does not run".to_owned()),
            "takes over the lease with this node's PublicIP (etcd), or the Node's podCIDRs and annotations (kube)",
        ),
    };
    json!({ "what": "lease", "found": found, "towlined": does })
}

/// flanneld's chains and tables.
fn rules() -> Vec<Value> {
    let mut found = Vec::new();
    for (family, tool) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
        for (table, chain) in [("nat", "FLANNEL-POSTRTG"), ("filter", "FLANNEL-FWD")] {
            // Cheap, but not sure; the table itself is. An empty chain does nothing.
            if matches!(iptables::may_have_chain(family, table, chain), Ok(true))
                && iptables::save(family, table).is_ok_and(|saved| !saved.rules(chain).is_empty())
            {
                found.push(format!("{tool} -t {table} {chain}"));
            }
        }
    }
    if let Ok(mut nftables) = hostnet::Nftables::open() {
        for (family, name, shown) in [
            (TableFamily::Ip, "flannel-ipv4", "nft table ip flannel-ipv4"),
            (
                TableFamily::Ip6,
                "flannel-ipv6",
                "nft table ip6 flannel-ipv6",
            ),
        ] {
            if matches!(nftables.exists(family, name), Ok(true)) {
                found.push(shown.to_owned());
            }
        }
    }
    let does =
        "leaves them alone while flanneld runs, removes them once it is gone; has rules of its own";
    let row = |found: String| json!({ "what": "rules", "found": found, "towlined": does });
    found.into_iter().map(row).collect()
}

fn plugin_state() -> Option<Value> {
    let pods = fs::read_dir(PLUGIN_STATE).ok()?.count();
    (pods > 0).then(|| {
        json!({
            "what": PLUGIN_STATE,
            "found": format!("{pods} pods made by flannel's CNI plugin"),
            "towlined": "leaves it: Towline's `flannel` plugin removes these pods' interfaces by it",
        })
    })
}
