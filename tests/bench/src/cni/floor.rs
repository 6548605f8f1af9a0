//! The kernel's floor: the bare calls that an ADD or DEL cannot do without, made in this process,
//! with nothing looked up, checked, remembered or reported. The routing sockets are open already.
//! That of nftables is opened and closed each time, because the kernel waits at its closing when
//! rules were removed, which no process that ends can avoid.

use std::path::Path;
use std::time::{Duration, Instant};

use hostnet::apply::{self, Places};
use hostnet::{Netns, Nftables};
use netstate::nft::{Addresses, Chain, ChainRef, Match, Rule, SharedRules, Table, Verdict};
use netstate::{Address, Link, LinkKind, Op, Route, Step, VethPeer};

use crate::cni::node::{Host, Pod};

const BRIDGE: &str = "cni0";
const TABLE: &str = "floor";
const CHAIN: &str = "rules";
const COMMENT: &str = "one";

/// What the calls make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A veth to a bridge, an address, a route.
    Bridge,
    /// The same and one nftables rule.
    Masqueraded,
    /// As the first, for two families.
    DualBridge,
    /// A veth, both families' addresses on both ends, host routes.
    DualPtp,
    /// One nftables rule.
    Rule,
}

/// A host on which the calls are made.
pub(crate) struct Floor {
    kind: Kind,
    host: Host,
    pod: Pod,
    places: Places,
}

// === impl Floor ===

impl Floor {
    pub(crate) fn new(kind: Kind) -> anyhow::Result<Self> {
        let host = Host::new("floor", Path::new("/nonexistent"))?;
        let pod = host.pod("pod")?;
        let inside = host.enter()?;
        let netns = Netns::open(&path(&pod)?)?;
        let mut places = Places::open(Some(netns))?;
        let bridge = Link::new(BRIDGE.parse()?, LinkKind::Bridge).up();
        let mut steps = vec![Step::host(Op::EnsureLink(bridge))];
        for address in ["10.88.0.1/16", "fd00:88::1/64"] {
            let address = Address::new(address.parse()?);
            steps.push(Step::host(Op::EnsureAddress(BRIDGE.parse()?, address)));
        }
        apply::run(&mut places, &steps)?;
        // Another port, as on a node that has a pod already.
        let other = VethPeer {
            name: "other1".parse()?,
            netns: None,
            mac: None,
        };
        let mut port = Link::new("other0".parse()?, LinkKind::Veth(other)).up();
        port.master = Some(BRIDGE.parse()?);
        places.host().create_link(&port)?;
        places.host().set_up(&"other1".parse()?)?;
        drop(inside);
        Ok(Self {
            kind,
            host,
            pod,
            places,
        })
    }

    pub(crate) fn add(&mut self) -> anyhow::Result<Duration> {
        let (steps, rules) = (self.steps()?, rules()?);
        let _inside = self.host.enter()?;
        let start = Instant::now();
        apply::run(&mut self.places, &steps)?;
        if matches!(self.kind, Kind::Masqueraded | Kind::Rule) {
            Nftables::open()?.add_rules(&rules)?;
        }
        Ok(start.elapsed())
    }

    pub(crate) fn del(&mut self) -> anyhow::Result<Duration> {
        let (name, chain) = ("veth0".parse()?, ChainRef::inet(TABLE, CHAIN));
        let _inside = self.host.enter()?;
        let start = Instant::now();
        let mut nftables = None;
        if matches!(self.kind, Kind::Masqueraded | Kind::Rule) {
            let nftables = nftables.insert(Nftables::open()?);
            nftables.delete_rules(&[chain], &|owner| owner.comment == COMMENT)?;
        }
        if self.kind != Kind::Rule {
            self.places.host().delete_link(&name)?;
        }
        drop(nftables);
        Ok(start.elapsed())
    }

    fn steps(&self) -> anyhow::Result<Vec<Step>> {
        if self.kind == Kind::Rule {
            return Ok(Vec::new());
        }
        let (host, pod) = ("veth0".parse()?, "eth0".parse()?);
        let dual = matches!(self.kind, Kind::DualBridge | Kind::DualPtp);
        let peer = VethPeer {
            name: pod,
            netns: Some(path(&self.pod)?),
            mac: None,
        };
        let pod = peer.name.clone();
        let mut veth = Link::new(host, LinkKind::Veth(peer)).up();
        let host = veth.name.clone();
        if self.kind != Kind::DualPtp {
            veth.master = Some(BRIDGE.parse()?);
        }
        let mut steps = vec![Step::host(Op::CreateLink(veth))];
        let families = [
            ("10.88.0.2/16", "0.0.0.0/0", "10.88.0.1"),
            ("fd00:88::2/64", "::/0", "fd00:88::1"),
        ];
        let families = &families[..if dual { 2 } else { 1 }];
        for (address, _, _) in families {
            let address = Address::new(address.parse()?);
            steps.push(Step::pod(Op::AddAddress(pod.clone(), address)));
        }
        steps.push(Step::pod(Op::SetUp(pod.clone())));
        for (_, to, gateway) in families {
            let mut route = Route::via_device(to.parse()?, pod.clone());
            route.gateway = Some(gateway.parse()?);
            steps.push(Step::pod(Op::AddRoute(route)));
        }
        if self.kind == Kind::DualPtp {
            for address in ["10.89.0.1/32", "fd00:89::1/128"] {
                let address = Address::new(address.parse()?);
                steps.push(Step::host(Op::AddAddress(host.clone(), address)));
            }
            for to in ["10.89.0.2/32", "fd00:89::2/128"] {
                let route = Route::via_device(to.parse()?, host.clone());
                steps.push(Step::host(Op::AddRoute(route)));
            }
        }
        Ok(steps)
    }
}

fn path(pod: &Pod) -> anyhow::Result<netstate::NetnsPath> {
    Ok(pod.netns.to_string_lossy().parse()?)
}

/// One rule in a chain that nothing jumps to.
fn rules() -> anyhow::Result<SharedRules> {
    let mut frame = Table::new(TABLE);
    frame.chains.insert(CHAIN.to_owned(), Chain::default());
    let source = Match::Source(Addresses::Prefix("10.88.0.2/32".parse()?));
    let rule = Rule::new(vec![source], Verdict::Accept);
    Ok(SharedRules::in_chain(frame, CHAIN, COMMENT, vec![rule]))
}
