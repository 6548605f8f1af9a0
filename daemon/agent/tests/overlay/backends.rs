//! host-gw and alloc end to end; ipip and wireguard as far as the kernel has them.

use desired::cluster::Backend;
use desired::lease::attributes::WireguardData;
use desired::routes::{RouteProblem, routes};
use hostnet::{ErrorKind, Netlink};
use netstate::wireguard::Key;
use netstate::{Link, LinkKind, RouteKey};
use pretty_assertions::assert_eq;

use crate::host::{at, cluster, in_new_namespace, name, own_node, peer, speaking};

const HOST_GW: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true,
    "IPv6Network": "fd00::/48", "Backend": {"Type": "host-gw"}}"#;

#[test]
fn host_gw_routes_to_adjacent_nodes_and_reports_others() {
    in_new_namespace(HOST_GW, |mut host| {
        let far = speaking(4, "192.0.2.4", Backend::HostGw);
        let near = [2, 3].map(|n| speaking(n, &format!("172.30.0.{n}"), Backend::HostGw));
        let [second, third] = near;
        let all = cluster([second, third, far, peer(5)]);
        host.pass(&all);
        let wanted = [
            "10.244.2.0/24 via 172.30.0.2 dev eth0",
            "10.244.3.0/24 via 172.30.0.3 dev eth0",
            "fd00:0:0:2::/64 via fd99::2 dev eth0",
            "fd00:0:0:3::/64 via fd99::3 dev eth0",
            "fd00:0:0:4::/64 via fd99::4 dev eth0",
        ];
        assert_eq!(host.routes(), wanted);
        let links = host.netlink.links().unwrap();
        assert!(links.iter().all(|link| link.kind != "vxlan"), "{links:?}");
        assert_eq!(hostnet::sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        assert!(host.subnet_env().contains("FLANNEL_MTU=1500\n"));
        assert_eq!(host.told().announced.backend, Backend::HostGw);
        let problems = routes(&all, &host.told().overlay).problems;
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "node n4: public-ip 192.0.2.4 is not on the network of eth0: host-gw needs every node there; use vxlan",
                "node n5: backend \"vxlan\" differs from ours, \"host-gw\": use one backend on every node",
            ]
        );
        assert!(matches!(problems[0], RouteProblem::NotAdjacent { .. }));

        // An interface that goes down takes its routes with it.
        let eth0 = name("eth0");
        host.netlink.set_down(&eth0).unwrap();
        host.netlink.set_up(&eth0).unwrap();
        let address = netstate::Address::new("fd99::1/64".parse().unwrap());
        let _ = host.netlink.add_address(&eth0, &address);
        assert!(host.repairs(&all) >= 2);
        assert_eq!(host.routes(), wanted);
        let gone = RouteKey::main("10.244.2.0/24".parse().unwrap());
        host.netlink.delete_route(&gone, None, None).unwrap();
        assert_eq!(host.repairs(&all), 1);
        assert_eq!(host.routes(), wanted);
    });
}

#[test]
fn alloc_makes_nothing_but_the_subnet_file() {
    let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "alloc"}}"#;
    in_new_namespace(conf, |mut host| {
        let links = |netlink: &mut Netlink| -> Vec<u32> {
            let links = netlink.links().unwrap().into_iter();
            links.map(|link| link.index).collect()
        };
        let before = links(&mut host.netlink);
        host.pass(&cluster([at(2, "172.30.0.2")]));
        assert_eq!(host.routes(), Vec::<String>::new());
        assert_eq!(links(&mut host.netlink), before);
        assert_eq!(hostnet::sysctl::read("net/ipv4/ip_forward").unwrap(), "0");
        assert_eq!(
            host.subnet_env(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n"
        );
        assert_eq!(host.told().announced.backend, Backend::Alloc);
    });
}

/// Whether this kernel makes such devices; says loudly what is not tested if it does not.
fn kernel_has(netlink: &mut Netlink, kind: &LinkKind) -> bool {
    let probe = Link::new(name("probe"), kind.clone());
    match netlink.create_link(&probe) {
        Ok(()) => {
            netlink.delete_link(&probe.name).unwrap();
            true
        }
        Err(error) if error.kind == ErrorKind::Unsupported => {
            eprintln!("SKIPPED: this kernel has no {kind:?} devices: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ipip_has_one_device_for_all_nodes() {
    let conf = r#"{"Network": "10.244.0.0/16",
        "Backend": {"Type": "ipip", "DirectRouting": true}}"#;
    in_new_namespace(conf, |mut host| {
        let local = "172.30.0.1".parse().unwrap();
        if !kernel_has(&mut host.netlink, &LinkKind::Ipip { local }) {
            return;
        }
        let peers = [(2, "172.30.0.2"), (4, "192.0.2.4")];
        let all = cluster(peers.map(|(n, ip)| speaking(n, ip, Backend::Ipip)));
        host.pass(&all);
        let wanted = [
            "10.244.2.0/24 via 172.30.0.2 dev eth0",
            "10.244.4.0/24 via 192.0.2.4 dev flannel.ipip onlink",
        ];
        assert_eq!(host.routes(), wanted);
        assert_eq!(host.device("flannel.ipip").mtu.unwrap().get(), 1480);
        assert_eq!(host.pass(&all), (0, 0));
        host.netlink.delete_link(&name("flannel.ipip")).unwrap();
        host.repairs(&all);
        assert_eq!(host.routes(), wanted);
    });
}

#[test]
fn wireguard_has_a_device_for_each_family_and_knows_its_peers() {
    let conf = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48",
        "Backend": {"Type": "wireguard", "PersistentKeepaliveInterval": 25,
                    "PSK": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}"#;
    in_new_namespace(conf, |mut host| {
        if !kernel_has(&mut host.netlink, &LinkKind::Wireguard) {
            return;
        }
        let backend = |seed: u8| {
            let data = |port| {
                let public_key = Key::private([seed; 32]).public().to_string();
                Some(WireguardData { public_key, port })
            };
            Backend::Wireguard {
                v4: data(51_820),
                v6: data(51_821),
            }
        };
        let all = cluster([speaking(2, "172.30.0.2", backend(2))]);
        host.pass(&all);
        let wanted = [
            "10.244.0.0/16 dev flannel-wg",
            "fd00::/48 dev flannel-wg-v6",
        ];
        assert_eq!(host.routes(), wanted);
        let mut wireguard = hostnet::wireguard::Wireguard::open().unwrap();
        let (device, peers) = wireguard.device(&name("flannel-wg")).unwrap();
        assert_eq!(device.unwrap().port, 51_820);
        let (key, peer) = peers.first_key_value().unwrap();
        assert_eq!(key.public_key, Key::private([2; 32]).public());
        assert_eq!(peer.endpoint, "172.30.0.2:51820".parse().unwrap());
        assert_eq!(
            (peer.keepalive, peer.preshared_key),
            (25, Some(Key::new([1; 32])))
        );
        assert_eq!(host.pass(&all), (0, 0));
        // A peer with a new key leaves nothing of the old one.
        host.pass(&cluster([
            own_node(),
            speaking(2, "172.30.0.2", backend(3)),
        ]));
        let (_, peers) = wireguard.device(&name("flannel-wg")).unwrap();
        assert_eq!(peers.len(), 1);
    });
}
