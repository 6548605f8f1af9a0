//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// See, explain and diagnose this node's networking.
///
/// Reads from the daemon's socket on this node (root only); nothing here but `cni` and
/// `node release` changes anything.
#[derive(Debug, Parser)]
#[command(name = "towline", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The daemon's Unix socket
    #[arg(
        long,
        global = true,
        env = "TOWLINED_SOCKET",
        default_value = "/run/towline/towlined.sock",
        value_name = "FILE"
    )]
    pub(crate) socket: PathBuf,

    /// The daemon's folder for pinned maps, read when the daemon is down
    #[arg(
        long,
        global = true,
        env = "TOWLINED_BPF_ROOT",
        default_value = "/sys/fs/bpf/towline",
        value_name = "DIR"
    )]
    pub(crate) bpf_root: PathBuf,

    /// How to print
    #[arg(
        short,
        long,
        global = true,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people
    Table,
    /// The daemon's JSON
    Json,
    /// The same as YAML
    Yaml,
}

/// What to do with this node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Give the lease back and remove routes, device, rules and subnet files of the overlay
    #[command(after_help = "\
Afterwards this node takes no lease before towlined is restarted. Refused while pods run here.")]
    Release {
        /// Even if pods of this node lose their network
        #[arg(long)]
        yes: bool,
    },
    /// Report what flanneld has left here and what towlined does with it; changes nothing
    Adopt {
        /// Where flanneld has written this node's subnet
        #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
        subnet_file: PathBuf,
    },
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Is this node all right, and if not, what is it waiting for
    Status,
    /// All nodes and how they are reached
    Nodes,
    /// All pod subnets with the nodes that hold them
    Leases,
    /// Routes to the other nodes' pods, with neighbour and tunnel end
    Routes,
    /// Services with their endpoints
    Services {
        /// Only this one: NAME or NAMESPACE/NAME
        name: Option<String>,
    },
    /// Pods with the policies that select them
    Pods {
        /// Only this one: NAME or NAMESPACE/NAME
        name: Option<String>,
    },
    /// Pod interfaces registered on this node
    Endpoints,
    /// NetworkPolicies with the pods of this node that they select
    Policies,
    /// Flows that the data path tracks on this node
    Flows {
        /// Also those that have ended and are about to be forgotten
        #[arg(short, long)]
        all: bool,
    },
    /// Packets that were dropped, with the reason
    Drops {
        /// Keep printing as they happen
        #[arg(short, long)]
        follow: bool,
    },
    /// Explain what happens to a flow, without sending a packet
    #[command(after_help = "\
Examples:
  towline why default/client default/server:80
  towline why default/client 10.96.0.10:53/udp
  towline why 10.244.1.7 10.244.2.9:443/tcp")]
    Why {
        /// Who opens the flow: [NAMESPACE/]POD or an address
        #[arg(value_name = "SRC")]
        source: String,
        /// Where to: [NAMESPACE/]POD or an address, with port and protocol
        #[arg(value_name = "DST[:PORT[/PROTO]]")]
        destination: String,
    },
    /// Entries in which the kernel differs from what the cluster asks for, now
    Diff,
    /// Take this node out of the overlay, or see what it would take over from flannel
    Node {
        /// What to do
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Packets and bytes by what the data path did with them
    Counters,
    /// eBPF maps: how full they are
    Maps,
    /// Run a network's CNI plugins as a container runtime does
    #[command(after_help = "\
Examples:
  towline cni add cbr0 /run/netns/test
  CAP_ARGS='{\"portMappings\":[{\"hostPort\":80,\"containerPort\":80}]}' towline cni add cbr0 /run/netns/test
  towline cni del cbr0 /run/netns/test
  towline cni gc cbr0")]
    Cni {
        /// What to do
        #[command(subcommand)]
        command: crate::cni::Command,
    },
    /// Versions of this tool and of the daemon
    Version,
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
}
