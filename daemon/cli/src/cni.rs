//! `towline cni`: runs a network's plugins as a container runtime does, without one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use protocol::runtime::{Cache, NetworkList, Runtime, Target, load};
use protocol::{Args as CniArgs, Attachment};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha512};

/// What a container's name begins with that nobody named.
const UNNAMED: &str = "cnitool-";
/// How many bytes of the digest of the namespace's path follow.
const UNNAMED_BYTES: usize = 10;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attach the namespace to the network, and print the result
    Add(Interface),
    /// Check that it is attached as ADD left it
    Check(Interface),
    /// Detach it
    Del(Interface),
    /// Free what belongs to no attachment that is still there
    ///
    /// Valid are the attachments whose result is kept and whose namespace is still there. When no
    /// result of this network is kept, nothing is known about it: the plugins are called without a
    /// list then, and remove nothing.
    Gc {
        #[command(flatten)]
        network: Network,
        /// Only these are valid, instead
        #[arg(long, value_name = "CONTAINER/IFNAME", conflicts_with = "none_valid")]
        valid: Vec<String>,
        /// No attachment is valid: free everything of this network
        #[arg(long)]
        none_valid: bool,
    },
    /// Whether the network could attach a container now
    Status {
        #[command(flatten)]
        network: Network,
    },
}

/// A network's interface in a namespace.
#[derive(Args, Debug)]
pub(crate) struct Interface {
    /// The network's name
    network: String,
    /// Path of the network namespace, such as /run/netns/NAME
    netns: PathBuf,
    /// Name of the interface in the namespace
    #[arg(long, env = "CNI_IFNAME", default_value = "eth0", value_name = "NAME")]
    ifname: String,
    /// The container's ID [default: cnitool- and a digest of NETNS]
    #[arg(long, env = "CNI_CONTAINERID", value_name = "ID")]
    container_id: Option<String>,
    /// Arguments for the plugins: KEY=VALUE;…
    #[arg(long, env = "CNI_ARGS", default_value = "", value_name = "ARGS")]
    args: String,
    /// Arguments by capability, such as {"portMappings":[…]}
    #[arg(long, env = "CAP_ARGS", default_value = "", value_name = "JSON")]
    cap_args: String,
    #[command(flatten)]
    places: Places,
}

/// A network.
#[derive(Args, Debug)]
pub(crate) struct Network {
    /// The network's name
    network: String,
    /// Taken as cnitool takes it, and not looked at
    #[arg(value_name = "NETNS")]
    _netns: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

/// Where everything is.
#[derive(Args, Debug)]
struct Places {
    /// Folder of configurations
    #[arg(
        long,
        env = "NETCONFPATH",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    conf_dir: PathBuf,
    /// Folders of plugins, separated by ':'
    #[arg(
        long,
        env = "CNI_PATH",
        default_value = "/opt/cni/bin",
        value_name = "DIRS"
    )]
    path: String,
    /// Folder in which results are kept, as other runtimes on libcni do
    #[arg(long, default_value = "/var/lib/cni", value_name = "DIR")]
    cache_dir: PathBuf,
}

/// Does `command`; ADD's result goes to standard output.
pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Add(interface) => {
            let (list, runtime, target) = interface.read()?;
            let result = runtime.add(&list, &target).map_err(told)?;
            let text = serde_json::to_string_pretty(&result)? + "\n";
            io::stdout().write_all(text.as_bytes())?;
            io::stdout().flush()?;
        }
        Command::Check(interface) => {
            let (list, runtime, target) = interface.read()?;
            runtime.check(&list, &target).map_err(told)?;
        }
        Command::Del(interface) => {
            let (list, runtime, target) = interface.read()?;
            runtime.del(&list, &target).map_err(told)?;
        }
        Command::Gc {
            network,
            valid,
            none_valid,
        } => {
            let (list, runtime) = network.places.read(&network.network)?;
            let valid = match (none_valid, valid.as_slice()) {
                (true, _) => Some(Vec::new()),
                (false, []) => present(&runtime.cache, &list.name)?,
                (false, named) => {
                    let parsed: anyhow::Result<_> =
                        named.iter().map(|text| attachment(text)).collect();
                    Some(parsed?)
                }
            };
            runtime.gc(&list, valid.as_deref()).map_err(told)?;
        }
        Command::Status { network } => {
            let (list, runtime) = network.places.read(&network.network)?;
            runtime.status(&list).map_err(told)?;
        }
    }
    Ok(())
}

/// The attachments of which a result is kept and the namespace is there; `None` without results.
fn present(cache: &Cache, network: &str) -> anyhow::Result<Option<Vec<Attachment>>> {
    let kept = cache.list(network).map_err(told)?;
    if kept.is_empty() {
        return Ok(None);
    }
    let there = kept.iter().filter(|one| is_namespace(one.netns()));
    Ok(Some(there.map(|one| one.attachment()).collect()))
}

/// The plain file that a namespace was mounted on stays behind after a reboot.
fn is_namespace(path: &str) -> bool {
    path.parse()
        .is_ok_and(|path| hostnet::Netns::open(&path).is_ok())
}

fn attachment(text: &str) -> anyhow::Result<Attachment> {
    let Some((container_id, ifname)) = text.split_once('/') else {
        bail!("--valid {text:?} is not CONTAINER/IFNAME");
    };
    let attachment = Attachment {
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    };
    attachment.check().map_err(told)?;
    Ok(attachment)
}

/// The plugin's error as one line, with its code.
#[allow(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn told(error: protocol::Error) -> anyhow::Error {
    anyhow!("{error} (code {})", error.code)
}

// === impl Interface ===

impl Interface {
    fn read(&self) -> anyhow::Result<(NetworkList, Runtime, Target)> {
        let (list, runtime) = self.places.read(&self.network)?;
        let netns = std::path::absolute(&self.netns).context("NETNS")?;
        let container_id = match &self.container_id {
            Some(id) => id.clone(),
            None => unnamed(&netns),
        };
        let attachment = Attachment {
            container_id,
            ifname: self.ifname.clone(),
        };
        attachment.check().map_err(told)?;
        let capabilities: Map<String, Value> = match self.cap_args.as_str() {
            "" => Map::new(),
            text => serde_json::from_str(text).context("CAP_ARGS is no JSON object")?,
        };
        let target = Target {
            attachment,
            netns: netns.to_str().context("NETNS is not UTF-8")?.to_owned(),
            args: CniArgs::parse(&self.args).map_err(told)?,
            capabilities,
        };
        Ok((list, runtime, target))
    }
}

/// The name that cnitool gives a container of which only the namespace is known.
fn unnamed(netns: &Path) -> String {
    let digest = Sha512::digest(netns.as_os_str().as_encoded_bytes());
    let digits = digest.iter().take(UNNAMED_BYTES);
    let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
    format!("{UNNAMED}{digits}")
}

// === impl Places ===

impl Places {
    fn read(&self, network: &str) -> anyhow::Result<(NetworkList, Runtime)> {
        let list = load(&self.conf_dir, network).map_err(told)?;
        let runtime = Runtime {
            path: self.path.clone(),
            cache: Cache::new(&self.cache_dir),
        };
        Ok((list, runtime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_name_gets_cnitools() {
        // printf %s /run/netns/a | sha512sum | cut -c1-20
        let expected = "cnitool-a145bc1ace582bff43bd";
        assert_eq!(unnamed(Path::new("/run/netns/a")), expected);
    }
}
