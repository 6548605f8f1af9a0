//! Devices of an earlier configuration.

use agent::config::NetConf;
use agent::reconcile::MARK;
use desired::cluster::Backend;
use netstate::{Link, LinkKind, Vxlan};
use pretty_assertions::assert_eq;

use crate::host::{
    DUAL, Host, VXLAN, at, cluster, in_new_namespace, name, own_node, peer, speaking,
};

const HOST_GW: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#;
const OTHER_VNI: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 5}}"#;

/// The names of all VXLAN devices.
fn devices(host: &mut Host) -> Vec<String> {
    let links = host.netlink.links().unwrap().into_iter();
    let links = links.filter(|link| link.kind == "vxlan");
    links.map(|link| link.name.to_string()).collect()
}

fn reconfigure(host: &mut Host, conf: &str) {
    let net = NetConf::parse("net-conf.json", conf).unwrap();
    host.restart_with(|settings| settings.net = net);
}

/// A device that is not the daemon's.
fn foreign(host: &mut Host, device: &str, vni: u32) {
    let vxlan = Vxlan {
        vni: vni.try_into().unwrap(),
        port: 8472,
        local: "172.30.0.1".parse().ok(),
        device: Some(name("eth0")),
        learning: false,
        gbp: false,
    };
    let link = Link::new(name(device), LinkKind::Vxlan(vxlan)).up();
    host.netlink.create_link(&link).unwrap();
}

#[test]
fn those_of_another_backend_go_and_others_devices_stay() {
    in_new_namespace(DUAL, |mut host| {
        // As flanneld would have for another network, and a wholly different one.
        foreign(&mut host, "flannel.9", 9);
        foreign(&mut host, "vxlan77", 77);
        host.pass(&cluster([peer(2)]));
        let ours = ["flannel.1", "flannel-v6.1"];
        assert_eq!(
            devices(&mut host),
            [&["flannel.9", "vxlan77"][..], &ours].concat()
        );

        reconfigure(&mut host, HOST_GW);
        let all = cluster([speaking(2, "172.30.0.2", Backend::HostGw)]);
        let found = host.overlay.differences(&all).unwrap();
        let unwanted = found.iter().filter(|one| one.table == "overlay-device");
        assert_eq!(unwanted.count(), 2, "{found:?}");
        host.pass(&all);
        assert_eq!(devices(&mut host), ["flannel.9", "vxlan77"]);
        assert_eq!(host.routes(), ["10.244.2.0/24 via 172.30.0.2 dev eth0"]);
        assert_eq!(host.overlay.differences(&all).unwrap(), []);
        assert_eq!(host.pass(&all), (0, 0));
    });
}

#[test]
fn one_of_another_network_identifier_goes() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([]));
        reconfigure(&mut host, OTHER_VNI);
        host.pass(&cluster([]));
        assert_eq!(devices(&mut host), ["flannel.5"]);
    });
}

#[test]
fn they_stay_until_what_takes_their_place_is_there() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([peer(2)]));
        reconfigure(&mut host, OTHER_VNI);
        let mut node = own_node();
        node.pod_cidrs.clear();
        host.pass(&cluster([node]));
        assert_eq!(
            devices(&mut host),
            ["flannel.1", "flannel.5"],
            "no subnet yet"
        );
        foreign(&mut host, "vxlan6", 6);
        let six = OTHER_VNI.replace('5', "6");
        reconfigure(&mut host, &six);
        let errors = host.errors(&cluster([at(2, "172.30.0.2")]));
        let said = "overlay-device: put IfName(\"flannel.6\"): create link flannel.6: vxlan6 has VNI 6 \
            and port 8472 already; remove it, or set another VNI or Port on every node";
        assert_eq!(errors, [said]);
        assert_eq!(devices(&mut host), ["flannel.1", "flannel.5", "vxlan6"]);
        host.netlink.delete_link(&name("vxlan6")).unwrap();
        host.pass(&cluster([]));
        assert_eq!(devices(&mut host), ["flannel.6"]);
    });
}

#[test]
fn one_that_was_adopted_from_flannel_is_ours_from_then_on() {
    in_new_namespace(VXLAN, |mut host| {
        foreign(&mut host, "flannel.1", 1);
        let before = host.device("flannel.1");
        assert_eq!(before.alias, "");
        host.pass(&cluster([]));
        let after = host.device("flannel.1");
        assert_eq!((after.index, after.alias.as_str()), (before.index, MARK));
        reconfigure(&mut host, HOST_GW);
        host.pass(&cluster([]));
        assert_eq!(devices(&mut host), Vec::<String>::new());
    });
}
