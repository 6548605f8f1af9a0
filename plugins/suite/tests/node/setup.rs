//! Networks that several test files attach pods to, and packets between them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hostnet::Netlink;
use netstate::{Address, Link, LinkKind, Route, VethPeer};
use serde_json::{Value, json};

use super::{Node, Pod};

/// A dual-stack network `net` of `plugin`, with addresses from `host-local`.
pub(crate) fn dual_stack(node: &Node, plugin: &str) -> Value {
    let ipam = json!({
        "type": "host-local",
        "dataDir": node.path("state"),
        "ranges": [[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00:1::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": plugin, "mtu": 1400, "ipam": ipam,
    });
    if plugin == "bridge" {
        config["bridge"] = "br0".into();
        config["isGateway"] = true.into();
    }
    config
}

/// Sends a datagram from one pod to the other and back.
pub(crate) fn assert_talk(from: &Pod, to: &Pod, address: &str) {
    let server = to
        .open()
        .run_in(|| UdpSocket::bind((address, 7000)).unwrap())
        .unwrap();
    let timeout = Some(Duration::from_secs(5));
    server.set_read_timeout(timeout).unwrap();
    let any = if address.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let client = from
        .open()
        .run_in(|| UdpSocket::bind(any).unwrap())
        .unwrap();
    client.set_read_timeout(timeout).unwrap();
    let target: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), 7000).into();
    client.send_to(b"ping", target).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = server.recv_from(&mut buffer).expect("no datagram arrived");
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", source).unwrap();
    let length = client.recv(&mut buffer).expect("no answer arrived");
    assert_eq!(&buffer[..length], b"pong");
}

/// A host beyond the node, 192.0.2.2, with the node at 192.0.2.1 and a route to the pods.
pub(crate) fn outside(node: &Node) -> Pod {
    let pod = node.pod("outside");
    let netns = Some(pod.path.to_str().unwrap().parse().unwrap());
    let peer = VethPeer {
        name: "up0".parse().unwrap(),
        netns,
        mac: None,
    };
    let mut host = Netlink::open().unwrap();
    let link = Link::new("out0".parse().unwrap(), LinkKind::Veth(peer)).up();
    host.create_link(&link).unwrap();
    let address = |text: &str| Address::new(text.parse().unwrap());
    host.add_address(&link.name, &address("192.0.2.1/24"))
        .unwrap();
    let (mut inside, up0) = (pod.netlink(), "up0".parse().unwrap());
    inside.add_address(&up0, &address("192.0.2.2/24")).unwrap();
    inside.set_up(&up0).unwrap();
    let back = Route::via_device("10.1.0.0/24".parse().unwrap(), up0);
    inside
        .add_route(&back.gateway("192.0.2.1".parse().unwrap()), 3)
        .unwrap();
    pod
}

/// The source address that `to` sees of a datagram from `from`.
pub(crate) fn seen(from: &Pod, to: &Pod, address: &str) -> String {
    let target: SocketAddr = format!("{address}:7000").parse().unwrap();
    let server = to
        .open()
        .run_in(|| UdpSocket::bind(target).unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let client = from
        .open()
        .run_in(|| UdpSocket::bind("0.0.0.0:0").unwrap())
        .unwrap();
    client.send_to(b"x", target).unwrap();
    server
        .recv_from(&mut [0; 8])
        .expect("no datagram arrived")
        .1
        .ip()
        .to_string()
}

/// Whether a datagram from one pod gets to the other within a second.
pub(crate) fn reaches(from: &Pod, to: &Pod, address: &str) -> bool {
    let target: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), 7001).into();
    let server = to
        .open()
        .run_in(|| UdpSocket::bind(target).unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let client = from
        .open()
        .run_in(|| UdpSocket::bind("0.0.0.0:0").unwrap())
        .unwrap();
    // A refusal by the kernel is an answer too.
    client.send_to(b"x", target).is_ok() && server.recv_from(&mut [0; 8]).is_ok()
}
