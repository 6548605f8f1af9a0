//! What is made, found damaged and removed.

use hostnet::{Netlink, Netns};
use netstate::QdiscAt;
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::node::{Pod, node};
use crate::{call, chained, ifb, ifbs, ip, limited, limited_as, limits, qdiscs, tc, veth};

#[test]
fn what_is_made_has_the_reference_plugins_names_and_numbers() {
    node(|node| {
        let pod = node.pod("c1");
        let config = limited(node, &pod, &limits());
        // printf netc1 | sha512sum | cut -c-12
        let name = "bwp623e1c388032";
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link(&ifb(&config)).unwrap().unwrap();
        let reported = &config["prevResult"]["interfaces"][2];
        let mac = link.mac.unwrap().to_string();
        assert_eq!(*reported, json!({ "name": name, "mac": mac, "mtu": 1500 }));
        assert_eq!(qdiscs(&ifb(&config)), ["tbf"]);
        assert_eq!(qdiscs(&veth(&config)), ["tbf", "clsact"]);
        let root = netlink.qdisc(link.index, QdiscAt::Root).unwrap().unwrap();
        let shown = root.bucket.unwrap();
        // 8 MB/s; a quarter of a megabyte and 25 ms; 31.25 ms of 15.625 ticks a microsecond.
        assert_eq!(
            (shown.rate, shown.limit, shown.ticks),
            (8_000_000, 450_000, 488_281)
        );
    });
}

#[test]
fn check_finds_every_damage() {
    node(|node| {
        let pod = node.pod("c1");
        let config = limited(node, &pod, &limits());
        let (veth, ifb) = (veth(&config), ifb(&config));
        let check = || call(node, "bandwidth", "CHECK", &config, &pod, "eth0");
        check().ok();
        let again = |words: &str| {
            words
                .replace("VETH", veth.as_str())
                .replace("IFB", ifb.as_str())
        };
        let tbf = "root handle 1: tbf rate 64mbit burst 250000 limit";
        for (damage, repair) in [
            (
                format!("qdisc replace dev VETH {tbf} 450001"),
                format!("qdisc replace dev VETH {tbf} 450000"),
            ),
            (
                "qdisc replace dev IFB root handle 1: tbf rate 65mbit burst 250000 limit 450000".to_owned(),
                format!("qdisc replace dev IFB {tbf} 450000"),
            ),
            (
                "qdisc del dev VETH root".to_owned(),
                format!("qdisc add dev VETH {tbf} 450000"),
            ),
            (
                "filter del dev VETH ingress".to_owned(),
                "filter add dev VETH ingress u32 match u32 0 0 action mirred egress redirect dev IFB".to_owned(),
            ),
        ] {
            tc(&again(&damage));
            let (code, message) = check().error();
            assert_eq!(code, 999, "{damage}: {message}");
            tc(&again(&repair));
            check().ok();
        }
        let mut netlink = Netlink::open().unwrap();
        netlink.set_down(&ifb).unwrap();
        assert_eq!(check().error(), (999, format!("{ifb} is down")));
        netlink.delete_link(&ifb).unwrap();
        assert_eq!(check().error().0, 999);
        call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
        assert_eq!(qdiscs(&veth), [""; 0]);
    });
}

#[test]
fn del_needs_neither_namespace_nor_previous_result_and_add_works_again() {
    node(|node| {
        let pod = node.pod("c1");
        let mut config = limited(node, &pod, &limits());
        let veth = veth(&config);
        let before = config["prevResult"].take();
        let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        for _ in 0..2 {
            node.call("bandwidth", "DEL", &config, &variables).ok();
            assert_eq!(qdiscs(&veth), [""; 0]);
            assert_eq!(ifbs(node), [""; 0]);
        }
        config["prevResult"] = before.clone();
        config["prevResult"]["interfaces"]
            .as_array_mut()
            .unwrap()
            .pop();
        let after = call(node, "bandwidth", "ADD", &config, &pod, "eth0").result();
        assert_eq!(after, before);
        pod.destroy();
        let broken = json!({ "cniVersion": "1.1.0", "name": "net", "ingressRate": 3 });
        call(node, "bandwidth", "DEL", &broken, &pod, "eth0").ok();
        assert_eq!(ifbs(node), [""; 0]);
    });
}

