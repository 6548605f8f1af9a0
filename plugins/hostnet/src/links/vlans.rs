//! VLANs of a bridge and its ports.

use netstate::{IfName, PortVlans};

use crate::error::Result;
use crate::links::ifinfo;
use crate::socket::Netlink;
use crate::wire::message::Message;
use crate::wire::rt::{
    AF_BRIDGE, IFLA_AF_SPEC, IFLA_BR_VLAN_FILTERING, IFLA_BRIDGE_VLAN_INFO, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_LINKINFO, RTM_DELLINK, RTM_NEWLINK, RTM_SETLINK,
};

/// All VLANs there can be.
const EVERY: (u16, u16) = (1, 4094);
// Flags of `struct bridge_vlan_info` (`linux/if_bridge.h`).
const PVID: u16 = 2;
const UNTAGGED: u16 = 4;
const RANGE_BEGIN: u16 = 8;
const RANGE_END: u16 = 16;

// === impl Netlink: VLANs ===

impl Netlink {
    /// Makes a bridge keep VLANs apart, or not.
    ///
    /// # Errors
    /// When there is no such bridge or this kernel has no VLAN filtering.
    pub fn set_vlan_filtering(&mut self, bridge: &IfName, on: bool) -> Result<()> {
        let index = self.link_index(bridge)?;
        let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nest(IFLA_INFO_DATA, |data| {
                data.attr(IFLA_BR_VLAN_FILTERING, &[u8::from(on)]);
            });
        });
        self.wire
            .request(message, ("set VLAN filtering of bridge", bridge))
    }

    /// Gives a bridge port its VLANs.
    ///
    /// # Errors
    /// When the link is no bridge port or this kernel has no VLAN filtering.
    pub fn set_port_vlans(&mut self, port: &IfName, vlans: &PortVlans) -> Result<()> {
        let mut body = ifinfo(self.link_index(port)?, 0, 0);
        body[0] = AF_BRIDGE;
        if !vlans.keep {
            let remove = vlan_message(RTM_DELLINK, &body, |list| range(list, EVERY));
            self.wire
                .request(remove, ("remove VLANs of bridge port", port))?;
        }
        let add = vlan_message(RTM_SETLINK, &body, |list| {
            if let Some(vlan) = vlans.untagged {
                one(list, PVID | UNTAGGED, vlan);
            }
            vlans.tagged.iter().for_each(|ends| range(list, *ends));
        });
        self.wire.request(add, ("set VLANs of bridge port", port))
    }
}

fn vlan_message(kind: u16, body: &[u8], fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::new(kind, 0, body);
    message.nest(IFLA_AF_SPEC, fill);
    message
}

fn range(list: &mut Message, (first, last): (u16, u16)) {
    if first == last {
        return one(list, 0, first);
    }
    one(list, RANGE_BEGIN, first);
    one(list, RANGE_END, last);
}

/// `struct bridge_vlan_info`.
fn one(list: &mut Message, flags: u16, vlan: u16) {
    let mut info = [0; 4];
    info[..2].copy_from_slice(&flags.to_ne_bytes());
    info[2..].copy_from_slice(&vlan.to_ne_bytes());
    list.attr(IFLA_BRIDGE_VLAN_INFO, &info);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{attrs, find, replies};

    #[test]
    fn ranges_and_single_vlans_are_told_apart() {
        let message = vlan_message(RTM_SETLINK, &ifinfo(3, 0, 0), |list| {
            one(list, PVID | UNTAGGED, 5);
            range(list, (10, 12));
            range(list, (20, 20));
        });
        let reply = replies(&message.finish(1)).remove(0);
        let list = find(&reply.body[16..], IFLA_AF_SPEC).unwrap();
        let shown: Vec<(u16, u16)> = attrs(list)
            .map(|(_, info)| {
                let at = |n: usize| u16::from_ne_bytes([info[n], info[n + 1]]);
                (at(0), at(2))
            })
            .collect();
        assert_eq!(shown, [(6, 5), (8, 10), (16, 12), (0, 20)]);
    }
}
