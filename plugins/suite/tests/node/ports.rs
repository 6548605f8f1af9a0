//! Pods on a bridge with mapped ports, servers in them, and connections to them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hostnet::Netlink;
use netstate::Address;
use serde_json::{Value, json};

use super::setup::{dual_stack, outside};
use super::{Node, Pod};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A node with addresses 192.0.2.1 and fd00:9::1, and a host beyond it at 192.0.2.2.
pub(crate) fn neighbourhood(node: &Node) -> Pod {
    let far = outside(node);
    let (mut host, lo) = (Netlink::open().unwrap(), "lo".parse().unwrap());
    host.set_up(&lo).unwrap();
    let address = Address::new("fd00:9::1/128".parse().unwrap());
    host.add_address(&lo, &address).unwrap();
    far
}

/// A pod of the network `net` on a bridge, with the result of its ADD.
pub(crate) fn bridged(node: &Node, id: &str) -> (Pod, Value) {
    let pod = node.pod(id);
    let lo = "lo".parse().unwrap();
    pod.netlink().set_up(&lo).unwrap();
    let result = node
        .attachment("bridge", "ADD", &dual_stack(node, "bridge"), &pod)
        .result();
    (pod, result)
}

/// The configuration of `portmap` for network `net`.
pub(crate) fn mapped(backend: &str, before: &Value, mappings: &Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "backend": backend,
        "capabilities": { "portMappings": true }, "prevResult": before,
        "runtimeConfig": { "portMappings": mappings },
    })
}

/// A mapping of TCP on every address.
pub(crate) fn tcp(host_port: u16, container_port: u16) -> Value {
    json!({ "hostPort": host_port, "containerPort": container_port, "protocol": "tcp" })
}

/// Servers on `port` of TCP and UDP, both families, that tell everybody the pod's ID.
pub(crate) fn serve(pod: &Pod, port: u16) {
    let bind = || {
        let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    };
    let (listener, socket) = pod.open().run_in(bind).unwrap();
    let (id, same) = (pod.id.clone(), pod.id.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that is gone already is its own affair.
            let _ = stream.and_then(|mut stream| stream.write_all(id.as_bytes()));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(same.as_bytes(), from);
        }
    });
}

/// What a server tells who connects to `to` from a pod, or from the node itself.
pub(crate) fn ask(from: Option<&Pod>, to: &str) -> Result<String, ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let answer = match from {
        Some(pod) => pod.open().run_in(connect).unwrap(),
        None => connect(),
    };
    answer.map_err(|error| error.kind())
}

/// A UDP socket in a pod that goes on using one port.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn new(pod: &Pod) -> Self {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        Self(pod.open().run_in(bind).unwrap())
    }

    /// What a server answers; an error when nobody does, be it in words or by silence.
    pub(crate) fn ask(&self, to: &str, patience: Duration) -> Result<String, ErrorKind> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        self.0.send_to(b"who?", to).map_err(|error| error.kind())?;
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer).map_err(|error| error.kind())?;
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }
}

/// What a program of the node prints.
pub(crate) fn shown(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything about mapped ports, of both backends and families, without counters; only what belongs
/// to attachments unless `shared` is asked for too.
pub(crate) fn rules(shared: bool) -> String {
    let mut text = String::new();
    for (program, family) in [("iptables-save", "ip"), ("ip6tables-save", "ip6")] {
        let tables = shown("nft", &["list", "tables", family]);
        if tables.contains("cni_hostport") {
            text.push_str(&shown("nft", &["list", "table", family, "cni_hostport"]));
        }
        if tables.contains(" nat") {
            text.push_str(&shown(program, &["-t", "nat"]));
        }
    }
    let of_attachments = |line: &&str| {
        !line.contains("CNI portfwd") && (line.contains("comment") || line.contains("CNI-DN-"))
    };
    let is_rule = |line: &&str| !line.starts_with(['#', ':']) || line.contains("CNI-DN-");
    text.lines()
        .filter(is_rule)
        .filter(|line| shared || of_attachments(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// How many rules lead `port` of the host somewhere.
pub(crate) fn redirects(port: &str) -> usize {
    let list = rules(false);
    let lines = list
        .lines()
        .filter(|line| line.contains("dnat to") || line.contains("DNAT --to"));
    lines
        .filter(|line| line.contains(&format!("dport {port} ")))
        .count()
}