#[test]
fn interfaces_of_one_container_are_limited_apart() {
    node(|node| {
        let pod = node.pod("c1");
        let first = limited(node, &pod, &limits());
        let second = limited_as(node, &pod, "eth1", &limits());
        assert_eq!(ifbs(node).len(), 2);
        call(node, "bandwidth", "CHECK", &second, &pod, "eth1").ok();
        call(node, "bandwidth", "DEL", &first, &pod, "eth0").ok();
        call(node, "bandwidth", "CHECK", &second, &pod, "eth1").ok();
        assert_eq!(ifbs(node), [ifb(&second).to_string()]);
        call(node, "bandwidth", "DEL", &second, &pod, "eth1").ok();
        assert_eq!(ifbs(node), [""; 0]);
    });
}

#[test]
fn parallel_adds_and_dels_do_not_meet() {
    node(|node| {
        let pods: Vec<Pod> = (0..10).map(|n| node.pod(&format!("c{n}"))).collect();
        let own = Netns::current().unwrap();
        std::thread::scope(|scope| {
            for pod in &pods {
                let own = &own;
                scope.spawn(move || {
                    let _inside = own.enter().unwrap();
                    let config = limited(node, pod, &limits());
                    call(node, "bandwidth", "CHECK", &config, pod, "eth0").ok();
                    call(node, "bandwidth", "DEL", &config, pod, "eth0").ok();
                });
            }
        });
        assert_eq!(ifbs(node), [""; 0]);
    });
}

#[test]
fn gc_removes_the_network_s_other_limits_only() {
    node(|node| {
        let pods = ["c1", "c2", "c3"].map(|id| node.pod(id));
        let configs = pods.each_ref().map(|pod| limited(node, pod, &limits()));
        let pod = node.pod("c4");
        let mut other = chained(node, &pod, "eth0", &limits());
        other["name"] = "other".into();
        call(node, "bandwidth", "ADD", &other, &pod, "eth0").result();
        // c3 is gone without a DEL.
        pods[2].destroy();
        let mut gc = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bandwidth" });
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node).len(), 4);
        gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
        gc["name"] = "another".into();
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node).len(), 4);
        gc["name"] = "net".into();
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node).len(), 2);
        assert_eq!(qdiscs(&veth(&configs[1])), [""; 0]);
        call(node, "bandwidth", "CHECK", &configs[0], &pods[0], "eth0").ok();
        gc["cni.dev/valid-attachments"] = json!([]);
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node).len(), 1);
        other["prevResult"] = json!(null);
        call(node, "bandwidth", "DEL", &other, &pod, "eth0").ok();
        assert_eq!(ifbs(node), [""; 0]);
    });
}

/// Without an alias it is the reference plugin's, or one that another network's ADD is making.
#[test]
fn gc_leaves_an_ifb_that_is_being_made() {
    node(|node| {
        ip("link add bwp0123456789ab type ifb");
        let gc = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "bandwidth",
            "cni.dev/valid-attachments": [],
        });
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node), ["bwp0123456789ab"]);
        ip("link set bwp0123456789ab up");
        node.call("bandwidth", "GC", &gc, &[]).ok();
        assert_eq!(ifbs(node), [""; 0]);
    });
}

#[test]
fn an_ifb_of_the_reference_is_not_taken_for_another_interface_s() {
    node(|node| {
        let pod = node.pod("c1");
        let first = limited(node, &pod, &limits());
        // As the reference would have made it.
        let mut netlink = Netlink::open().unwrap();
        netlink.set_alias(&ifb(&first), "").unwrap();
        let second = limited_as(node, &pod, "eth1", &limits());
        assert_eq!(ifbs(node).len(), 2);
        call(node, "bandwidth", "CHECK", &second, &pod, "eth1").ok();
        call(node, "bandwidth", "DEL", &second, &pod, "eth1").ok();
        assert_eq!(ifbs(node), [ifb(&first).to_string()]);
        call(node, "bandwidth", "CHECK", &first, &pod, "eth0").ok();
    });
}

#[test]
fn a_failed_add_leaves_nothing() {
    node(|node| {
        let pod = node.pod("c1");
        let config = chained(node, &pod, "eth0", &limits());
        let veth = veth(&config);
        tc(&format!("qdisc add dev {veth} root handle 7: pfifo"));
        let (code, message) = call(node, "bandwidth", "ADD", &config, &pod, "eth0").error();
        assert_eq!(code, 999);
        assert!(message.contains(veth.as_str()), "{message}");
        assert_eq!(qdiscs(&veth), ["pfifo"]);
        assert_eq!(ifbs(node), [""; 0]);
    });
}
