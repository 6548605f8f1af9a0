//! Answers of the daemon as tables: which columns, and one row of what.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::table::{Column, cell, render};

const NODES: &[Column] = &[
    ("NAME", "/name"),
    ("THIS", "/thisNode"),
    ("POD CIDR", "/podCIDRs"),
    ("PUBLIC IP", "/overlay/publicIPs"),
    ("BACKEND", "/overlay/backend"),
    ("STATE", "/overlay/state"),
    ("PROBLEM", "/problem"),
];
const LEASES: &[Column] = &[
    ("SUBNET", "/subnets"),
    ("OWNER", "/owner"),
    ("PUBLIC IP", "/publicIPs"),
    ("BACKEND", "/backend"),
    ("DATA", "/data"),
    ("EXPIRES IN", "/expiry"),
    ("KNOWN FOR", "/age"),
    ("STATE", "/state"),
    ("PROBLEM", "/problem"),
];
const ROUTES: &[Column] = &[
    ("DESTINATION", "/destination"),
    ("VIA", "/gateway"),
    ("DEVICE", "/device"),
    ("NEIGHBOUR", "/neighbourMac"),
    ("NODE ADDRESS", "/nodeAddress"),
];
const SERVICES: &[Column] = &[
    ("SERVICE", "/service"),
    ("TYPE", "/type"),
    ("CLUSTER IP", "/clusterIps"),
    ("PORT", "/port"),
    ("READY", "/ready"),
    ("LOCAL", "/local"),
    ("ENDPOINTS", "/endpoints"),
];
const SERVICE_ENDPOINTS: &[Column] = &[
    ("PORT", "/port"),
    ("ENDPOINT", "/address"),
    ("POD", "/pod"),
    ("NODE", "/node"),
    ("LOCAL", "/local"),
    ("STATE", "/readiness"),
];
const PODS: &[Column] = &[
    ("POD", "/name"),
    ("NODE", "/node"),
    ("ADDRESS", "/addresses"),
    ("INTERFACE", "/interface"),
    ("POLICIES", "/policies"),
];
const ENDPOINTS: &[Column] = &[
    ("POD", "/pod"),
    ("INTERFACE", "/hostInterface"),
    ("ADDRESS", "/addresses"),
    ("REVISION", "/policyRevision"),
    ("CONTAINER", "/containerId"),
    ("WAITING FOR", "/waitingFor"),
];
const POLICIES: &[Column] = &[
    ("POLICY", "/name"),
    ("PODS", "/podSelector"),
    ("INGRESS", "/ingressRules"),
    ("EGRESS", "/egressRules"),
    ("ON THIS NODE", "/localPods"),
];
const FLOWS: &[Column] = &[
    ("POD", "/pod"),
    ("DIR", "/direction"),
    ("PROTO", "/protocol"),
    ("POD SIDE", "/podSide"),
    ("REMOTE SIDE", "/remoteSide"),
    ("REMOTE POD", "/remoteName"),
    ("VIA", "/via"),
    ("STATE", "/state"),
    ("RULE", "/rule"),
    ("IDLE S", "/idleSeconds"),
];
const DIFF: &[Column] = &[
    ("TABLE", "/table"),
    ("PROBLEM", "/problem"),
    ("KEY", "/key"),
];
const COUNTERS: &[Column] = &[
    ("DIRECTION", "/direction"),
    ("REASON", "/reason"),
    ("DROP", "/drop"),
    ("PACKETS", "/packets"),
    ("BYTES", "/bytes"),
];
const MAPS: &[Column] = &[
    ("MAP", "/name"),
    ("KIND", "/kind"),
    ("ENTRIES", "/entries"),
    ("CAPACITY", "/capacity"),
];

