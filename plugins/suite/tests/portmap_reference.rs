//! `portmap` beside the reference plugin: either takes over what the other has made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::ports::{ask, bridged, mapped, neighbourhood, redirects, rules, serve, shown, tcp};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    node.attachment("portmap", command, config, pod)
}

/// The table that version 1.9 of the reference makes of one mapping, as `nft` reads it.
const OF_REFERENCE: &str = r#"
table ip cni_hostport {
    chain hostports { tcp dport 8080 dnat to 10.1.0.2:80 comment "web"; }
    chain hostip_hostports { }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        jump hostip_hostports
        jump hostports
    }
    chain output {
        type nat hook output priority -100;
        jump hostip_hostports
        fib daddr type local jump hostports
    }
    chain masquerading {
        type nat hook postrouting priority srcnat;
        ip saddr 10.1.0.2 ip daddr 10.1.0.2 masquerade comment "web"
        ip saddr 127.0.0.1 ip daddr 10.1.0.2 masquerade comment "web"
    }
}
"#;

#[test]
fn pods_that_the_reference_mapped_are_taken_over() {
    node(|node| {
        neighbourhood(node);
        let ((web, before), (other, second)) = (bridged(node, "web"), bridged(node, "other"));
        serve(&web, 80);
        let file = node.path("state").join("ruleset");
        node::config_file(&file, OF_REFERENCE);
        shown("nft", &["-f", file.to_str().unwrap()]);
        hostnet::sysctl::write("net/ipv4/conf/br0/route_localnet", "1").unwrap();
        let mut config = mapped("", &before, &json!([tcp(8080, 80)]));
        let v4 = config["prevResult"]["ips"][0].clone();
        config["prevResult"]["ips"] = json!([v4]);
        call(node, "CHECK", &config, &web).ok();
        let ours = mapped("", &second, &json!([tcp(8081, 80)]));
        call(node, "ADD", &ours, &other).result();
        call(node, "CHECK", &ours, &other).ok();
        assert_eq!(ask(None, "127.0.0.1:8080"), Ok("web".to_owned()));
        call(node, "CHECK", &config, &web).ok();
        call(node, "DEL", &config, &web).ok();
        assert_eq!([redirects("8080"), redirects("8081")], [0, 2]);
        call(node, "CHECK", &config, &web).error();
        call(node, "DEL", &ours, &other).ok();
        assert_eq!(rules(false), "");
    });
}

/// Debian's build of the reference, which only knows iptables and spec 1.0.0.
#[test]
fn either_side_deletes_what_the_other_added_by_iptables() {
    let reference = std::path::Path::new("/usr/lib/cni/portmap");
    if !reference.exists() {
        eprintln!("SKIPPED: no reference plugins in /usr/lib/cni; run `make setup`");
        return;
    }
    node(|node| {
        neighbourhood(node);
        let (web, before) = bridged(node, "web");
        serve(&web, 80);
        let mut config = mapped("iptables", &before, &json!([tcp(8080, 80)]));
        config["cniVersion"] = "1.0.0".into();
        config["prevResult"]["cniVersion"] = "1.0.0".into();
        let theirs = |command: &str| {
            let mut child = std::process::Command::new(reference);
            let netns = web.path.to_str().unwrap();
            child
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", "web")
                .env("CNI_IFNAME", "eth0")
                .env("CNI_NETNS", netns)
                .env("CNI_PATH", "/usr/lib/cni");
            node::run(&mut child, config.to_string().as_bytes())
        };
        let reached = || ask(None, "127.0.0.1:8080").is_ok();
        theirs("ADD").result();
        assert!(reached());
        // The default backend, too, sees and removes what the reference made.
        for backend in ["iptables", ""] {
            let mut ours = config.clone();
            ours["backend"] = backend.into();
            call(node, "CHECK", &ours, &web).ok();
        }
        let mut ours = config.clone();
        ours["backend"] = "".into();
        call(node, "DEL", &ours, &web).ok();
        assert!(!reached());
        assert_eq!(rules(false), "");
        call(node, "ADD", &config, &web).result();
        assert!(reached());
        theirs("DEL").ok();
        assert!(!reached());
        assert_eq!(rules(false), "");
    });
}
