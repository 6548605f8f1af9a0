//! Every setting once: as YAML key, as flag and as environment variable.
//!
//! The YAML key is the flag's name without its dashes in front; the variable is `TOWLINED_` and the
//! name in upper snake case. A flag wins over the variable, the variable over the file, the file
//! over the default. Names that flanneld has too mean what they mean there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::overlay::{MasqueradeBackend, TxChecksum};

/// Settings as given: `None` (or an empty list) means "not said here".
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Name of this node's Node object [default: $NODE_NAME, else the host name]
    #[arg(long, env = "TOWLINED_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// How to reach the API server [default: the pod's service account]
    #[arg(
        long,
        alias = "kubeconfig-file",
        env = "TOWLINED_KUBECONFIG",
        value_name = "FILE"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// Take this node's subnet from its Node object; `false` leases one from etcd [default: true]
    #[arg(long, env = "TOWLINED_KUBE_SUBNET_MGR", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub kube_subnet_mgr: Option<bool>,

    /// URLs of etcd's members, for leases [default: http://127.0.0.1:2379]
    #[arg(
        long,
        env = "TOWLINED_ETCD_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub etcd_endpoints: Vec<String>,

    /// What keys in etcd begin with [default: /coreos.com/network]
    #[arg(long, env = "TOWLINED_ETCD_PREFIX", value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,

    /// Certificate of the authority that signs etcd's
    #[arg(long, env = "TOWLINED_ETCD_CAFILE", value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,

    /// This node's certificate for etcd
    #[arg(long, env = "TOWLINED_ETCD_CERTFILE", value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,

    /// The key of that certificate
    #[arg(long, env = "TOWLINED_ETCD_KEYFILE", value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,

    /// User name for etcd
    #[arg(long, env = "TOWLINED_ETCD_USERNAME", value_name = "NAME")]
    pub etcd_username: Option<String>,

    /// Password for etcd; better by variable or file than as a flag that others can see
    #[arg(
        long,
        env = "TOWLINED_ETCD_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub etcd_password: Option<String>,

    /// Prefix of the Node annotations [default: flannel.alpha.coreos.com]
    #[arg(
        long,
        env = "TOWLINED_KUBE_ANNOTATION_PREFIX",
        value_name = "DOMAIN[/NAME]"
    )]
    pub kube_annotation_prefix: Option<String>,

    /// Set the Node's condition NetworkUnavailable to False once the overlay is up [default: true]
    #[arg(long, env = "TOWLINED_SET_NODE_NETWORK_UNAVAILABLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub set_node_network_unavailable: Option<bool>,

    /// Network configuration in flannel's net-conf.json schema
    /// [default: /etc/kube-flannel/net-conf.json]
    #[arg(long, env = "TOWLINED_NET_CONFIG_PATH", value_name = "FILE")]
    pub net_config_path: Option<PathBuf>,

    /// Interface (name or address) for traffic between nodes; repeatable, the first match wins
    /// [default: the one with the Node's InternalIP, else the default route's]
    #[arg(
        long,
        env = "TOWLINED_IFACE",
        value_name = "NAME|IP",
        value_delimiter = ','
    )]
    pub iface: Vec<String>,

    /// Regular expression on names, then addresses, of interfaces; repeatable, after --iface
    #[arg(long, env = "TOWLINED_IFACE_REGEX", value_name = "REGEX")]
    pub iface_regex: Vec<String>,

    /// Use the interface through which this address is reached
    #[arg(long, env = "TOWLINED_IFACE_CAN_REACH", value_name = "IP")]
    pub iface_can_reach: Option<IpAddr>,

    /// IPv4 address that other nodes send to [default: the chosen interface's]
    #[arg(long, env = "TOWLINED_PUBLIC_IP", value_name = "IPV4")]
    pub public_ip: Option<Ipv4Addr>,

    /// IPv6 address that other nodes send to [default: the chosen interface's]
    #[arg(long, env = "TOWLINED_PUBLIC_IPV6", value_name = "IPV6")]
    pub public_ipv6: Option<Ipv6Addr>,

    /// Where the CNI plugins read this node's subnet
    /// [default: both /run/flannel/subnet.env and STATE-DIR/subnet.env]
    #[arg(long, env = "TOWLINED_SUBNET_FILE", value_name = "FILE")]
    pub subnet_file: Option<PathBuf>,

    /// Masquerade pod traffic that leaves the cluster [default: true]
    #[arg(long, env = "TOWLINED_IP_MASQ", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub ip_masq: Option<bool>,

    /// Masquerade pod traffic to nodes too, as flannel does [default: false]
    #[arg(long, env = "TOWLINED_IP_MASQ_NODES", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub ip_masq_nodes: Option<bool>,

    /// Let masqueraded connections keep their source ports where they can [default: false]
    #[arg(long, env = "TOWLINED_IP_MASQ_FULLY_RANDOM_DISABLE", value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    pub ip_masq_fully_random_disable: Option<bool>,

    /// Accept pod traffic where packets are forwarded [default: true]
    #[arg(long, env = "TOWLINED_IPTABLES_FORWARD_RULES", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub iptables_forward_rules: Option<bool>,

    /// What masquerades and accepts pod traffic [default: nftables]
    #[arg(long, env = "TOWLINED_MASQUERADE_BACKEND", value_name = "KIND")]
    pub masquerade_backend: Option<MasqueradeBackend>,

    /// Discard packets to addresses of this node's subnet that no pod has [default: false]
    #[arg(long, env = "TOWLINED_IP_BLACKHOLE_ROUTE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub ip_blackhole_route: Option<bool>,

    /// Whether VXLAN devices leave checksums to the interface below [default: auto]
    #[arg(long, env = "TOWLINED_VXLAN_TX_CHECKSUM", value_name = "KIND")]
    pub vxlan_tx_checksum: Option<TxChecksum>,

    /// What carries Services and NetworkPolicy [default: ebpf]
    #[arg(long, env = "TOWLINED_DATAPATH", value_name = "KIND")]
    pub datapath: Option<Datapath>,

    /// Program Services [default: true]
    #[arg(long, env = "TOWLINED_SERVICES", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub services: Option<bool>,

    /// Enforce NetworkPolicy [default: true]
    #[arg(long, env = "TOWLINED_POLICY", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub policy: Option<bool>,

    /// Folder for what must outlive the daemon [default: /run/towline]
    #[arg(long, env = "TOWLINED_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Folder in a bpffs for pinned maps and links [default: /sys/fs/bpf/towline]
    #[arg(long, env = "TOWLINED_BPF_ROOT", value_name = "DIR")]
    pub bpf_root: Option<PathBuf>,

    /// cgroup v2 folder whose processes get Services at connect time
    /// [default: the machine's cgroup2 mount]
    #[arg(long, env = "TOWLINED_CGROUP_ROOT", value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Unix socket of the API for plugins and `towline` [default: STATE-DIR/towlined.sock]
    #[arg(long, env = "TOWLINED_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,

    /// Prometheus metrics; `none` for no listener [default: 127.0.0.1:10249]
    #[arg(long, env = "TOWLINED_METRICS_BIND_ADDRESS", value_name = "IP:PORT")]
    pub metrics_bind_address: Option<Bind>,

    /// /healthz, /livez and /readyz; `none` for no listener [default: 0.0.0.0:10256]
    #[arg(long, env = "TOWLINED_HEALTHZ_BIND_ADDRESS", value_name = "IP:PORT")]
    pub healthz_bind_address: Option<Bind>,

    /// Address of flanneld's health port [default: 0.0.0.0]
    #[arg(long, env = "TOWLINED_HEALTHZ_IP", value_name = "IP")]
    pub healthz_ip: Option<IpAddr>,

    /// flanneld's health port, answered beside the other; 0 for none [default: 0]
    #[arg(long, env = "TOWLINED_HEALTHZ_PORT", value_name = "PORT")]
    pub healthz_port: Option<u16>,

    /// Seconds between two observations of the kernel without any change [default: 10]
    #[arg(long, env = "TOWLINED_RESYNC_SECONDS", value_name = "SECONDS")]
    pub resync_seconds: Option<u64>,

    /// What to log, as a tracing filter: `info`, `debug`, `agent=trace` [default: info]
    #[arg(long, env = "TOWLINED_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log [default: text]
    #[arg(long, env = "TOWLINED_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// What carries Services and NetworkPolicy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// eBPF programs at the pods' devices and at the cgroup.
    Ebpf,
    /// Neither Services nor policy: only the overlay.
    None,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Where a listener binds, or that there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bind(pub Option<SocketAddr>);

