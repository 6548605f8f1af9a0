//! `control-plane`: Towline's test control plane as a program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ipnetwork::IpNetwork;
use tokio::signal::unix::{SignalKind, signal};
use towline_control_plane::run::{ControlPlane, Options};
use towline_control_plane::serve::NetnsListen;
use towline_control_plane::tls::write_private;

/// A small, real Kubernetes control plane: API server, controllers and scheduler in one process.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGINT or SIGTERM. When ready, one JSON line on stdout tells the addresses.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Directory of the store and the certificate authority; made when absent
    #[arg(long, env = "TOWLINE_DATA_DIR")]
    data_dir: PathBuf,
    /// Address to listen on; port 0 lets the kernel choose; may be repeated
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: Vec<SocketAddr>,
    /// Address to listen on inside a network namespace; may be repeated
    #[arg(long, value_name = "NETNS_PATH=IP:PORT")]
    listen_netns: Vec<NetnsListen>,
    /// Address at which nodes and pods reach this server (the `kubernetes` Service's endpoint); by
    /// default the first in a network namespace, else the first of all
    #[arg(long, value_name = "IP:PORT")]
    advertise: Option<SocketAddr>,
    /// Write a kubeconfig (mode 0600) for the first --listen address to FILE, for further ones to
    /// FILE.2, FILE.3, ..., and for those of --listen-netns to FILE.netns, FILE.netns2, ...
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: Option<PathBuf>,
    /// Addresses of pods; each node gets a block of them
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: IpNetwork,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: IpNetwork,
    /// Prefix length of a node's block
    #[arg(long, default_value_t = 24)]
    node_cidr_mask: u8,
    /// Answer writes before they are on the disk: faster, and a power failure loses the last ones
    #[arg(long)]
    no_sync: bool,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let Command::Serve(arguments) = cli.command;
    match serve(arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("control-plane: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let advertise = arguments
            .advertise
            .or_else(|| arguments.listen_netns.first().map(|place| place.address));
        let own = arguments.listen.len();
        let options = Options {
            data_dir: arguments.data_dir,
            sync: !arguments.no_sync,
            listen: arguments.listen,
            listen_netns: arguments.listen_netns,
            advertise,
            cluster_cidr: arguments.cluster_cidr,
            service_cidr: arguments.service_cidr,
            node_cidr_mask: arguments.node_cidr_mask,
            controllers: true,
        };
        let mut control_plane = ControlPlane::start(options).await?;
        let mut files = Vec::new();
        if let Some(file) = &arguments.kubeconfig_out {
            files = write_kubeconfigs(&control_plane, file, own)?;
        }
        println!(
            "{}",
            serde_json::json!({
                "ready": true, "addresses": control_plane.addresses(), "kubeconfigs": files,
            })
        );
        tokio::select! {
            _ = interrupt.recv() => control_plane.shutdown(),
            _ = terminate.recv() => control_plane.shutdown(),
            ended = control_plane.wait() => {
                ended?;
                anyhow::bail!("all parts ended without being asked to");
            }
        }
        control_plane.wait().await
    })
}

/// Writes one kubeconfig per address; `own` of them are not in a network namespace.
fn write_kubeconfigs(
    control_plane: &ControlPlane,
    file: &Path,
    own: usize,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (index, address) in control_plane.addresses().iter().enumerate() {
        let (word, number) = if index < own {
            ("", index)
        } else {
            ("netns", index - own)
        };
        let suffix = match (word, number) {
            ("", 0) => String::new(),
            (word, 0) => format!(".{word}"),
            (word, number) => format!(".{word}{}", number + 1),
        };
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        write_private(&path, control_plane.kubeconfig(*address).as_bytes())
            .with_context(|| format!("--kubeconfig-out: write {}", path.display()))?;
        files.push(path);
    }
    Ok(files)
}
