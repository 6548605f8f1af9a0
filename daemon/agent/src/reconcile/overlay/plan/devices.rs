//! The devices of each backend that has some.

use desired::cluster::{Backend, Cluster};
use desired::lease::attributes::{VxlanData, WireguardData};
use desired::routes::Carrier;
use desired::stable_id::ContentHash;
use netstate::wireguard;
use netstate::{IfName, LinkKind, MacAddr, Mtu, Vni, Vxlan};

use super::{Device, Facts, Parts, device_name};
use crate::config::{NetConf, VxlanConf, WireguardConf};
use crate::reconcile::overlay_device::Vtep;

/// Bytes that VXLAN adds to a packet, over IPv4 and over IPv6.
const VXLAN_OVERHEAD: [u32; 2] = [50, 70];
/// Bytes that a second IPv4 header takes.
const IPIP_OVERHEAD: u32 = 20;
/// Bytes that WireGuard adds to a packet over IPv6, and flannel allows for over IPv4 too.
const WIREGUARD_OVERHEAD: u32 = 80;

pub(super) fn both(carrier: &Carrier) -> [Carrier; 2] {
    [carrier.clone(), carrier.clone()]
}

fn name(net: &NetConf, v4: bool) -> Result<IfName, String> {
    match device_name(&net.backend, v4) {
        Ok(Some(name)) => Ok(name),
        Ok(None) => Err("this backend has no device".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn up(kind: LinkKind, mac: Option<MacAddr>, mtu: Mtu) -> Vtep {
    Vtep {
        kind,
        mac,
        mtu: Some(mtu),
        up: true,
        marked: true,
    }
}

pub(super) fn vxlan(
    conf: &VxlanConf,
    net: &NetConf,
    cluster: &Cluster,
    facts: &Facts,
    outer: Mtu,
) -> Result<Parts, String> {
    let uplink = &facts.uplink;
    let announced = cluster.own_lease().and_then(|lease| lease.announced);
    let known = match announced.map(|one| &one.backend) {
        Some(Backend::Vxlan { v4, v6 }) => [*v4, *v6],
        _ => [None, None],
    };
    let locals = [
        uplink.v4.map(|ends| ends.local.into()),
        uplink.v6.map(|ends| ends.local.into()),
    ];
    let (mut devices, mut data) = (Vec::new(), [None, None]);
    let mut carriers = both(&Carrier::Alloc);
    let mut inner = outer;
    for (at, v4) in [(0, true), (1, false)] {
        let Some(local) = locals[at] else { continue };
        let name = name(net, v4)?;
        let mac = mac(conf.vni, v4, known[at], facts.macs[at], cluster);
        let mtu = outer.less(VXLAN_OVERHEAD[at]);
        inner = inner.min(mtu);
        let vxlan = Vxlan {
            vni: conf.vni,
            port: conf.port,
            local: Some(local),
            device: Some(uplink.device.clone()),
            learning: conf.learning,
            gbp: conf.gbp,
        };
        carriers[at] = Carrier::Vxlan {
            device: name.clone(),
            vni: conf.vni,
            mac,
            direct_routing: conf.direct_routing,
        };
        data[at] = Some(VxlanData {
            vni: conf.vni,
            vtep_mac: mac,
        });
        devices.push(Device {
            name,
            v4,
            vtep: up(LinkKind::Vxlan(vxlan), Some(mac), mtu),
            tx_checksum: facts.tx_checksum,
            wireguard: None,
        });
    }
    let [v4, v6] = data;
    Ok((devices, Backend::Vxlan { v4, v6 }, carriers, inner))
}

/// The MAC that others know already, else the device's, else one made from the node's name:
/// a restart, even one of the machine, changes nothing for the others.
fn mac(
    vni: Vni,
    v4: bool,
    known: Option<VxlanData>,
    present: Option<MacAddr>,
    cluster: &Cluster,
) -> MacAddr {
    let known = known.filter(|data| data.vni == vni);
    let known = known
        .map(|data| data.vtep_mac)
        .filter(|mac| mac.is_unicast());
    known.or(present).unwrap_or_else(|| {
        let hash = |part: u64| {
            ContentHash::new("vtep-mac")
                .part(cluster.this_node.name.as_str().as_bytes())
                .number(u64::from(vni.get()))
                .number(part + if v4 { 0 } else { 2 })
                .finish()
        };
        let [a, b, c, d] = hash(0).to_be_bytes();
        let [e, f, ..] = hash(1).to_be_bytes();
        MacAddr::local([a, b, c, d, e, f])
    })
}

/// One device for all nodes, over IPv4.
pub(super) fn ipip(
    net: &NetConf,
    facts: &Facts,
    outer: Mtu,
    direct_routing: bool,
) -> Result<Parts, String> {
    let ends = facts.uplink.v4.ok_or("ipip needs an IPv4 network")?;
    let (device, mtu) = (name(net, true)?, outer.less(IPIP_OVERHEAD));
    let carrier = Carrier::Ipip {
        device: device.clone(),
        direct_routing,
    };
    let devices = vec![Device {
        name: device,
        v4: true,
        vtep: up(LinkKind::Ipip { local: ends.local }, None, mtu),
        tx_checksum: None,
        wireguard: None,
    }];
    Ok((devices, Backend::Ipip, [carrier, Carrier::Alloc], mtu))
}

/// A device for each family, both with the one key of this node.
pub(super) fn wireguard(
    conf: &WireguardConf,
    net: &NetConf,
    facts: &Facts,
    outer: Mtu,
) -> Result<Parts, String> {
    let private_key = facts
        .wireguard_key
        .ok_or("this node has no WireGuard key")?;
    let public_key = private_key.public().to_string();
    let mtu = outer.less(WIREGUARD_OVERHEAD);
    let (mut devices, mut data) = (Vec::new(), [None, None]);
    let mut carriers = both(&Carrier::Alloc);
    for network in net.networks() {
        let v4 = network.is_ipv4();
        let (at, port) = if v4 {
            (0, conf.port)
        } else {
            (1, conf.port_v6)
        };
        let device = name(net, v4)?;
        carriers[at] = Carrier::Wireguard {
            device: device.clone(),
            network,
        };
        data[at] = Some(WireguardData {
            public_key: public_key.clone(),
            port,
        });
        devices.push(Device {
            name: device,
            v4,
            vtep: up(LinkKind::Wireguard, None, mtu),
            tx_checksum: None,
            wireguard: Some(wireguard::Device { private_key, port }),
        });
    }
    let [v4, v6] = data;
    Ok((devices, Backend::Wireguard { v4, v6 }, carriers, mtu))
}
