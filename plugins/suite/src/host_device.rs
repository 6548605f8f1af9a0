//! `host-device`: a device of the host for the pod alone, which gets it back with its own name.

pub mod config;
pub mod sysfs;

use hostnet::apply::{self, Places};
use hostnet::{LinkInfo, Netlink};
use netstate::{IfName, LinkAt, Op, Place, Step};
use protocol::{AddResult, Attachment, Command, Error, Interface, Plugin, Request};

use crate::host_device::config::{Config, Selector};
use crate::host_device::sysfs::Sysfs;
use crate::{device, ipam, pod};

/// The plugin.
#[derive(Debug)]
pub struct HostDevice;

impl Plugin for HostDevice {
    fn name(&self) -> &'static str {
        "host-device"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let sysfs = Sysfs::default();
        let config = config::read(request, &sysfs)?;
        if config.is_userspace(&sysfs) {
            return report(request, &config);
        }
        let name = pod::ifname(request)?;
        let mut result = device::add(request, &config.wish, |places| {
            let link = find(&config.selector, &sysfs, places.host())?;
            Ok(vec![make(&link, &name)])
        })?;
        result.interfaces[0].pci_id = config.selector.pci().unwrap_or_default().to_owned();
        Ok(result)
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let returned = match pod::open_if_there(request) {
            Some(_) => give_back(request),
            None => recover(request),
        };
        returned.and(device::release(request))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let sysfs = Sysfs::default();
        let config = config::read(request, &sysfs)?;
        if !config.is_userspace(&sysfs) {
            let mut places = pod::places(request)?;
            let (link, _) = crate::interface::check(request, &mut places)?;
            check_origin(&config.selector, &link)?;
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

/// PURE: the step that puts `link` into the pod as `name`. Its alias keeps its own name.
#[must_use]
pub fn make(link: &LinkInfo, name: &IfName) -> Step {
    let from = LinkAt {
        place: Place::Host,
        name: link.name.clone(),
        alias: link.alias.clone(),
        up: link.up,
    };
    let to = LinkAt {
        place: Place::Pod,
        name: name.clone(),
        alias: link.name.to_string(),
        up: false,
    };
    Step::host(Op::MoveLink { from, to })
}

/// PURE: the step that puts the pod's `link` back under its own name, if it is one that [`make`]
/// has moved.
#[must_use]
pub fn unmake(link: &LinkInfo) -> Option<Step> {
    let from = LinkAt {
        place: Place::Pod,
        name: link.name.clone(),
        alias: link.alias.clone(),
        up: link.up,
    };
    let to = LinkAt {
        place: Place::Host,
        name: link.alias.parse().ok()?,
        alias: String::new(),
        up: false,
    };
    Some(Step::pod(Op::MoveLink { from, to }))
}

/// A device that a userspace driver has: the kernel has no interface that could be moved.
fn report(request: &Request<'_>, config: &Config) -> Result<AddResult, Error> {
    pod::open(request)?;
    let interface = Interface {
        name: request.ifname.clone(),
        sandbox: request.netns.clone().unwrap_or_default(),
        pci_id: config.selector.pci().unwrap_or_default().to_owned(),
        ..Interface::default()
    };
    let wish = &config.wish;
    let told = |addresses| Ok(device::result(interface, addresses, &wish.dns));
    match &wish.ipam {
        Some(plugin) => ipam::with_addresses(request, plugin, told),
        None => told(AddResult::default()),
    }
}

fn find(selector: &Selector, sysfs: &Sysfs, host: &mut Netlink) -> Result<LinkInfo, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let found = match selector {
        Selector::Name(name) => host.link(name).map_err(failed)?,
        Selector::Mac(mac) => {
            let mut links = host.links().map_err(failed)?.into_iter();
            links.find(|link| link.mac == Some(*mac))
        }
        other => match other
            .folder(sysfs)
            .and_then(|folder| sysfs::first_interface(&folder))
        {
            Some(name) => host.link(&name).map_err(failed)?,
            None => None,
        },
    };
    found.ok_or_else(|| {
        let msg = format!("{selector} is no device of the host; name one that is not in use");
        Error::config(msg)
    })
}

fn check_origin(selector: &Selector, link: &LinkInfo) -> Result<(), Error> {
    let (name, alias) = (&link.name, link.alias.as_str());
    let wrong = match selector {
        Selector::Name(wanted) => alias != wanted.as_str(),
        Selector::Mac(wanted) => link.mac != Some(*wanted),
        _ => alias.is_empty(),
    };
    if wrong {
        let msg = format!("interface {name} is {alias:?} of the host, not {selector}");
        return Err(Error::other(msg));
    }
    Ok(())
}

/// Moves the pod's interface back to the host. One that no ADD of this plugin put there stays.
fn give_back(request: &Request<'_>) -> Result<(), Error> {
    let name = pod::ifname(request)?;
    let mut places = pod::places(request)?;
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let link = places.pod().map_err(failed)?.link(&name).map_err(failed)?;
    let Some(step) = link.and_then(|link| unmake(&link)) else {
        return Ok(());
    };
    apply::run(&mut places, &[step]).map_err(|error| pod::failed(&error))
}

/// The kernel gives a device back when the pod's namespace ends, but under the pod's name for it:
/// it gets its own one again.
fn recover(request: &Request<'_>) -> Result<(), Error> {
    let sysfs = Sysfs::default();
    // A configuration that names no device says nothing about which one came back.
    let Ok(config) = config::read(request, &sysfs) else {
        return Ok(());
    };
    let mut places = Places::open(None).map_err(|error| pod::kernel(&error))?;
    let links = places.host().links().map_err(|error| pod::kernel(&error))?;
    let is_wanted = |link: &&LinkInfo| match &config.selector {
        Selector::Name(name) => link.alias == name.as_str(),
        Selector::Mac(mac) => link.mac == Some(*mac),
        other => {
            let folder = other.folder(&sysfs);
            folder
                .and_then(|folder| sysfs::first_interface(&folder))
                .as_ref()
                == Some(&link.name)
        }
    };
    let came_back = |link: &&LinkInfo| is_kernels_choice(link.name.as_str(), &request.ifname);
    let stray = links.iter().filter(came_back).find(is_wanted);
    let own = stray.and_then(|link| Some((link, link.alias.parse::<IfName>().ok()?)));
    let Some((link, own)) = own.filter(|(_, own)| !links.iter().any(|l| l.name == *own)) else {
        return Ok(());
    };
    let mut host = Netlink::open().map_err(|error| pod::kernel(&error))?;
    host.set_down(&link.name)
        .and_then(|()| host.rename(&link.name, &own))
        .and_then(|()| host.set_alias(&own, ""))
        .map_err(|error| pod::kernel(&error))
}

/// Whether the kernel may have called a device `name` that came back from a pod where it was called
/// `in_pod`: the same, or `dev` and a number where that was taken.
fn is_kernels_choice(name: &str, in_pod: &str) -> bool {
    let number = name.strip_prefix("dev");
    name == in_pod || number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