/// What an answer shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum View {
    /// `/v1/status`.
    Status,
    /// `/v1/nodes`.
    Nodes,
    /// `/v1/leases`.
    Leases,
    /// `/v1/routes`.
    Routes,
    /// `/v1/services`.
    Services,
    /// `/v1/services` with one service asked for.
    Service,
    /// `/v1/pods`.
    Pods,
    /// `/v1/endpoints`.
    Endpoints,
    /// `/v1/policies`.
    Policies,
    /// `/v1/flows`.
    Flows,
    /// `/v1/drift`.
    Diff,
    /// `/v1/counters`.
    Counters,
    /// `/v1/maps`.
    Maps,
    /// `/v1/why`.
    Why,
}

/// `answer` as text.
pub(crate) fn text(view: View, answer: &Value) -> String {
    match view {
        View::Status => status(answer),
        View::Nodes if rows(answer).is_empty() => {
            "No Node object is known: without an API server `towline leases` shows who is there.\n"
                .to_owned()
        }
        View::Nodes => render(NODES, rows(answer)),
        View::Leases => leases(answer, Timestamp::now()),
        View::Routes => routes(answer),
        View::Services => render(SERVICES, &service_rows(answer)),
        View::Service => service(answer),
        View::Pods => render(PODS, rows(answer)),
        View::Endpoints => render(ENDPOINTS, &with_short_ids(answer)),
        View::Policies => render(POLICIES, rows(answer)),
        View::Flows => render(FLOWS, rows(answer)),
        View::Diff if rows(answer).is_empty() => {
            "The kernel holds exactly what the cluster asks for.\n".to_owned()
        }
        View::Diff => render(DIFF, rows(answer)),
        View::Counters => render(COUNTERS, rows(answer)),
        View::Maps => render(MAPS, rows(answer)),
        View::Why => crate::why::text(answer),
    }
}

/// Container ids as container tools show them: their first 13 characters.
fn with_short_ids(answer: &Value) -> Vec<Value> {
    let mut rows = rows(answer).to_vec();
    for row in &mut rows {
        if let Some(id) = row["containerId"].as_str() {
            row["containerId"] = id.chars().take(13).collect::<String>().into();
        }
    }
    rows
}

fn rows(answer: &Value) -> &[Value] {
    answer.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn status(answer: &Value) -> String {
    let at = |pointer: &str| answer.pointer(pointer).map_or_else(|| "-".to_owned(), cell);
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    line("Node", at("/node"));
    let ready = if answer["ready"] == Value::Bool(true) {
        "yes"
    } else {
        "no"
    };
    line("Ready", ready.to_owned());
    for obstacle in rows(&answer["waitingFor"]) {
        line("", format!("waits for {}", cell(obstacle)));
    }
    for note in rows(&answer["notes"]) {
        line("Note", cell(note));
    }
    line(
        "Version",
        format!("{}, since {}", at("/version"), at("/started")),
    );
    line(
        "Datapath",
        format!(
            "{}, services {}, policy {}",
            at("/datapath"),
            at("/services"),
            at("/policy")
        ),
    );
    line("Subnet", at("/lease/subnets"));
    line(
        "Overlay",
        format!(
            "{} {}, public IP {}",
            at("/lease/backend"),
            at("/lease/data"),
            at("/lease/publicIPs")
        ),
    );
    let objects = answer["objects"].as_object().cloned().unwrap_or_default();
    let objects: Vec<String> = objects
        .iter()
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    line("Objects", objects.join(", "));
    text.push('\n');
    let columns: &[Column] = &[
        ("LOOP", "/name"),
        ("PASSES", "/passes"),
        ("LAST", "/lastPass"),
        ("MICROS", "/lastMicros"),
        ("DRIFT", "/driftRepaired"),
        ("ERRORS", "/errors"),
    ];
    let loops = answer["loops"].as_object().cloned().unwrap_or_default();
    let loops: Vec<Value> = loops
        .into_iter()
        .map(|(name, value)| named(name, value))
        .collect();
    text + &render(columns, &loops)
}

fn named(name: String, value: Value) -> Value {
    let mut row = match value {
        Value::Object(row) => row,
        _ => Map::new(),
    };
    row.insert("name".to_owned(), Value::String(name));
    Value::Object(row)
}

/// All leases, and what the store says of itself.
pub(crate) fn leases(answer: &Value, now: Timestamp) -> String {
    let mut leases = rows(&answer["leases"]).to_vec();
    for lease in &mut leases {
        // An owner that no Node object names is known by its address alone.
        lease["owner"] = match &lease["node"] {
            Value::Null => lease["publicIPs"].clone(),
            name => name.clone(),
        };
        if let Some(seconds) = lease["expiry"].as_i64() {
            lease["expiry"] = duration(seconds).into();
        }
        let since = lease["since"].as_str().and_then(|text| text.parse().ok());
        if let Some(since) = since {
            lease["age"] = duration(now.duration_since(since).as_secs()).into();
        }
    }
    let mut text = render(LEASES, &leases);
    if answer["connected"] != Value::Bool(true) {
        let store = cell(&answer["store"]);
        let since = answer["troubleSince"].as_str();
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        text += &format!("not connected to {store}{since}: this is what was known last\n");
    }
    for (key, said) in [
        ("trouble", "trouble with the store"),
        ("obstacle", "this node holds no lease safely"),
        ("expiryUnknown", "expiry is not known"),
    ] {
        if let Some(why) = answer[key].as_str() {
            text += &format!("{said}: {why}\n");
        }
    }
    if let (false, Some(ends)) = (
        answer["connected"] == Value::Bool(true),
        answer["ownExpires"].as_str(),
    ) {
        text += &format!("this node's lease lasts until {ends} if the store stays away\n");
    }
    let said = match answer["store"].as_str() {
        Some("etcd") => "cannot be read, counts as taken",
        _ => "cannot be read",
    };
    for key in rows(&answer["unreadable"]) {
        text += &format!("{said}: {}\n", cell(key));
    }
    text
}

/// The two largest units: `23h14m`, `5m2s`.
fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m{}s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{}h{}m", s / 3600, s / 60 % 60),
        s => format!("{}d{}h", s / 86_400, s / 3600 % 24),
    }
}

