//! What the kernel still knows while the daemon is down.

use std::fmt::Write as _;
use std::path::Path;

use hostnet::{Netlink, PROTOCOL_TOWLINE};

use crate::args::Options;

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
