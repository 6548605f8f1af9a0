//! Queueing disciplines: observe, create, delete (`linux/pkt_sched.h`).

use netstate::{Bucket, Htb, IfName, Qdisc, QdiscAt};

use crate::error::{Error, Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{
    Message, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Reply, find, read_text, read_u32, read_u64,
};
use crate::wire::rt::{
    RTM_DELQDISC, RTM_GETQDISC, RTM_GETTCLASS, RTM_NEWQDISC, RTM_NEWTCLASS, TC_H_CLSACT, TC_H_ROOT,
    TC_INGRESS_HANDLE, TCA_KIND, TCA_OPTIONS,
};

/// Length of `struct tcmsg`.
pub(crate) const TCMSG: usize = 20;
/// Handle of what we put at a root, as the reference `bandwidth` plugin does: `1:`.
pub const ROOT_HANDLE: u32 = 0x1_0000;
/// The class that nothing limits, and the one with a bucket.
pub(crate) const OPEN_CLASS: u32 = ROOT_HANDLE | 1;
pub(crate) const LIMITED_CLASS: u32 = ROOT_HANDLE | 0x30;
/// 800 Gbit/s, beyond any veth.
const OPEN_BUCKET: Bucket = Bucket {
    rate: 100_000_000_000,
    burst: 100_000_000,
};

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
/// Version 3, ten times the rate as quantum: what `tc` sends.
const HTB_VERSION: u32 = 3;
const HTB_RATE_TO_QUANTUM: u32 = 10;
const RATESPEC: usize = 12;
const CREATE: &str = "create qdisc on";

/// A queueing discipline as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdiscInfo {
    /// Such as `tbf`, `clsact`, `noqueue`.
    pub kind: String,
    /// Its handle; zero for one that the kernel chose.
    pub handle: u32,
    /// What a `tbf` has.
    pub bucket: Option<BucketInfo>,
    /// The class that an `htb` puts packets into which no filter knows.
    pub default_class: u32,
}

/// The bucket of a `tbf` or of a class, as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketInfo {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait; 0 for a class.
    pub limit: u32,
    /// Its size as a time in ticks, modulo 2³².
    pub ticks: u32,
}

// === impl Netlink: qdiscs ===

impl Netlink {
    /// The queueing discipline at one of a link's hooks, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn qdisc(&mut self, link: u32, at: QdiscAt) -> Result<Option<QdiscInfo>> {
        // The kernel answers by a notification, which only an echo brings to the one who asks.
        let message = Message::new(RTM_GETQDISC, NLM_F_ECHO, &tcmsg(link, 0, parent(at), 0));
        match self.wire.query(message, ("find qdisc of link", &link)) {
            Ok(reply) => Ok(reply.as_ref().and_then(parse)),
            Err(error) if error.is_not_found() => Ok(None),
            // A link's built-in `noop` has nothing to show.
            Err(error) if error.kind == crate::ErrorKind::Invalid => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a queueing discipline, with its classes and filters, where none is.
    ///
    /// # Errors
    /// When there is one (that the kernel did not choose itself), or the kernel refuses. Nothing is
    /// left then.
    pub fn create_qdisc(&mut self, name: &IfName, qdisc: &Qdisc) -> Result<()> {
        let link = self.link_index(name)?;
        match qdisc {
            Qdisc::Tbf(bucket) => {
                let message = new(link, at_root(), "tbf", |m| tbf(m, *bucket));
                self.wire.request(message, (CREATE, name))
            }
            Qdisc::Clsact => {
                let place = (TC_INGRESS_HANDLE, TC_H_CLSACT);
                let message = new(link, place, "clsact", |_| {});
                self.wire.request(message, (CREATE, name))
            }
            Qdisc::Htb(htb) => self.create_htb(link, name, htb),
            other => {
                let reason = format!("cannot create {other:?}");
                Err(Error::invalid(CREATE, name, reason))
            }
        }
    }

    /// Removes what hangs at a link's hook, with its filters; an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_qdisc(&mut self, name: &IfName, at: QdiscAt) -> Result<()> {
        let link = match self.link_index(name) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let message = Message::new(RTM_DELQDISC, 0, &tcmsg(link, 0, parent(at), 0));
        match self.wire.request(message, ("delete qdisc of", name)) {
            // The kernel's own has handle zero and cannot be deleted; an absent ingress is invalid.
            Err(error) if error.kind == crate::ErrorKind::Invalid => Ok(()),
            other => absent_is_fine(other),
        }
    }

    fn create_htb(&mut self, link: u32, name: &IfName, htb: &Htb) -> Result<()> {
        let default = default_class(htb);
        let chosen = OPEN_CLASS ^ LIMITED_CLASS ^ default;
        let message = new(link, at_root(), "htb", |m| {
            let mut glob = [0; 20];
            let minor = default & 0xffff;
            for (at, value) in [HTB_VERSION, HTB_RATE_TO_QUANTUM, minor].iter().enumerate() {
                glob[at * 4..at * 4 + 4].copy_from_slice(&value.to_ne_bytes());
            }
            m.attr(TCA_HTB_INIT, &glob);
        });
        self.wire.request(message, (CREATE, name))?;
        let filled = self.fill_htb(link, name, htb, chosen);
        if filled.is_err() {
            // The first failure is the one to tell; the qdisc takes its classes and filters along.
            let _ = self.delete_qdisc(name, QdiscAt::Root);
        }
        filled
    }

