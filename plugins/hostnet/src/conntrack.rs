//! Connection tracking entries over netlink: find those of some ports, delete the stale ones.
//!
//! An entry keeps sending packets where it did when it was made, whatever rules say since. Entries
//! of UDP live on as long as somebody sends, so a new or removed port mapping needs this.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netstate::nft::Family;
use nix::sys::socket::SockProtocol;

use crate::error::{Result, absent_is_fine};
use crate::socket::Wire;
use crate::sysctl;
use crate::wire::message::{Message, NESTED, Reply, find, read_ip};
use crate::wire::nf;

/// How many connections the namespace has.
const COUNT: &str = "net/netfilter/nf_conntrack_count";
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_DESTINATION_PORT: u32 = 1 << 5;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;

/// A connection, as its first packet was and as its replies come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Layer 4 protocol number.
    pub protocol: u8,
    /// Where the first packet came from.
    pub source: SocketAddr,
    /// Where it wanted to go.
    pub destination: SocketAddr,
    /// Where it went, and replies come from.
    pub answers_from: SocketAddr,
    original: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// A connection to connection tracking in the calling thread's network namespace.
#[derive(Debug)]
pub struct Conntrack {
    wire: Wire,
}

// === impl Conntrack ===

impl Conntrack {
    /// Opens a socket in the network namespace of the calling thread. It stays there.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self> {
        let wire = Wire::open(SockProtocol::NetlinkNetFilter)?;
        Ok(Self { wire })
    }

    /// The connections of `family` that wanted to go to one of `ports`: layer 4 protocol number and
    /// destination port. The kernel goes through its table once, and leaves out of the answer what
    /// it can.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn flows_to(&mut self, family: Family, ports: &BTreeSet<(u8, u16)>) -> Result<Vec<Flow>> {
        let Some((protocol, port)) = ports.first().copied() else {
            return Ok(Vec::new());
        };
        // To go through the kernel's table, which all namespaces share, takes milliseconds.
        if sysctl::read(COUNT).is_ok_and(|count| count == "0") {
            return Ok(Vec::new());
        }
        let mut request = message(GET, family);
        if ports.iter().all(|(other, _)| *other == protocol) {
            let single = (ports.len() == 1).then_some(port);
            filter(&mut request, protocol, single);
        }
        let found = self
            .wire
            .dump(&request, ("list connections of", &"conntrack"))?;
        let flows = found.iter().filter_map(flow);
        Ok(flows
            .filter(|flow| ports.contains(&(flow.protocol, flow.destination.port())))
            .collect())
    }

    /// Deletes one connection; one that is gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, flow: &Flow) -> Result<()> {
        let family = match flow.destination.ip() {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let mut request = message(DELETE, family);
        request.attr(TUPLE_ORIGINAL | NESTED, &flow.original);
        // Not another one that was made in the meantime.
        request.attr(ID, &flow.id);
        if let Some(zone) = &flow.zone {
            request.attr(ZONE, zone);
        }
        let about = ("delete connection to", &flow.destination as _);
        absent_is_fine(self.wire.request(request, about))
    }
}

fn message(kind: u16, family: Family) -> Message {
    let family = match family {
        Family::V4 => nf::NFPROTO_IPV4,
        Family::V6 => nf::NFPROTO_IPV6,
    };
    Message::new(SUBSYSTEM << 8 | kind, 0, &[family, 0, 0, 0])
}

/// Asks for less (kernel 5.8 and later; an older one passes over it).
fn filter(request: &mut Message, protocol: u8, port: Option<u16>) {
    request.nest(TUPLE_ORIGINAL, |tuple| {
        tuple.nest(TUPLE_PROTOCOL, |inner| {
            inner.attr(PROTOCOL_NUMBER, &[protocol]);
            if let Some(port) = port {
                inner.attr(DESTINATION_PORT, &port.to_be_bytes());
            }
        });
    });
    let which = FILTER_PROTOCOL | port.map_or(0, |_| FILTER_DESTINATION_PORT);
    request.nest(FILTER, |filter| {
        filter.u32(FILTER_ORIGINAL, which);
    });
}

fn flow(reply: &Reply) -> Option<Flow> {
    let attributes = reply.body.get(NFGEN..)?;
    let original = find(attributes, TUPLE_ORIGINAL)?;
    let (protocol, source, destination) = tuple(original)?;
    let (_, answers_from, _) = tuple(find(attributes, TUPLE_REPLY)?)?;
    Some(Flow {
        protocol,
        source,
        destination,
        answers_from,
        original: original.to_vec(),
        id: find(attributes, ID)?.to_vec(),
        zone: find(attributes, ZONE).map(<[u8]>::to_vec),
    })
}

/// Protocol, source and destination. Protocols without ports have none of ours.
fn tuple(attributes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = find(attributes, TUPLE_IP)?;
    let inner = find(attributes, TUPLE_PROTOCOL)?;
    let address = |kinds: [u16; 2]| kinds.iter().find_map(|kind| read_ip(find(ip, *kind)?));
    let port = |kind| find(inner, kind)?.try_into().ok().map(u16::from_be_bytes);
    let protocol = *find(inner, PROTOCOL_NUMBER)?.first()?;
    let source = SocketAddr::new(address([1, 3])?, port(SOURCE_PORT)?);
    let destination = SocketAddr::new(address([2, 4])?, port(DESTINATION_PORT)?);
    Some((protocol, source, destination))
}
