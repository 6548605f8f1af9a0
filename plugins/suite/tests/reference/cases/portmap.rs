//! `portmap`, chained after `bridge`.

use serde_json::{Value, json};

use super::chained::{chained, pod_on};
use super::{CODE, EMPTY_DNS};
use crate::chain;
use crate::node::Node;
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::{Server, asks, inside, outside};
use crate::world::run;

pub(super) const CASES: &[Case] = &[
    Case {
        number: "23",
        title: "portmap: who reaches a TCP port of the node",
        run: port,
        why: &[EMPTY_DNS],
    },
    Case {
        number: "49",
        title: "portmap: addresses of the node, many ports, and ports that are none",
        run: ports,
        why: &[
            CODE,
            (
                "DEL: error 999",
                "DEL of what a wrong configuration never made has nothing to fail at",
            ),
            (
                "rules are left",
                "mappings are checked before the first rule is made",
            ),
        ],
    },
];

fn port(node: &Node, seen: &mut Seen) {
    let far = outside(node);
    let (pod, _, before) = pod_on(node, "br0", "c1");
    let (peer, _, _) = pod_on(node, "br0", "c2");
    let attachment = chained(node, &chain::portmap(8080), &pod, &before);
    seen.result("ADD", &node.does("ADD", &attachment));
    let server = Server::start(&pod, "0.0.0.0:7000");
    seen.line(format!(
        "127.0.0.1:8080 from the node: {}",
        asks("127.0.0.1:8080")
    ));
    seen.line(format!(
        "192.0.2.1:8080 from the node: {}",
        asks("192.0.2.1:8080")
    ));
    for (who, from) in [
        ("outside", &far),
        ("another pod", &peer),
        ("the pod itself", &pod),
    ] {
        let answer = inside(from, || asks("192.0.2.1:8080"));
        seen.line(format!("192.0.2.1:8080 from {who}: {answer}"));
    }
    drop(server);
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.line(format!(
        "127.0.0.1:8080 from the node: {}",
        asks("127.0.0.1:8080")
    ));
    seen.outcome("DEL again", &node.does("DEL", &attachment));
}

fn mappings(mappings: Value) -> Value {
    let mut config = chain::portmap(1);
    config["runtimeConfig"]["portMappings"] = mappings;
    config
}

fn ports(node: &Node, seen: &mut Seen) {
    let far = outside(node);
    run("ip", &["addr", "add", "192.0.2.9/24", "dev", "out0"]);
    let (pod, _, before) = pod_on(node, "br0", "c1");
    let server = Server::start(&pod, "0.0.0.0:7000");
    let one = mappings(
        json!([{ "hostPort": 8080, "containerPort": 7000, "protocol": "tcp",
                                "hostIP": "192.0.2.9" }]),
    );
    let attachment = chained(node, &one, &pod, &before);
    seen.outcome("ADD with hostIP 192.0.2.9", &node.does("ADD", &attachment));
    for target in ["192.0.2.9:8080", "192.0.2.1:8080"] {
        seen.line(format!(
            "    {target} from outside: {}",
            inside(&far, || asks(target))
        ));
    }
    seen.outcome("DEL", &node.does("DEL", &attachment));
    let many: Vec<Value> = (0..40)
        .map(|n| json!({ "hostPort": 9000 + n, "containerPort": 7000, "protocol": "tcp" }))
        .collect();
    let attachment = chained(node, &mappings(many.into()), &pod, &before);
    seen.outcome("ADD with 40 ports", &node.does("ADD", &attachment));
    let reached = (0..40)
        .filter(|n| {
            let target = format!("192.0.2.1:{}", 9000 + n);
            inside(&far, || asks(&target)).starts_with("seen")
        })
        .count();
    seen.line(format!("    {reached} ports answer outside"));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    drop(server);
    let before_rules = crate::observe::rules();
    for mapping in [
        json!({ "hostPort": 8080, "containerPort": 7000, "protocol": "TCP" }),
        json!({ "hostPort": 70000, "containerPort": 7000, "protocol": "tcp" }),
        json!({ "hostPort": 8080, "containerPort": 70000, "protocol": "tcp" }),
        json!({ "hostPort": 8080, "containerPort": 0, "protocol": "tcp" }),
        json!({ "hostPort": 8080, "containerPort": 7000, "protocol": "tcp", "hostIP": "x" }),
        json!({ "hostPort": 8080, "containerPort": 7000, "protocol": "nonsense" }),
    ] {
        let attachment = chained(node, &mappings(json!([mapping])), &pod, &before);
        let answer = node.does("ADD", &attachment);
        seen.outcome(&format!("ADD of {mapping}"), &answer);
        if !answer.success {
            let left = crate::observe::rules() != before_rules;
            seen.line(format!("    rules are left: {left}"));
        }
        seen.outcome("DEL", &node.does("DEL", &attachment));
    }
}
