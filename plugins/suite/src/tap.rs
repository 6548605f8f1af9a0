//! `tap`: a tap device in the pod, for a process that is a machine.

pub mod config;

use hostnet::LinkDetails;
use netstate::{IfName, MacAddr, Op, Step, Tap as Device};
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::tap::config::Config;
use crate::{device, pair, pod};

/// The kernel's name for the kind.
const KIND: &str = "tun";

/// The plugin.
#[derive(Debug)]
pub struct Tap;

impl Plugin for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let name = pod::ifname(request)?;
        let own_mac = pair::identity(request).pod_mac();
        device::add(request, &config.wish, |_| Ok(make(&config, &name, own_mac)))
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        device::delete(request, KIND)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let link = device::check(request, &mut places, KIND)?;
        let wanted = LinkDetails::Tap {
            multi_queue: config.multi_queue,
            owner: config.owner,
            group: config.group,
        };
        if link.details != wanted {
            let (name, found) = (&link.name, link.details);
            let msg = format!("interface {name} is {found:?}, not {wanted:?}");
            return Err(Error::other(msg));
        }
        if let Some(bridge) = &config.bridge {
            let failed = |error: hostnet::Error| pod::kernel(&error);
            let master = places.pod().map_err(failed)?.link(bridge).map_err(failed)?;
            if master.map(|master| master.index) != link.master {
                let msg = format!("interface {} is no port of bridge {bridge}", link.name);
                return Err(Error::other(msg));
            }
        }
        device::forward(request, Command::Check)
    }

    fn gc(&self, request: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        device::forward(request, Command::Gc)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        device::forward(request, Command::Status)
    }
}

/// PURE: the steps that make `name` in the pod; `own_mac` is its Ethernet address when nobody asked
/// for another.
#[must_use]
pub fn make(config: &Config, name: &IfName, own_mac: MacAddr) -> Vec<Step> {
    let tap = Device {
        name: name.clone(),
        multi_queue: config.multi_queue,
        owner: config.owner,
        group: config.group,
        selinux_context: config.selinux_context.clone(),
    };
    let mac = config.mac.unwrap_or(own_mac);
    let mut steps = vec![
        Step::pod(Op::CreateTap(tap)),
        Step::pod(Op::SetMac(name.clone(), mac)),
    ];
    let mtu = config.mtu.map(|mtu| Op::SetMtu(name.clone(), mtu));
    let bridge = config.bridge.clone();
    let port = bridge.map(|bridge| Op::SetMaster(name.clone(), bridge));
    steps.extend(mtu.into_iter().chain(port).map(Step::pod));
    steps
}
