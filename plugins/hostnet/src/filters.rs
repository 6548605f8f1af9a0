//! Filters: what comes in by a link goes to another, and what leaves goes to a class
//! (`linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::{IfName, Remote};

use crate::error::{Result, absent_is_fine};
use crate::qdiscs::{ROOT_HANDLE, TCMSG, tcmsg};
use crate::socket::Netlink;
use crate::wire::message::{
    Message, NLM_F_CREATE, NLM_F_EXCL, Reply, attrs, find, read_text, read_u32,
};
use crate::wire::rt::{
    RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER, TC_CLSACT_EGRESS, TC_CLSACT_INGRESS, TCA_KIND,
    TCA_OPTIONS,
};

/// Our filters on what comes in come after everybody else's, of whom some must see every packet
/// (policy): a redirection ends the classification.
pub const REDIRECT_PRIORITY: u16 = 50_000;
/// The reference `bandwidth` plugin's.
const IPV4_PRIORITY: u16 = 16;
const IPV6_PRIORITY: u16 = 15;

const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_U32_TERMINAL: u8 = 1;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
/// Offset of the target's number in `struct tc_mirred`.
const MIRRED_IFINDEX: usize = 24;

/// A filter on what comes in by a link, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterInfo {
    /// Such as `u32` or `bpf`.
    pub kind: String,
    /// Its priority; the least comes first.
    pub priority: u16,
    /// The EtherType it is asked for.
    pub protocol: u16,
    /// Its number among the filters of its priority.
    pub handle: u32,
    /// Number of the link that packets are redirected to, if the filter's first action does that;
    /// 0 when that link is gone.
    pub redirects_to: Option<u32>,
}

// === impl Netlink: filters ===

impl Netlink {
    /// Sends everything that comes in by link `name`, and that no filter before it took, out by link
    /// `to`. Replaces a redirection that is there already, or leads to a link that is gone. The link
    /// needs a `clsact` or an `ingress` qdisc.
    ///
    /// # Errors
    /// When a link or the qdisc is missing, or the kernel refuses.
    pub fn redirect(&mut self, name: &IfName, to: &IfName) -> Result<()> {
        let (link, target) = (self.link_index(name)?, self.link_index(to)?);
        self.delete_redirects(link)?;
        let tail = info(REDIRECT_PRIORITY, ETH_P_ALL);
        let body = tcmsg(link, 0, TC_CLSACT_INGRESS, tail);
        let mut message = Message::new(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &body);
        message.text(TCA_KIND, "u32").nest(TCA_OPTIONS, |m| {
            m.attr(TCA_U32_SEL, &selector(&[(0, 0, 0)]));
            m.nest(TCA_U32_ACT, |list| {
                list.nest(1, |action| {
                    let parameters = mirred(target);
                    action.text(TCA_ACT_KIND, "mirred");
                    action.nest(TCA_ACT_OPTIONS, |m| {
                        m.attr(TCA_MIRRED_PARMS, &parameters);
                    });
                });
            });
        });
        self.wire
            .request(message, ("redirect what comes in by", name))
    }

    /// Removes what [`Netlink::redirect`] made, and redirections to links that are gone, which drop
    /// everything; an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_redirect(&mut self, name: &IfName) -> Result<()> {
        match self.link(name)? {
            Some(link) => self.delete_redirects(link.index),
            None => Ok(()),
        }
    }

    fn delete_redirects(&mut self, link: u32) -> Result<()> {
        for filter in self.filters(link, TC_CLSACT_INGRESS)? {
            let is_ours = filter.priority == REDIRECT_PRIORITY && filter.redirects_to.is_some();
            if is_ours || filter.redirects_to == Some(0) {
                let tail = info(filter.priority, filter.protocol);
                let body = tcmsg(link, filter.handle, TC_CLSACT_INGRESS, tail);
                let message = Message::new(RTM_DELTFILTER, 0, &body);
                let deleted = self.wire.request(message, ("delete filter of link", &link));
                absent_is_fine(deleted)?;
            }
        }
        Ok(())
    }

    /// The filters on what comes in by a link, in the order they are asked.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn ingress_filters(&mut self, link: u32) -> Result<Vec<FilterInfo>> {
        self.filters(link, TC_CLSACT_INGRESS)
    }

    /// The filters of a link's `clsact` or `ingress` qdisc, on what comes in and on what leaves.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn filters_both_ways(&mut self, link: u32) -> Result<Vec<FilterInfo>> {
        let mut filters = self.filters(link, TC_CLSACT_INGRESS)?;
        filters.extend(self.filters(link, TC_CLSACT_EGRESS)?);
        Ok(filters)
    }

    /// How many filters choose a class of a link's `htb`.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn count_class_filters(&mut self, link: u32) -> Result<usize> {
        self.filters(link, ROOT_HANDLE).map(|filters| filters.len())
    }

    fn filters(&mut self, link: u32, parent: u32) -> Result<Vec<FilterInfo>> {
        let message = Message::new(RTM_GETTFILTER, 0, &tcmsg(link, 0, parent, 0));
        match self.wire.dump(&message, ("list filters of link", &link)) {
            Ok(found) => Ok(found.iter().filter_map(parse).collect()),
            // Without the qdisc there is no such parent.
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) if error.kind == crate::ErrorKind::Invalid => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Puts packets whose far address is in `subnet` into `class`.
    pub(crate) fn create_subnet_filter(
        &mut self,
        link: u32,
        name: &IfName,
        subnet: IpNetwork,
        remote: Remote,
        class: u32,
    ) -> Result<()> {
        let (priority, protocol, keys) = match subnet.ip() {
            IpAddr::V4(_) => (IPV4_PRIORITY, ETH_P_IP, subnet_keys(subnet, remote)),
            IpAddr::V6(_) => (IPV6_PRIORITY, ETH_P_IPV6, subnet_keys(subnet, remote)),
        };
        let body = tcmsg(link, 0, ROOT_HANDLE, info(priority, protocol));
        let mut message = Message::new(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &body);
        message.text(TCA_KIND, "u32").nest(TCA_OPTIONS, |m| {
            m.u32(TCA_U32_CLASSID, class);
            m.attr(TCA_U32_SEL, &selector(&keys));
        });
        self.wire.request(message, ("create filter on", name))
    }
}

