//! Pod traffic on the underlay: counted, not hoped for.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};

use super::world::World;
use super::{Ask, Expect, From, Pod, Source, To, ask};
use crate::applet::Protocol;
use crate::capture::{Capture, Envelope, Packet};
use crate::layout::NodeId;
use crate::overlay::Backend;

/// Has `from` ask `to` and looks at the underlay meanwhile: both directions must be there, carried
/// by the cluster's backend between the right nodes, and none of it otherwise.
pub(super) async fn check(world: &World, from: Pod, to: Pod) -> Result<String> {
    let capture = Capture::start(world.cluster.layout())?;
    let http = To::Pod(to, super::workloads::HTTP);
    let question = Ask {
        from: From::Pod(from),
        to: http,
        protocol: Protocol::Http,
        count: 5,
    };
    ask::check(
        world,
        &question,
        &Expect::Answered(vec![to.1], Source::Caller),
    )
    .await?;
    let packets = capture.packets()?;
    let ends = [from, to];
    let mut sides = Vec::new();
    for pod in ends {
        let node = world.node_of(From::Pod(pod)).await?;
        sides.push((ipv4(world.pod_address(pod).await?)?, node));
    }
    let backend = world.cluster.state().overlay.backend;
    judge(&packets, backend, sides[0], sides[1])
}

fn ipv4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("the capture reads IPv4, not {address}"),
    }
}

fn judge(
    packets: &[Packet],
    backend: Backend,
    from: (Ipv4Addr, NodeId),
    to: (Ipv4Addr, NodeId),
) -> Result<String> {
    let mut counts = [0; 2];
    for (count, (source, target)) in counts.iter_mut().zip([(from, to), (to, from)]) {
        let of_flow = packets
            .iter()
            .filter(|p| p.source == source.0 && p.destination == target.0);
        for packet in of_flow {
            match (backend, packet.vxlan) {
                (Backend::HostGw, None) => *count += 1,
                (
                    Backend::Vxlan,
                    Some(Envelope {
                        source: node,
                        destination: peer,
                        vni: 1,
                    }),
                ) if node == source.1.address() && peer == target.1.address() => {
                    *count += 1;
                }
                (_, Some(envelope)) => bail!("pod packets in a wrong envelope: {envelope:?}"),
                (_, None) => bail!("pod packets on the underlay without VXLAN: {packet:?}"),
            }
        }
        if *count == 0 {
            bail!(
                "no packet {} -> {} carried by {backend} among {} seen",
                source.0,
                target.0,
                packets.len()
            );
        }
    }
    Ok(format!(
        "{} packets out, {} back, all by {backend}",
        counts[0], counts[1]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_must_be_in_the_right_envelope() {
        let (a, b) = (
            ([10, 244, 0, 2].into(), NodeId(1)),
            ([10, 244, 1, 2].into(), NodeId(2)),
        );
        let packet = |from: (Ipv4Addr, NodeId), to: (Ipv4Addr, NodeId), wrapped: bool| Packet {
            source: from.0,
            destination: to.0,
            vxlan: wrapped.then(|| Envelope {
                source: from.1.address(),
                destination: to.1.address(),
                vni: 1,
            }),
        };
        let vxlan = |packets: &[Packet]| judge(packets, Backend::Vxlan, a, b);
        assert!(vxlan(&[packet(a, b, true), packet(b, a, true)]).is_ok());
        assert!(vxlan(&[packet(a, b, true)]).is_err(), "no reply");
        let leak = [packet(a, b, true), packet(b, a, true), packet(a, b, false)];
        assert!(vxlan(&leak).is_err(), "one outside");
        let plain = [packet(a, b, false), packet(b, a, false)];
        assert!(judge(&plain, Backend::HostGw, a, b).is_ok());
        assert!(
            judge(&leak, Backend::HostGw, a, b).is_err(),
            "some in VXLAN"
        );
    }
}
