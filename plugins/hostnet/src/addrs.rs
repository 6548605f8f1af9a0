//! Addresses of interfaces: observe, add, delete.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::{Address, IfName};

use crate::error::{Error, Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{Message, NLM_F_CREATE, NLM_F_EXCL, Reply, find, read_ip, read_u32};
use crate::wire::rt::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE, IFA_F_PERMANENT, IFA_F_TEMPORARY, IFA_F_TENTATIVE, IFA_FLAGS, IFA_LOCAL,
    RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR,
};

/// Length of `struct ifaddrmsg`.
const IFADDR: usize = 8;

/// An address as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressInfo {
    /// Number of its interface.
    pub index: u32,
    /// Address and prefix length.
    pub ip: IpNetwork,
    /// Duplicate address detection has not ended: the address cannot be used yet.
    pub tentative: bool,
    /// Somebody else has the address.
    pub dad_failed: bool,
    /// It has no lifetime, and was set by configuration rather than by router advertisement.
    pub permanent: bool,
    /// It is not to be used for anything new, because it is deprecated, or (over IPv6) because it is a
    /// temporary one that another one will follow (RFC 8981).
    pub passing: bool,
    /// The kernel's scope number (0 universe, 253 link, 254 host).
    pub scope: u8,
}

// === impl Netlink: addresses ===

impl Netlink {
    /// All addresses of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn all_addresses(&mut self) -> Result<Vec<AddressInfo>> {
        self.dump_addresses(0, ("list", &"addresses"))
    }

    /// The addresses of one interface.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses to tell.
    pub fn addresses(&mut self, device: &IfName) -> Result<Vec<AddressInfo>> {
        let index = self.link_index(device)?;
        self.dump_addresses(index, ("list addresses of", device))
    }

    /// Adds an address.
    ///
    /// # Errors
    /// When there is no such interface, the address is there or the kernel refuses.
    pub fn add_address(&mut self, device: &IfName, address: &Address) -> Result<()> {
        let index = self.link_index(device)?;
        let ip = address.ip;
        let mut body = ifaddr(index, ip);
        body[3] = address.scope.map_or(0, netstate::Scope::number);
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body);
        message.ip(IFA_LOCAL, ip.ip()).ip(IFA_ADDRESS, ip.ip());
        if let IpNetwork::V4(v4) = ip
            && v4.prefix() < 31
        {
            message.ip(IFA_BROADCAST, IpAddr::V4(v4.broadcast()));
        }
        let mut flags = 0;
        if address.nodad && ip.is_ipv6() {
            flags |= IFA_F_NODAD;
        }
        if address.no_prefix_route {
            flags |= IFA_F_NOPREFIXROUTE;
        }
        if flags != 0 {
            message.u32(IFA_FLAGS, flags);
        }
        self.wire
            .request(message, ("add address", &format!("{ip} dev {device}")))
    }

    /// Removes an address; an absent one, or an absent interface, is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_address(&mut self, device: &IfName, ip: IpNetwork) -> Result<()> {
        let index = match self.link_index(device) {
            Ok(index) => index,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut message = Message::new(RTM_DELADDR, 0, &ifaddr(index, ip));
        message.ip(IFA_LOCAL, ip.ip()).ip(IFA_ADDRESS, ip.ip());
        let shown = format!("{ip} dev {device}");
        absent_is_fine(self.wire.request(message, ("delete address", &shown)))
    }

    fn dump_addresses(
        &mut self,
        index: u32,
        about: crate::socket::About<'_>,
    ) -> Result<Vec<AddressInfo>> {
        let mut body = [0; IFADDR];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let found = self
            .wire
            .dump(&Message::new(RTM_GETADDR, 0, &body), about)?;
        // There are families of other kinds (MCTP, Phonet).
        let is_ip = |reply: &&Reply| {
            let family = reply.body.first().copied().map_or(0, i32::from);
            matches!(family, libc::AF_INET | libc::AF_INET6)
        };
        found
            .iter()
            .filter(is_ip)
            .map(|reply| {
                parse(reply).ok_or_else(|| Error::invalid(about.0, about.1, "is unreadable"))
            })
            .collect()
    }
}

fn ifaddr(index: u32, ip: IpNetwork) -> [u8; IFADDR] {
    let mut body = [0; IFADDR];
    body[0] = family(ip.ip());
    body[1] = ip.prefix();
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(ip: IpAddr) -> u8 {
    let family = if ip.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    u8::try_from(family).unwrap_or(0)
}

fn parse(reply: &Reply) -> Option<AddressInfo> {
    let attributes = reply.body.get(IFADDR..)?;
    let ip = find(attributes, IFA_LOCAL).or_else(|| find(attributes, IFA_ADDRESS))?;
    let flags = find(attributes, IFA_FLAGS)
        .map_or_else(|| u32::from(reply.body[2]), |value| read_u32(value, 0));
    let ip = IpNetwork::new(read_ip(ip)?, reply.body[1]).ok()?;
    // Over IPv4 the same bit means a second address of one network.
    let temporary = ip.is_ipv6() && flags & IFA_F_TEMPORARY != 0;
    Some(AddressInfo {
        index: read_u32(&reply.body, 4),
        ip,
        tentative: flags & IFA_F_TENTATIVE != 0,
        dad_failed: flags & IFA_F_DADFAILED != 0,
        permanent: flags & IFA_F_PERMANENT != 0,
        passing: temporary || flags & IFA_F_DEPRECATED != 0,
        scope: reply.body[3],
    })
}
