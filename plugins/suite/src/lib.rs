//! The CNI plugins. One program under many names: the name it is called by says which it is.
//!
//! Each plugin has a `config` (the network configuration, checked), a `plan` (pure: request,
//! addresses and facts about the host to steps and result) and a thin [`protocol::Plugin`] that
//! joins them: config, IPAM, plan, [`hostnet::apply`], result; on failure undo, then IPAM DEL.
#![forbid(unsafe_code)]

pub mod bandwidth;
pub mod bridge;
pub mod delegate;
pub mod device;
pub mod dns;
pub mod dummy;
pub mod firewall;
pub mod flannel;
pub mod host_device;
pub mod host_local;
pub mod identity;
pub mod interface;
pub mod ipam;
pub mod ipvlan;
pub mod loopback;
pub mod lower;
pub mod mac;
pub mod macvlan;
pub mod masquerade;
pub mod owner;
pub mod pair;
pub mod pod;
pub mod portmap;
pub mod ptp;
pub mod saved;
pub mod sbr;
pub mod static_addresses;
pub mod subnet;
pub mod tap;
pub mod towline;
pub mod tuning;
pub mod vlan;
pub mod vrf;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use protocol::{Env, Plugin, Registry};

/// Every plugin of this program.
pub static PLUGINS: &[&dyn Plugin] = &[
    &bandwidth::Bandwidth,
    &bridge::Bridge,
    &dummy::Dummy,
    &flannel::Flannel,
    &host_device::HostDevice,
    &firewall::Firewall,
    &host_local::HostLocal,
    &ipvlan::Ipvlan,
    &loopback::Loopback,
    &macvlan::Macvlan,
    &portmap::Portmap,
    &ptp::Ptp,
    &static_addresses::Static,
    &sbr::Sbr,
    &tap::Tap,
    &towline::Towline,
    &tuning::Tuning,
    &vlan::Vlan,
    &vrf::Vrf,
];

/// The name of the program that is no plugin.
const MULTI_CALL: &str = "towline-cni";

/// Runs the plugin that this program is called as: by its own name, or as `towline-cni NAME`.
#[must_use]
pub fn main() -> ExitCode {
    let registry = Registry::new(PLUGINS);
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let own = Path::new(&called)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let first = arguments.next().unwrap_or_default();
    if matches!(first.as_str(), "--version" | "-V") {
        println!("{own} (Towline) {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let name = if own == MULTI_CALL { &first } else { own };
    let Some(plugin) = registry.find(name) else {
        let names: Vec<&str> = registry.names().collect();
        eprintln!(
            "{name:?} is no plugin of {MULTI_CALL}; call it as one of: {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    };
    let env = Env::of_process();
    protocol::run(
        plugin,
        registry,
        &env,
        &mut io::stdin().lock(),
        &mut io::stdout().lock(),
    )
    .into()
}
