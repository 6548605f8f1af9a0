//! Measured: what passes, beside others' filters and after the reference plugin too.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use hostnet::{Netlink, Netns};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::node::{self, Answer, Node, Pod, node};
use crate::{HOST, call, chained, ifbs, limited, limits, ptp, qdiscs, tc, veth};

/// Bits per second on the wire of a TCP stream from one namespace to an address of another: the
/// median of five stretches, after the bursts are spent.
fn measured(from: &Netns, to: &Netns, address: &str) -> f64 {
    const SPENT: usize = 1_500_000;
    const STRETCH: usize = 1_500_000;
    let listener = to
        .run_in(|| TcpListener::bind((address, 0)).unwrap())
        .unwrap();
    let target = listener.local_addr().unwrap();
    let mut sender = from.run_in(|| TcpStream::connect(target).unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let sending = std::thread::spawn(move || {
        let block = [0; 64 * 1024];
        // Ends when the receiver has enough and closes.
        while sender.write_all(&block).is_ok() {}
    });
    let mut take = |wanted: usize| {
        let mut block = [0; 64 * 1024];
        let (started, mut got) = (Instant::now(), 0);
        while got < wanted {
            got += receiver.read(&mut block).unwrap();
        }
        let payload = f64::from(u32::try_from(got * 8).unwrap());
        payload / started.elapsed().as_secs_f64()
    };
    take(SPENT);
    let mut rates: Vec<f64> = (0..5).map(|_| take(STRETCH)).collect();
    drop(receiver);
    sending.join().unwrap();
    rates.sort_by(f64::total_cmp);
    // Of a frame's 1514 bytes TCP carries 1448.
    rates[2] * 1514.0 / 1448.0
}

fn assert_limited(rate: f64) {
    let wanted = 64_000_000.0;
    assert!((rate - wanted).abs() < wanted / 10.0, "{rate} bit/s");
}

fn address(config: &Value) -> String {
    let address = config["prevResult"]["ips"][0]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

#[test]
fn both_directions_have_the_rate_that_was_asked_for() {
    node(|node| {
        let pod = node.pod("c1");
        let config = limited(node, &pod, &limits());
        call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
        let (host, inside) = (Netns::current().unwrap(), pod.open());
        assert_limited(measured(&host, &inside, &address(&config)));
        assert_limited(measured(&inside, &host, HOST));
    });
}

#[test]
fn only_what_goes_to_the_subnets_is_limited() {
    node(|node| {
        let pod = node.pod("c1");
        let cases = [
            ("unshapedSubnets", "10.1.0.1/32", false),
            ("unshapedSubnets", "10.9.0.0/16", true),
            ("shapedSubnets", "10.1.0.1/24", true),
            ("shapedSubnets", "10.9.0.0/16", false),
        ];
        for (key, subnet, is_limited) in cases {
            let mut limits = limits();
            limits[key] = json!([subnet, "fd00:9::/32"]);
            let config = limited(node, &pod, &limits);
            call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
            let (host, inside) = (Netns::current().unwrap(), pod.open());
            for rate in [
                measured(&host, &inside, &address(&config)),
                measured(&inside, &host, HOST),
            ] {
                if is_limited {
                    assert_limited(rate);
                } else {
                    assert!(rate > 200_000_000.0, "{rate} bit/s");
                }
            }
            let other = json!(["10.8.0.0/16"]);
            let mut changed = config.clone();
            changed[key] = other;
            assert!(!call(node, "bandwidth", "CHECK", &changed, &pod, "eth0").success);
            call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
            assert_eq!(qdiscs(&veth(&config)), [""; 0]);
            call(node, "ptp", "DEL", &ptp(node), &pod, "eth0").ok();
        }
    });
}

#[test]
fn filters_of_others_come_first_and_stay() {
    node(|node| {
        for hook in ["clsact", "ingress"] {
            let pod = node.pod("c1");
            let config = chained(node, &pod, "eth0", &limits());
            let veth = veth(&config);
            tc(&format!("qdisc add dev {veth} {hook}"));
            // Takes no packet, as a program does that leaves the verdict to those after it.
            let filter = format!("filter add dev {veth} parent ffff:fff2 prio 84 bpf bytecode");
            let mut command = Command::new("tc");
            command.args(filter.split(' ')).arg("1,6 0 0 0");
            assert!(command.status().unwrap().success());
            let result = call(node, "bandwidth", "ADD", &config, &pod, "eth0").result();
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link_index(&veth).unwrap();
            let mut priorities = || -> Vec<u16> {
                let filters = netlink.ingress_filters(index).unwrap();
                filters.iter().map(|filter| filter.priority).collect()
            };
            assert_eq!(priorities(), [84, 50_000]);
            assert_limited(measured(&pod.open(), &Netns::current().unwrap(), HOST));
            let mut after = config.clone();
            after["prevResult"] = result;
            call(node, "bandwidth", "CHECK", &after, &pod, "eth0").ok();
            call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
            assert_eq!(priorities(), [84]);
            assert_eq!(qdiscs(&veth), [hook]);
            call(node, "ptp", "DEL", &ptp(node), &pod, "eth0").ok();
        }
    });
}

/// Runs Debian's plugin; `None`, said loudly, where it is not installed.
fn reference(node: &Node, command: &str, config: &Value, pod: &Pod) -> Option<Answer> {
    let program = "/usr/lib/cni/bandwidth";
    if !std::path::Path::new(program).exists() {
        eprintln!("SKIPPED: {program} is not installed; `make setup` installs it");
        return None;
    }
    let mut child = Command::new(program);
    child.env_clear().envs([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &pod.id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
        ("CNI_PATH", node.path("bin").to_str().unwrap()),
    ]);
    Some(node::run(&mut child, config.to_string().as_bytes()))
}

#[test]
fn pods_are_handed_over_from_and_to_the_reference_plugin() {
    node(|node| {
        let pod = node.pod("c1");
        let mut ptp = ptp(node);
        ptp["cniVersion"] = "1.0.0".into();
        let mut config = limits();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "net".into();
        config["type"] = "bandwidth".into();
        config["prevResult"] = call(node, "ptp", "ADD", &ptp, &pod, "eth0").result();
        let Some(made) = reference(node, "ADD", &config, &pod) else {
            return;
        };
        let chained = config.clone();
        config["prevResult"] = made.result();
        let veth = veth(&config);
        call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
        call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
        assert_eq!((qdiscs(&veth), ifbs(node)), (vec![], vec![]));

        // What the reference leaves behind is no obstacle, neither here nor there.
        reference(node, "ADD", &chained, &pod).unwrap().result();
        reference(node, "DEL", &config, &pod).unwrap().ok();
        assert_eq!(qdiscs(&veth), ["tbf", "ingress"]);
        let ours = call(node, "bandwidth", "ADD", &chained, &pod, "eth0").result();
        assert_eq!(
            ours["interfaces"][2]["name"],
            config["prevResult"]["interfaces"][2]["name"]
        );
        config["prevResult"] = ours;
        call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
        assert_limited(measured(&pod.open(), &Netns::current().unwrap(), HOST));
        reference(node, "CHECK", &config, &pod).unwrap().ok();
        reference(node, "DEL", &config, &pod).unwrap().ok();
        assert_eq!(ifbs(node), [""; 0]);
        call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
        assert_eq!(qdiscs(&veth), [""; 0]);
    });
}