/// The low half of `tcm_info` is the protocol in network order.
fn info(priority: u16, protocol: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(protocol.to_be())
}

/// `struct tc_u32_sel` with keys of mask, value (both as they are read in network order) and offset
/// from the network header. The last one ends the classification.
fn selector(keys: &[(u32, u32, i32)]) -> Vec<u8> {
    let count = u8::try_from(keys.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![TC_U32_TERMINAL, 0, count, 0];
    bytes.resize(16, 0);
    for (mask, value, offset) in keys {
        bytes.extend(mask.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        bytes.extend(offset.to_ne_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

/// One key a word of the prefix; at least one, which a prefix of length zero makes match all.
fn subnet_keys(subnet: IpNetwork, remote: Remote) -> Vec<(u32, u32, i32)> {
    let (address, mask, source) = match (subnet.ip(), subnet.mask()) {
        (IpAddr::V4(ip), IpAddr::V4(mask)) => (ip.octets().to_vec(), mask.octets().to_vec(), 12),
        (IpAddr::V6(ip), IpAddr::V6(mask)) => (ip.octets().to_vec(), mask.octets().to_vec(), 8),
        _ => return Vec::new(),
    };
    let width = i32::try_from(address.len()).unwrap_or(0);
    let start = match remote {
        Remote::Source => source,
        Remote::Destination => source + width,
    };
    let words = address.chunks_exact(4).zip(mask.chunks_exact(4));
    let word = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map_or(0, u32::from_be_bytes);
    let keys = (start..).step_by(4).zip(words);
    let mut keys: Vec<_> = keys
        .map(|(offset, (ip, mask))| (word(mask), word(ip) & word(mask), offset))
        .collect();
    let used = keys.iter().take_while(|(mask, _, _)| *mask != 0).count();
    keys.truncate(used.max(1));
    keys
}

/// `struct tc_mirred`: redirect to the egress of a link.
fn mirred(target: u32) -> [u8; 28] {
    let mut parameters = [0; 28];
    parameters[8..12].copy_from_slice(&TC_ACT_STOLEN.to_ne_bytes());
    parameters[20..24].copy_from_slice(&TCA_EGRESS_REDIR.to_ne_bytes());
    parameters[MIRRED_IFINDEX..].copy_from_slice(&target.to_ne_bytes());
    parameters
}

/// Tables and priorities without a filter of their own are left out.
fn parse(reply: &Reply) -> Option<FilterInfo> {
    let attributes = reply.body.get(TCMSG..)?;
    let kind = find(attributes, TCA_KIND).map(read_text)?;
    let options = find(attributes, TCA_OPTIONS)?;
    let is_filter = kind != "u32" || find(options, TCA_U32_SEL).is_some();
    let action = find(options, TCA_U32_ACT)
        .filter(|_| kind == "u32")
        .and_then(|list| attrs(list).next())
        .map(|(_, action)| action);
    let redirects_to = action
        .filter(|action| find(action, TCA_ACT_KIND).map(read_text).as_deref() == Some("mirred"))
        .and_then(|action| find(find(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS))
        .map(|parameters| read_u32(parameters, MIRRED_IFINDEX));
    let [priority, protocol] = [16, 0].map(|shift| (read_u32(&reply.body, 16) >> shift) & 0xffff);
    is_filter.then_some(FilterInfo {
        kind,
        priority: u16::try_from(priority).unwrap_or(0),
        protocol: u16::from_be(u16::try_from(protocol).unwrap_or(0)),
        handle: read_u32(&reply.body, 8),
        redirects_to,
    })
}
