//! What the kernel still knows while the daemon is down.

use std::fmt::Write as _;
use std::path::Path;

use ebpf_shared::policy::INGRESS;
use hostnet::{Netlink, PROTOCOL_TOWLINE};
use loader::Maps;
use serde_json::{Value, json};

use crate::args::Options;
use crate::show::View;

/// The answer to `view` from the pinned maps alone; `None` for what only the daemon knows.
pub(crate) fn answer(view: View, bpf_root: &Path) -> Option<anyhow::Result<Value>> {
    match view {
        View::Counters => Some(counters(bpf_root).map_err(anyhow::Error::from)),
        View::Maps => Some(maps(bpf_root).map_err(anyhow::Error::from)),
        _ => None,
    }
}

fn counters(bpf_root: &Path) -> Result<Value, loader::Error> {
    let counts = Maps::open(bpf_root)?.counters()?.all()?;
    let seen = counts.iter().filter(|count| count.total.packets > 0);
    let row = |count: &loader::Count| {
        json!({
            "direction": if count.direction == INGRESS { "ingress" } else { "egress" },
            "reason": count.reason.name(),
            "drop": count.reason.is_drop(),
            "packets": count.total.packets,
            "bytes": count.total.bytes,
        })
    };
    Ok(seen.map(row).collect())
}

fn maps(bpf_root: &Path) -> Result<Value, loader::Error> {
    let usage = Maps::open(bpf_root)?.usage()?;
    let row = |map: &loader::MapUsage| {
        json!({
            "name": map.name,
            "kind": map.kind.name(),
            "entries": map.entries,
            "capacity": map.capacity,
        })
    };
    Ok(usage.iter().map(row).collect())
}

/// Says on stderr what is still in the kernel, so that "the daemon is down" is not taken for
/// "the network is down".
pub(crate) fn tell(options: &Options) {
    let mut text = String::new();
    match routes() {
        Ok(routes) if routes.is_empty() => {
            text += "The kernel holds no route of towlined's.\n";
        }
        Ok(routes) => {
            text += "The kernel goes on by what towlined left in it. Routes (protocol 84):\n";
            for route in routes {
                let _ = writeln!(text, "  {route}");
            }
        }
        Err(error) => {
            let _ = writeln!(text, "The kernel's routes cannot be read: {error}");
        }
    }
    match pins(&options.bpf_root) {
        0 => {
            let _ = writeln!(
                text,
                "No eBPF map is pinned under {}.",
                options.bpf_root.display()
            );
        }
        count => {
            let _ = writeln!(
                text,
                "{count} eBPF maps and links are pinned under {}.",
                options.bpf_root.display()
            );
        }
    }
    eprint!("{text}");
}

fn routes() -> hostnet::Result<Vec<String>> {
    let routes = Netlink::open()?.routes(Some(PROTOCOL_TOWLINE))?;
    let shown = routes.into_iter().map(|route| {
        let via = route
            .gateway
            .map(|gateway| format!(" via {gateway}"))
            .unwrap_or_default();
        let device = route
            .device
            .map(|device| format!(" dev {device}"))
            .unwrap_or_default();
        format!("{}{via}{device}", route.key.destination)
    });
    Ok(shown.collect())
}

/// How many files there are below `folder`.
fn pins(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let count = |path: &Path| if path.is_dir() { pins(path) } else { 1 };
    entries
        .filter_map(Result::ok)
        .map(|entry| count(&entry.path()))
        .sum()
}
