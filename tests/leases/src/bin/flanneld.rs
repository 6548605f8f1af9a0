//! The model of flanneld as a program: it works in the network namespace that it is started in, and
//! is called what the real one is called, which is how it is recognised.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use etcd_client::Client;
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, sleep};
use towline_leases::Flanneld;
use towline_leases::flanneld::host::{Interface, read_subnet_file, write_subnet_file};
use towline_leases::flanneld::rules::Rules;
use towline_leases::flanneld::vxlan::Vxlan;
use towline_leases::flanneld::{Exit, Subnets};

/// `--iptables-resync`.
const RESYNC: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    etcd_endpoints: String,
    #[arg(long)]
    iface: String,
    #[arg(long)]
    subnet_file: PathBuf,
    /// Seconds that its lease lives; the real one has no such flag
    #[arg(long, default_value_t = 86_400)]
    ttl: i64,
    /// Seconds before the lease's end at which it is renewed; the real one counts in minutes
    #[arg(long, default_value_t = 3_600)]
    renew_margin: u64,
}

/// What is in `config`.
struct NetworkConfig {
    network: Ipv4Network,
    network_v6: Option<Ipv6Network>,
    vni: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(Exit::Revoked) => {
            say("Lease has been revoked. Shutting down daemon.");
            ExitCode::SUCCESS
        }
        Ok(Exit::Failed(reason)) => {
            say(&format!("ended: {reason}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("ended: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `main`, from the configuration to the end.
async fn serve(arguments: Arguments) -> Result<Exit> {
    let client = Client::connect([&arguments.etcd_endpoints], None).await?;
    let config = network_config(client.clone()).await;
    let mut interface = Interface::named(&arguments.iface)?;
    if config.network_v6.is_none() {
        interface.v6 = None;
    }
    let mut vxlan = Vxlan::set_up(&interface, config.vni)?;
    let flanneld = Flanneld {
        public_ip: interface.v4,
        value: vxlan.value(),
        network: config.network,
        network_v6: config.network_v6,
        previous: read_subnet_file(&arguments.subnet_file),
        ttl: arguments.ttl,
        margin: Duration::from_secs(arguments.renew_margin),
    };
    let mut running = flanneld.start(client).await?;
    let own = Subnets {
        v4: running.subnet,
        v6: running.subnet_v6,
    };
    say(&format!("lease {}", own.key()));
    vxlan.configure(&own)?;
    let rules = rules(&config, &own);
    for family in &rules {
        family.ensure()?;
    }
    let networks = (config.network, config.network_v6);
    write_subnet_file(&arguments.subnet_file, networks, &own, vxlan.mtu())?;
    say("running");

    let (mut peers, mut renewals) = (running.peers.clone(), running.renewals.clone());
    let mut resync = interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = peers.borrow_and_update().clone();
        vxlan.handle(&now, &mut say);
        let goes_on = tokio::select! {
            changed = peers.changed() => changed.is_ok(),
            changed = renewals.changed() => {
                say("renewed");
                changed.is_ok()
            }
            _ = resync.tick() => {
                for family in &rules {
                    if let Err(error) = family.ensure() {
                        say(&format!("error: {error:#}"));
                    }
                }
                true
            }
        };
        if !goes_on {
            return running.ended().await;
        }
    }
}

/// Asked for every second until it is there.
async fn network_config(mut client: Client) -> NetworkConfig {
    loop {
        let asked = async {
            let found = client.get("/coreos.com/network/config", None).await?;
            let pair = found.kvs().first().context("no config")?;
            let value: Value = serde_json::from_slice(pair.value())?;
            let text = |key: &str| value[key].as_str().context("not in the configuration");
            let v6 = value["EnableIPv6"] == true;
            anyhow::Ok(NetworkConfig {
                network: text("Network")?.parse()?,
                network_v6: v6
                    .then(|| text("IPv6Network"))
                    .transpose()?
                    .map(str::parse)
                    .transpose()?,
                vni: value["Backend"]["VNI"].as_u64().unwrap_or(1),
            })
        };
        match asked.await {
            Ok(config) => return config,
            Err(error) => say(&format!("Couldn't fetch network config: {error:#}")),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn rules(config: &NetworkConfig, own: &Subnets) -> Vec<Rules> {
    let v4 = Rules::new(true, &config.network.to_string(), &own.v4.to_string());
    let v6 = config.network_v6.zip(own.v6);
    let v6 = v6.map(|(network, own)| Rules::new(false, &network.to_string(), &own.to_string()));
    [v4].into_iter().chain(v6).collect()
}

/// One line of the log.
fn say(line: &str) {
    eprintln!("{line}");
}
