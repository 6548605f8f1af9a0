//! What cannot be done keeps nothing else from being done.

use agent::config::{NetConf, UplinkChoice};
use desired::cluster::Announced;
use netstate::{Link, LinkKind, Vxlan};
use pretty_assertions::assert_eq;

use crate::host::{
    DUAL, Host, VXLAN, add_interface, cluster, in_new_namespace, name, own_node, peer, run,
};

/// A device of somebody else's that has what one of ours would have.
fn in_the_way(host: &mut Host, device: &str, port: u16, local: &str) {
    let vxlan = Vxlan {
        vni: 1.try_into().unwrap(),
        port,
        local: local.parse().ok(),
        device: Some(name("eth0")),
        learning: false,
        gbp: false,
    };
    let link = Link::new(name(device), LinkKind::Vxlan(vxlan)).up();
    host.netlink.create_link(&link).unwrap();
}

#[test]
fn one_familys_device_that_cannot_be_made_leaves_the_other_family_alone() {
    in_new_namespace(DUAL, |mut host| {
        in_the_way(&mut host, "vxlan6", 8472, "fd99::1");
        let said = "overlay-device: put IfName(\"flannel-v6.1\"): create link flannel-v6.1: vxlan6 has \
            VNI 1 and port 8472 already; remove it, or set another VNI or Port on every node";
        assert_eq!(host.errors(&cluster([peer(2)])), [said]);
        let v4 = "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink";
        assert_eq!(host.routes(), [v4]);
        assert_eq!(host.peers("flannel.1").len(), 2);
        assert_eq!(*host.lease.borrow(), None, "nobody is told of half a node");
        assert_eq!(host.errors(&cluster([peer(2), peer(3)])), [said]);
        assert_eq!(host.routes().len(), 2);
        host.netlink.delete_link(&name("vxlan6")).unwrap();
        host.pass(&cluster([peer(2), peer(3)]));
        assert_eq!(host.routes().len(), 4);
        host.told();
    });
}

#[test]
fn a_device_that_could_not_be_made_anew_is_not_taken_away() {
    in_new_namespace(VXLAN, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let before = host.device("flannel.1").index;
        in_the_way(&mut host, "other", 4789, "172.30.0.1");
        let conf = VXLAN.replace("\"vxlan\"", "\"vxlan\", \"Port\": 4789");
        let net = NetConf::parse("net-conf.json", &conf).unwrap();
        host.restart_with(|settings| settings.net = net);
        assert_eq!(host.errors(&all).len(), 1);
        assert_eq!(host.device("flannel.1").index, before);
        assert_eq!(host.routes().len(), 1);
    });
}

#[test]
fn peers_are_served_while_the_uplink_has_lost_an_address() {
    in_new_namespace(DUAL, |mut host| {
        host.pass(&cluster([peer(2)]));
        let told = host.told();
        run("ip address delete fd99::1/64 dev eth0");
        let said = "overlay: compute : interface eth0 has no global IPv6 address; give it one or name another with --iface";
        let all = cluster([peer(3)]);
        assert_eq!(host.errors(&all), [said]);
        let routes = [
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
            "fd00:0:0:3::/64 via fd00:0:0:3:: dev flannel-v6.1 onlink",
        ];
        assert_eq!(host.routes(), routes);
        assert_eq!(host.told(), told, "others need not be told anything");
        run("ip route flush dev flannel.1");
        assert_eq!(host.errors(&all), [said]);
        assert_eq!(host.routes(), routes);
        run("ip address add fd99::1/64 dev eth0");
        assert_eq!(host.pass(&all), (0, 0));
    });
}

#[test]
fn a_default_route_that_moves_for_a_while_moves_no_lease() {
    in_new_namespace(VXLAN, |mut host| {
        add_interface(&mut host.netlink, "mgmt0", &["192.0.2.1/24"]);
        run("ip route add default via 172.30.0.254 dev eth0 metric 100");
        run("ip route add default via 192.0.2.254 dev mgmt0 metric 200");
        host.restart_with(|settings| settings.uplink = UplinkChoice::default());
        host.pass(&cluster([peer(2)]));
        let told = host.told();
        assert_eq!(told.announced.public_ip, "172.30.0.1".parse().ok());
        run("ip link set eth0 down");
        host.pass(&cluster([peer(2)]));
        // Its IPv6 addresses are gone with the link, which nobody need know.
        assert_eq!(host.told().announced, told.announced);
        // It is another interface's as soon as the address is gone, and after a restart.
        run("ip address delete 172.30.0.1/24 dev eth0");
        host.pass(&cluster([peer(2)]));
        assert_eq!(host.told().announced.public_ip, "192.0.2.1".parse().ok());
    });
}

#[test]
fn an_address_that_is_not_to_be_used_any_more_is_not_announced() {
    in_new_namespace(DUAL, |mut host| {
        // The kernel lists what came last first.
        run("ip address add fd99::77/64 dev eth0 preferred_lft 0");
        host.pass(&cluster([]));
        assert_eq!(host.told().announced.public_ipv6, "fd99::1".parse().ok());
        // One that comes later does not replace one that is in use, not even after a restart.
        run("ip address add fd99::88/64 dev eth0 nodad");
        host.pass(&cluster([]));
        assert_eq!(host.told().announced.public_ipv6, "fd99::1".parse().ok());
        let mut own = own_node();
        own.announced = Some(Announced::clone(&host.told().announced));
        host.restart();
        host.pass(&cluster([own]));
        assert_eq!(host.told().announced.public_ipv6, "fd99::1".parse().ok());
    });
}
