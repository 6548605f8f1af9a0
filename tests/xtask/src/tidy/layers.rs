//! Who may import whom (ARCHITECTURE.md, "Layers"), read from the crates' ordinary dependencies.

use cargo_metadata::{DependencyKind, Metadata, Package};

/// Package → our packages that it may depend on. `tests/*` may depend on anything, nothing on them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("towline-netstate", &[]),
    ("towline-ebpf-shared", &[]),
    ("towline-hostnet", &["towline-netstate"]),
    ("towline-protocol", &[]),
    (
        "towline-suite",
        &["towline-protocol", "towline-hostnet", "towline-netstate"],
    ),
    (
        "towline-desired",
        &["towline-netstate", "towline-ebpf-shared"],
    ),
    ("towline-ebpf-programs", &["towline-ebpf-shared"]),
    (
        "towline-loader",
        &["towline-ebpf-shared", "towline-netstate"],
    ),
    (
        "towline-agent",
        &[
            "towline-desired",
            "towline-hostnet",
            "towline-loader",
            "towline-netstate",
            "towline-ebpf-shared",
        ],
    ),
    (
        "towline-cli",
        &[
            "towline-desired",
            "towline-loader",
            "towline-hostnet",
            // `towline cni` is a runtime: it executes plugins, and knows nothing of the suite.
            "towline-protocol",
            "towline-netstate",
            "towline-ebpf-shared",
        ],
    ),
];

/// Crates that must stay pure: none of these may be among their ordinary dependencies.
const PURE: &[&str] = &["towline-netstate", "towline-desired", "towline-ebpf-shared"];
const IMPURE: &[&str] = &[
    "tokio",
    "kube",
    "k8s-openapi",
    "netlink-sys",
    "nix",
    "libc",
    "reqwest",
    "hyper",
];

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    metadata
        .workspace_packages()
        .into_iter()
        .flat_map(|package| of(package, metadata))
        .collect()
}

fn of(package: &Package, metadata: &Metadata) -> Vec<String> {
    let name = package.name.as_str();
    let is_test = package
        .manifest_path
        .strip_prefix(&metadata.workspace_root)
        .is_ok_and(|path| path.starts_with("tests"));
    let allowed = ALLOWED
        .iter()
        .find(|(own, _)| *own == name)
        .map(|(_, allowed)| *allowed);
    if allowed.is_none() && !is_test {
        return vec![format!(
            "{name}: a new package needs its layer in xtask's tidy/layers.rs"
        )];
    }
    let ours: Vec<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|other| other.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        if dependency.kind == DependencyKind::Development {
            continue;
        }
        let other = dependency.name.as_str();
        if ours.contains(&other) && !is_test && !allowed.is_some_and(|all| all.contains(&other)) {
            findings.push(format!("{name}: must not depend on {other}"));
        }
        if PURE.contains(&name) && IMPURE.contains(&other) {
            findings.push(format!("{name}: is pure and must not depend on {other}"));
        }
    }
    findings
}