fn routes(answer: &Value) -> String {
    let mut text = render(ROUTES, rows(&answer["routes"]));
    for problem in rows(&answer["problems"]) {
        text.push_str(&format!("left out: {}\n", cell(problem)));
    }
    text
}

/// One row per port of each service.
fn service_rows(answer: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for service in rows(answer) {
        for port in rows(&service["ports"]) {
            let endpoints = rows(&port["endpoints"]);
            let ready: Vec<&Value> = endpoints
                .iter()
                .filter(|e| e["readiness"] == "ready")
                .collect();
            let local = ready
                .iter()
                .filter(|e| e["local"] == Value::Bool(true))
                .count();
            let shown: Vec<Value> = ready.iter().take(3).map(|e| e["address"].clone()).collect();
            let more = ready.len().saturating_sub(shown.len());
            let more = (more > 0).then(|| Value::String(format!("+{more}")));
            all.push(serde_json::json!({
                "service": service["name"],
                "type": service["type"],
                "clusterIps": service["clusterIps"],
                "port": port_text(port),
                "ready": format!("{}/{}", ready.len(), endpoints.len()),
                "local": local,
                "endpoints": shown.into_iter().chain(more).collect::<Vec<_>>(),
            }));
        }
    }
    all
}

fn port_text(port: &Value) -> String {
    let mut text = format!("{}/{}", cell(&port["port"]), cell(&port["protocol"]));
    if let Some(name) = port["name"].as_str().filter(|name| !name.is_empty()) {
        text = format!("{name}:{text}");
    }
    match port["nodePort"].as_u64() {
        Some(node_port) => format!("{text}@{node_port}"),
        None => text,
    }
}

fn service(answer: &Value) -> String {
    let mut text = render(SERVICES, &service_rows(answer));
    for service in rows(answer) {
        let mut endpoints = Vec::new();
        for port in rows(&service["ports"]) {
            for endpoint in rows(&port["endpoints"]) {
                let mut row = endpoint.clone();
                row["port"] = Value::String(port_text(port));
                endpoints.push(row);
            }
        }
        text.push('\n');
        text.push_str(&render(SERVICE_ENDPOINTS, &endpoints));
    }
    text
}
