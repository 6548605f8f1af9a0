//! From flags, environment and files to one checked [`Config`].

mod error;
mod etcd;
mod net_conf;
mod overlay;
mod settings;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;

pub use self::error::ConfigError;
pub use self::net_conf::{BackendConf, NetConf, VXLAN_PORT, VxlanConf, WireguardConf};
pub use self::overlay::{MasqueradeBackend, OverlayOptions, TxChecksum};
pub use self::settings::{Bind, Datapath, LogFormat, Settings};
use crate::api_server;
use crate::lease::etcd::EtcdSettings;
use crate::translate::AnnotationKeys;

/// Where the configuration file is looked for if none is named.
pub const DEFAULT_PATH: &str = "/etc/towline/towlined.yaml";

/// The daemon's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node's Node object.
    pub node_name: String,
    /// How to reach the API server; in-cluster if absent.
    pub kubeconfig: Option<PathBuf>,
    /// Where leases are kept.
    pub leases: LeaseSource,
    /// Which interface carries traffic between nodes.
    pub uplink: UplinkChoice,
    /// Names of the Node annotations.
    pub annotations: AnnotationKeys,
    /// Whether to set the Node's condition NetworkUnavailable.
    pub set_network_unavailable: bool,
    /// Every path the subnet file is written to.
    pub subnet_files: Vec<PathBuf>,
    /// The rules and devices of the overlay.
    pub overlay: OverlayOptions,
    /// What carries Services and policy.
    pub datapath: Datapath,
    /// Whether Services are programmed.
    pub services: bool,
    /// Whether NetworkPolicy is enforced.
    pub policy: bool,
    /// Folder for what outlives the daemon.
    pub state_dir: PathBuf,
    /// Folder for pinned maps and links.
    pub bpf_root: PathBuf,
    /// cgroup v2 folder for connect-time load balancing; none found if absent.
    pub cgroup_root: Option<PathBuf>,
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where health is served.
    pub healthz: Vec<SocketAddr>,
    /// Time between two observations of the kernel without any change.
    pub resync: Duration,
    /// Tracing filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Where leases are kept, and with them the network configuration.
#[derive(Clone, Debug)]
pub enum LeaseSource {
    /// On Node objects; the network configuration is a file.
    Kube(NetConf),
    /// In etcd, like the network configuration.
    Etcd(EtcdSettings),
}

/// How the interface for traffic between nodes is chosen: the first rule that matches.
#[derive(Clone, Debug, Default)]
pub struct UplinkChoice {
    /// Names or addresses.
    pub interfaces: Vec<String>,
    /// Expressions on names, then on addresses.
    pub expressions: Vec<Regex>,
    /// An address whose route decides.
    pub can_reach: Option<IpAddr>,
    /// The IPv4 address to publish.
    pub public_ip: Option<Ipv4Addr>,
    /// The IPv6 address to publish.
    pub public_ipv6: Option<Ipv6Addr>,
}

// === impl Config ===

impl Config {
    /// Merges `flags` over the file at `path` (the default path may be absent) and checks all.
    ///
    /// # Errors
    /// The first field that is wrong, with value and remedy.
    pub fn load(path: Option<&Path>, flags: Settings) -> Result<Self, ConfigError> {
        let settings = flags.over(read_file(path)?);
        let leases = if settings.kube_subnet_mgr == Some(false) {
            LeaseSource::Etcd(etcd::settings(&settings)?)
        } else {
            let net_conf = settings
                .net_config_path
                .clone()
                .unwrap_or_else(|| PathBuf::from("/etc/kube-flannel/net-conf.json"));
            LeaseSource::Kube(NetConf::read(&net_conf)?)
        };
        let config = Self::check(settings, leases)?;
        let no_api = !api_server::is_named(config.kubeconfig.as_deref());
        if no_api
            && matches!(config.leases, LeaseSource::Etcd(_))
            && config.datapath != Datapath::None
        {
            let remedy = "Services and NetworkPolicy come from an API server: name one with --kubeconfig, \
                          or say --datapath=none to keep the overlay alone";
            return Err(wrong("datapath", "ebpf", remedy));
        }
        Ok(config)
    }

