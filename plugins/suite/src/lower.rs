//! The device that a pod's device is made on: `master` and `linkInContainer`.

use hostnet::apply::Places;
use hostnet::{LinkInfo, Netlink};
use netstate::{IfName, Link, LinkKind, Mtu, NetnsPath, Op, Step};
use protocol::Error;

use crate::pod;

/// Which device that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lower {
    /// Its name; `None` for the default route's device.
    pub name: Option<IfName>,
    /// It is in the pod rather than on the host.
    pub in_container: bool,
}

// === impl Lower ===

impl Lower {
    /// The device that the keys `master` and `linkInContainer` say.
    ///
    /// # Errors
    /// Code 7 when `master` is no name.
    pub fn read(master: &str, in_container: bool) -> Result<Self, Error> {
        let name = match master {
            "" => None,
            name => Some(
                name.parse()
                    .map_err(|error| Error::config(format!("master: {error}")))?,
            ),
        };
        Ok(Self { name, in_container })
    }

    /// The device as it is now.
    ///
    /// # Errors
    /// Code 7 when it is not there.
    pub fn find(&self, places: &mut Places) -> Result<LinkInfo, Error> {
        if self.in_container {
            self.find_by(places.pod().map_err(|error| pod::kernel(&error))?)
        } else {
            self.find_by(places.host())
        }
    }

    fn find_by(&self, netlink: &mut Netlink) -> Result<LinkInfo, Error> {
        let found = match &self.name {
            Some(name) => netlink.link(name),
            None => netlink.default_route_device(),
        };
        let place = if self.in_container {
            "in the container"
        } else {
            "on the host"
        };
        found.map_err(|error| pod::kernel(&error))?.ok_or_else(|| {
            Error::config(match &self.name {
                Some(name) => {
                    format!(
                        "master {name:?} is no interface {place}; name one that is",
                        name = name.as_str()
                    )
                }
                None => {
                    format!("master is missing and there is no default route {place}; name one")
                }
            })
        })
    }

    /// PURE: the step that makes the device `name` of `kind` in the pod at `netns`.
    #[must_use]
    pub fn create(&self, mut link: Link, netns: &NetnsPath) -> Step {
        if self.in_container {
            return Step::pod(Op::CreateLink(link));
        }
        link.netns = Some(netns.clone());
        Step::host(Op::CreateLink(link))
    }

    /// Checks that `link` is made on the named device. Without a name there is nothing to compare:
    /// the default route may have changed since.
    ///
    /// # Errors
    /// When the device is gone or `link` is on another one.
    pub fn check(&self, places: &mut Places, link: &LinkInfo) -> Result<(), Error> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let lower = self.find(places)?;
        if link.peer == Some(lower.index) && link.peer_elsewhere != self.in_container {
            return Ok(());
        }
        let msg = format!("interface {} is not on master {name}", link.name);
        Err(Error::other(msg))
    }

    /// Whether an ADD would find the device.
    ///
    /// # Errors
    /// Code 50 when it is not there. One in a container cannot be told.
    pub fn status(&self) -> Result<(), Error> {
        if self.in_container {
            return Ok(());
        }
        let mut host = Netlink::open().map_err(|error| pod::kernel(&error))?;
        match self.find_by(&mut host) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::not_available(error.msg)),
        }
    }
}

/// PURE: the key `mtu`, which cannot be more than that of the device below; 0 is the same.
///
/// # Errors
/// Code 7 for less than 68 or more than that.
pub fn mtu(value: i64, lower: &LinkInfo) -> Result<Option<Mtu>, Error> {
    let most = lower.mtu.map_or(65535, Mtu::get);
    let fits = u32::try_from(value).ok().filter(|value| *value <= most);
    match fits.map(Mtu::try_from) {
        Some(_) if value == 0 => Ok(None),
        Some(Ok(mtu)) => Ok(Some(mtu)),
        _ => Err(Error::config(format!(
            "mtu {value} does not go on master {}; give 68 to {most}, or 0 for its own",
            lower.name
        ))),
    }
}

/// PURE: a link called `name`, down.
#[must_use]
pub fn link(name: &IfName, kind: LinkKind, mtu: Option<Mtu>) -> Link {
    let mut link = Link::new(name.clone(), kind);
    link.mtu = mtu;
    link
}