    fn fill_htb(&mut self, link: u32, name: &IfName, htb: &Htb, chosen: u32) -> Result<()> {
        for (class, bucket) in [(LIMITED_CLASS, htb.bucket), (OPEN_CLASS, OPEN_BUCKET)] {
            let body = tcmsg(link, class, ROOT_HANDLE, 0);
            let mut message = Message::new(RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_EXCL, &body);
            message
                .text(TCA_KIND, "htb")
                .nest(TCA_OPTIONS, |m| htb_class(m, bucket));
            self.wire.request(message, ("create class on", name))?;
        }
        for subnet in &htb.subnets {
            self.create_subnet_filter(link, name, *subnet, htb.remote, chosen)?;
        }
        Ok(())
    }

    /// The buckets of a link's two `htb` classes, the limited one first, if both are there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn classes(&mut self, link: u32) -> Result<Option<(BucketInfo, BucketInfo)>> {
        let message = Message::new(RTM_GETTCLASS, 0, &tcmsg(link, 0, 0, 0));
        let found = self.wire.dump(&message, ("list classes of link", &link))?;
        let of = |class| {
            let reply = found
                .iter()
                .find(|reply| read_u32(&reply.body, 8) == class)?;
            let options = find(reply.body.get(TCMSG..)?, TCA_OPTIONS)?;
            let parameters = find(options, TCA_HTB_PARMS)?;
            Some(BucketInfo {
                rate: rate(parameters, find(options, TCA_HTB_RATE64)),
                limit: 0,
                ticks: read_u32(parameters, 2 * RATESPEC),
            })
        };
        Ok(of(LIMITED_CLASS).zip(of(OPEN_CLASS)))
    }
}

/// The class of packets that no subnet's filter knows.
#[must_use]
pub const fn default_class(htb: &Htb) -> u32 {
    if htb.limited {
        OPEN_CLASS
    } else {
        LIMITED_CLASS
    }
}

/// `struct tcmsg`.
pub(crate) fn tcmsg(link: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut body = [0; TCMSG];
    for (at, value) in [link, handle, parent, info].iter().enumerate() {
        body[at * 4 + 4..at * 4 + 8].copy_from_slice(&value.to_ne_bytes());
    }
    body
}

const fn parent(at: QdiscAt) -> u32 {
    match at {
        QdiscAt::Root => TC_H_ROOT,
        QdiscAt::Ingress => TC_H_CLSACT,
    }
}

const fn at_root() -> (u32, u32) {
    (ROOT_HANDLE, TC_H_ROOT)
}

fn new(
    link: u32,
    (handle, parent): (u32, u32),
    kind: &str,
    options: impl FnOnce(&mut Message),
) -> Message {
    let body = tcmsg(link, handle, parent, 0);
    let mut message = Message::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &body);
    message.text(TCA_KIND, kind).nest(TCA_OPTIONS, options);
    message
}

/// `struct tc_ratespec`, of which only the rate counts here.
fn ratespec(rate: u64) -> [u8; RATESPEC] {
    let mut spec = [0; RATESPEC];
    let rate = u32::try_from(rate).unwrap_or(u32::MAX);
    spec[8..].copy_from_slice(&rate.to_ne_bytes());
    spec
}

fn ticks(bucket: Bucket) -> [u8; 4] {
    u32::try_from(bucket.ticks())
        .unwrap_or(u32::MAX)
        .to_ne_bytes()
}

/// `struct tc_tbf_qopt` and what does not fit into it.
fn tbf(message: &mut Message, bucket: Bucket) {
    let mut parameters = Vec::with_capacity(36);
    parameters.extend(ratespec(bucket.rate));
    parameters.extend([0; RATESPEC]);
    parameters.extend(bucket.limit().to_ne_bytes());
    parameters.extend(ticks(bucket));
    parameters.extend([0; 4]);
    message.attr(TCA_TBF_PARMS, &parameters);
    if bucket.rate > u64::from(u32::MAX) {
        message.attr(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
    }
    if bucket.is_given_as_size() {
        message.u32(TCA_TBF_BURST, bucket.burst);
    }
}

/// `struct tc_htb_opt` and what does not fit into it. The ceiling is the rate: nothing is lent.
fn htb_class(message: &mut Message, bucket: Bucket) {
    let mut parameters = Vec::with_capacity(44);
    parameters.extend(ratespec(bucket.rate));
    parameters.extend(ratespec(bucket.rate));
    parameters.extend(ticks(bucket));
    parameters.extend(ticks(bucket));
    parameters.extend([0; 12]);
    message.attr(TCA_HTB_PARMS, &parameters);
    if bucket.rate > u64::from(u32::MAX) {
        message.attr(TCA_HTB_RATE64, &bucket.rate.to_ne_bytes());
        message.attr(TCA_HTB_CEIL64, &bucket.rate.to_ne_bytes());
    }
}

fn rate(parameters: &[u8], wide: Option<&[u8]>) -> u64 {
    let narrow = u64::from(read_u32(parameters, 8));
    wide.map_or(narrow, |wide| read_u64(wide, 0).max(narrow))
}

fn parse(reply: &Reply) -> Option<QdiscInfo> {
    let attributes = reply.body.get(TCMSG..)?;
    let kind = find(attributes, TCA_KIND).map(read_text)?;
    let options = find(attributes, TCA_OPTIONS).unwrap_or_default();
    let bucket = find(options, TCA_TBF_PARMS).filter(|_| kind == "tbf");
    let glob = find(options, TCA_HTB_INIT).filter(|_| kind == "htb");
    Some(QdiscInfo {
        handle: read_u32(&reply.body, 8),
        bucket: bucket.map(|parameters| BucketInfo {
            rate: rate(parameters, find(options, TCA_TBF_RATE64)),
            limit: read_u32(parameters, 2 * RATESPEC),
            ticks: read_u32(parameters, 2 * RATESPEC + 4),
        }),
        default_class: glob.map_or(0, |glob| ROOT_HANDLE | read_u32(glob, 8)),
        kind,
    })
}