    /// Checks `settings` and fills in the defaults.
    ///
    /// # Errors
    /// The first field that is wrong, with value and remedy.
    pub fn check(settings: Settings, leases: LeaseSource) -> Result<Self, ConfigError> {
        let overlay = OverlayOptions::of(&settings);
        let state_dir = absolute("state-dir", settings.state_dir, "/run/towline")?;
        let subnet_files = match settings.subnet_file {
            Some(file) => vec![absolute("subnet-file", Some(file), "")?],
            None => vec![
                PathBuf::from("/run/flannel/subnet.env"),
                state_dir.join("subnet.env"),
            ],
        };
        let socket = match settings.socket {
            Some(socket) => absolute("socket", Some(socket), "")?,
            None => state_dir.join("towlined.sock"),
        };
        Ok(Self {
            overlay,
            node_name: node_name(settings.node_name)?,
            kubeconfig: settings.kubeconfig,
            leases,
            uplink: UplinkChoice {
                interfaces: settings.iface,
                expressions: expressions(&settings.iface_regex)?,
                can_reach: settings.iface_can_reach,
                public_ip: settings.public_ip,
                public_ipv6: settings.public_ipv6,
            },
            annotations: annotations(settings.kube_annotation_prefix)?,
            set_network_unavailable: settings.set_node_network_unavailable.unwrap_or(true),
            subnet_files,
            datapath: settings.datapath.unwrap_or(Datapath::Ebpf),
            services: settings.services.unwrap_or(true),
            policy: settings.policy.unwrap_or(true),
            state_dir,
            bpf_root: absolute("bpf-root", settings.bpf_root, "/sys/fs/bpf/towline")?,
            cgroup_root: match settings.cgroup_root {
                Some(root) => Some(absolute("cgroup-root", Some(root), "")?),
                None => cgroup2_mount(),
            },
            socket,
            metrics: bind(
                settings.metrics_bind_address,
                ([127, 0, 0, 1], 10249).into(),
            ),
            healthz: healthz(
                settings.healthz_bind_address,
                settings.healthz_ip,
                settings.healthz_port,
            ),
            resync: resync(settings.resync_seconds)?,
            log: settings.log.unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

fn wrong(field: &str, value: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
    ConfigError::new("settings", field, value, remedy)
}

fn read_file(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let (path, named) = match path {
        Some(path) => (path, true),
        None => (Path::new(DEFAULT_PATH), false),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
            return Ok(Settings::default());
        }
        Err(error) => {
            let value = path.display().to_string();
            return Err(wrong(
                "config",
                value,
                format!("{error}; name a readable file"),
            ));
        }
    };
    parse_file(&path.display().to_string(), &text)
}

fn parse_file(name: &str, text: &str) -> Result<Settings, ConfigError> {
    let known = serde_json::to_value(Settings::default()).unwrap_or_default();
    let document: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| {
        ConfigError::new(
            name,
            "(document)",
            error.to_string(),
            "not YAML; see docs/towlined.md",
        )
    })?;
    if document.is_null() {
        return Ok(Settings::default());
    }
    let Some(mapping) = document.as_mapping() else {
        let remedy = "write `key: value` lines; see docs/towlined.md";
        return Err(ConfigError::new(name, "(document)", "no mapping", remedy));
    };
    for (key, value) in mapping {
        let key = key.as_str().unwrap_or("(not a string)");
        let value = serde_yaml_ng::to_string(value).unwrap_or_default();
        if known.get(key).is_none() {
            let remedy =
                "no such key; the keys are the flags of `towlined --help` without dashes in front";
            return Err(ConfigError::new(name, key, value.trim(), remedy));
        }
        let single = format!("{key}: {}", indented(&value));
        if let Err(error) = serde_yaml_ng::from_str::<Settings>(&single) {
            let error = error.to_string();
            let reason = error.split(" at line ").next().unwrap_or(&error);
            let reason = reason.strip_prefix(&format!("{key}: ")).unwrap_or(reason);
            let remedy = format!("{reason}; see docs/towlined.md");
            return Err(ConfigError::new(name, key, value.trim(), remedy));
        }
    }
    serde_yaml_ng::from_value(document.clone()).map_err(|error| {
        ConfigError::new(
            name,
            "(document)",
            error.to_string(),
            "see docs/towlined.md",
        )
    })
}

/// `value` as YAML text below a key.
fn indented(value: &str) -> String {
    let value = value.trim_end();
    if value.contains('\n') || value.starts_with("- ") {
        format!("\n  {}", value.replace('\n', "\n  "))
    } else {
        value.to_owned()
    }
}

fn absolute(field: &str, given: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = given.unwrap_or_else(|| PathBuf::from(default));
    let plain = path
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain {
        return Ok(path);
    }
    let value = path.display().to_string();
    Err(wrong(field, value, "write an absolute path without `..`"))
}

fn node_name(given: Option<String>) -> Result<String, ConfigError> {
    let given = given
        .or_else(|| std::env::var("NODE_NAME").ok())
        .filter(|name| !name.is_empty());
    let name = match given {
        Some(name) => name,
        None => nix::sys::utsname::uname()
            .ok()
            .and_then(|host| host.nodename().to_str().map(str::to_lowercase))
            .unwrap_or_default(),
    };
    let plain = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(plain) {
        Ok(name)
    } else {
        let remedy =
            "write the name of this node's Node object: lower case letters, digits, `-` and `.`";
        Err(wrong("node-name", name, remedy))
    }
}

fn expressions(given: &[String]) -> Result<Vec<Regex>, ConfigError> {
    given
        .iter()
        .map(|text| {
            Regex::new(text).map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim().to_owned();
                wrong(
                    "iface-regex",
                    text,
                    format!("{reason}; write a regular expression such as ^eth"),
                )
            })
        })
        .collect()
}

fn annotations(given: Option<String>) -> Result<AnnotationKeys, ConfigError> {
    let prefix = given.unwrap_or_else(|| "flannel.alpha.coreos.com".to_owned());
    let remedy = "write a domain, or domain/name, of lower case letters, digits, `-` and `.`";
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-./".contains(c);
    match AnnotationKeys::new(&prefix) {
        Ok(keys) if prefix.chars().all(allowed) && !prefix.starts_with('/') => Ok(keys),
        _ => Err(wrong("kube-annotation-prefix", prefix, remedy)),
    }
}

fn bind(given: Option<Bind>, default: SocketAddr) -> Option<SocketAddr> {
    given.map_or(Some(default), |bind| bind.0)
}

fn healthz(given: Option<Bind>, ip: Option<IpAddr>, port: Option<u16>) -> Vec<SocketAddr> {
    let mut all = Vec::from_iter(bind(given, ([0, 0, 0, 0], 10256).into()));
    if let Some(port) = port.filter(|port| *port != 0) {
        let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let second = SocketAddr::new(ip, port);
        if !all.contains(&second) {
            all.push(second);
        }
    }
    all
}

fn resync(given: Option<u64>) -> Result<Duration, ConfigError> {
    match given.unwrap_or(10) {
        seconds @ 1..=3600 => Ok(Duration::from_secs(seconds)),
        seconds => Err(wrong(
            "resync-seconds",
            seconds.to_string(),
            "write a whole number from 1 to 3600",
        )),
    }
}

/// The first cgroup2 mount of this mount namespace.
fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}