// === impl Bind ===

impl std::str::FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|addr| Self(Some(addr)))
            .map_err(|_| format!("{text:?} is not IP:PORT; write e.g. 127.0.0.1:10249, or none"))
    }
}

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> Self {
        bind.0
            .map_or_else(|| "none".to_owned(), |addr| addr.to_string())
    }
}

// === impl Settings ===

impl Settings {
    /// What `self` says, and what `under` says where `self` is silent.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        fn list(over: Vec<String>, under: Vec<String>) -> Vec<String> {
            if over.is_empty() { under } else { over }
        }
        Self {
            node_name: self.node_name.or(under.node_name),
            kubeconfig: self.kubeconfig.or(under.kubeconfig),
            kube_subnet_mgr: self.kube_subnet_mgr.or(under.kube_subnet_mgr),
            etcd_endpoints: list(self.etcd_endpoints, under.etcd_endpoints),
            etcd_prefix: self.etcd_prefix.or(under.etcd_prefix),
            etcd_cafile: self.etcd_cafile.or(under.etcd_cafile),
            etcd_certfile: self.etcd_certfile.or(under.etcd_certfile),
            etcd_keyfile: self.etcd_keyfile.or(under.etcd_keyfile),
            etcd_username: self.etcd_username.or(under.etcd_username),
            etcd_password: self.etcd_password.or(under.etcd_password),
            kube_annotation_prefix: self.kube_annotation_prefix.or(under.kube_annotation_prefix),
            set_node_network_unavailable: self
                .set_node_network_unavailable
                .or(under.set_node_network_unavailable),
            net_config_path: self.net_config_path.or(under.net_config_path),
            iface: list(self.iface, under.iface),
            iface_regex: list(self.iface_regex, under.iface_regex),
            iface_can_reach: self.iface_can_reach.or(under.iface_can_reach),
            public_ip: self.public_ip.or(under.public_ip),
            public_ipv6: self.public_ipv6.or(under.public_ipv6),
            subnet_file: self.subnet_file.or(under.subnet_file),
            ip_masq: self.ip_masq.or(under.ip_masq),
            ip_masq_nodes: self.ip_masq_nodes.or(under.ip_masq_nodes),
            ip_masq_fully_random_disable: self
                .ip_masq_fully_random_disable
                .or(under.ip_masq_fully_random_disable),
            iptables_forward_rules: self.iptables_forward_rules.or(under.iptables_forward_rules),
            masquerade_backend: self.masquerade_backend.or(under.masquerade_backend),
            ip_blackhole_route: self.ip_blackhole_route.or(under.ip_blackhole_route),
            vxlan_tx_checksum: self.vxlan_tx_checksum.or(under.vxlan_tx_checksum),
            datapath: self.datapath.or(under.datapath),
            services: self.services.or(under.services),
            policy: self.policy.or(under.policy),
            state_dir: self.state_dir.or(under.state_dir),
            bpf_root: self.bpf_root.or(under.bpf_root),
            cgroup_root: self.cgroup_root.or(under.cgroup_root),
            socket: self.socket.or(under.socket),
            metrics_bind_address: self.metrics_bind_address.or(under.metrics_bind_address),
            healthz_bind_address: self.healthz_bind_address.or(under.healthz_bind_address),
            healthz_ip: self.healthz_ip.or(under.healthz_ip),
            healthz_port: self.healthz_port.or(under.healthz_port),
            resync_seconds: self.resync_seconds.or(under.resync_seconds),
            log: self.log.or(under.log),
            log_format: self.log_format.or(under.log_format),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn every_yaml_key_is_a_flag_and_a_variable() {
        let keys: Vec<String> = serde_json::to_value(Settings::default())
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let command = Settings::augment_args(Command::new("towlined"));
        let mut flags: Vec<String> = command
            .get_arguments()
            .filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect();
        let mut sorted = keys.clone();
        sorted.sort();
        flags.sort();
        assert_eq!(flags, sorted);
        for arg in command.get_arguments() {
            let long = arg.get_long().unwrap();
            let wanted = format!("TOWLINED_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), wanted);
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_silence_over_nothing() {
        let file: Settings =
            serde_yaml_ng::from_str("node-name: a\niface: [eth0]\npolicy: false\n").unwrap();
        let flags = Settings {
            node_name: Some("b".to_owned()),
            ..Settings::default()
        };
        let merged = flags.over(file);
        assert_eq!(merged.node_name.as_deref(), Some("b"));
        assert_eq!(merged.iface, ["eth0"]);
        assert_eq!(merged.policy, Some(false));
        assert_eq!(merged.services, None);
    }
}
