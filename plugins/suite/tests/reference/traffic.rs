//! Connections and pings between pods, the node and a host beyond it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::node::{Node, Pod};
use crate::world::run;

const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `work` in the pod's namespace.
pub(crate) fn inside<T: Send>(pod: &Pod, work: impl FnOnce() -> T + Send) -> T {
    pod.open().run_in(work).unwrap()
}

/// Whether `address` answers one echo request at once.
pub(crate) fn pings_once(address: &str) -> bool {
    std::process::Command::new("busybox")
        .args(["ping", "-c", "1", "-W", "1", address])
        .output()
        .expect("run busybox; `make setup` installs it")
        .status
        .success()
}

/// Whether `address` answers one of five echo requests, one a second, from where the caller is.
pub(crate) fn pings(address: &str) -> bool {
    (0..5).any(|_| pings_once(address))
}

/// Answers each connection to `address` in `pod` with the caller's address, until dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    netns: hostnet::Netns,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(pod: &Pod, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = inside(pod, || TcpListener::bind(address).unwrap());
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let Ok(peer) = stream.peer_addr() else {
                    continue;
                };
                // The client may have gone already, which its own side reports.
                let _ = write!(stream, "{}", peer.ip());
            }
        });
        Self {
            address,
            stop,
            netns: pod.open(),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, self.address.port()));
        // A link that is down still lets one reach one's own address once `lo` is up; failing
        // that, the listener is woken by its own address.
        let wake = || {
            let woken = TcpStream::connect_timeout(&address, PATIENCE).is_ok();
            woken || TcpStream::connect_timeout(&self.address, PATIENCE).is_ok()
        };
        if self.netns.run_in(wake).unwrap_or(false)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What a [`Server`] at `target` says, or `refused`, from where the caller is.
pub(crate) fn asks(target: &str) -> String {
    asks_for(target, PATIENCE)
}

/// Whether nothing at all comes back from `target`: neither a connection nor a refusal.
pub(crate) fn is_silent(target: &str) -> bool {
    asks_for(target, Duration::from_secs(1)) == "no answer"
}

fn asks_for(target: &str, patience: Duration) -> String {
    let target: SocketAddr = target.parse().unwrap();
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&target, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match answer() {
        Ok(text) => format!("seen as {text}"),
        Err(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "no answer".to_owned(),
            kind => kind.to_string(),
        },
    }
}

/// The source that `to` sees of a datagram from `from` to `target`, an address of `to`'s.
pub(crate) fn source_seen(from: &Pod, to: &Pod, target: &str) -> String {
    let target: SocketAddr = target.parse().unwrap();
    let server = inside(to, || UdpSocket::bind(target).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = inside(from, || UdpSocket::bind("0.0.0.0:0").unwrap());
    if client.send_to(b"x", target).is_err() {
        return "unreachable".to_owned();
    }
    match server.recv_from(&mut [0; 8]) {
        Ok((_, source)) => source.ip().to_string(),
        Err(_) => "nothing arrived".to_owned(),
    }
}

/// A host beyond the node, 192.0.2.2 behind the node's 192.0.2.1, that knows the way to the pods.
pub(crate) fn outside(node: &Node) -> Pod {
    let pod = node.pod("outside");
    // `ip` takes a namespace by the number of a process or by a name in /run/netns only; a file
    // descriptor's path is neither, so the peer is moved by hostnet.
    let peer = netstate::VethPeer {
        name: "up0".parse().unwrap(),
        netns: Some(pod.path.to_str().unwrap().parse().unwrap()),
        mac: None,
    };
    let kind = netstate::LinkKind::Veth(peer);
    let link = netstate::Link::new("out0".parse().unwrap(), kind).up();
    hostnet::Netlink::open()
        .unwrap()
        .create_link(&link)
        .unwrap();
    run("ip", &["addr", "add", "192.0.2.1/24", "dev", "out0"]);
    inside(&pod, || {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "set", "up0", "up"]);
        run("ip", &["addr", "add", "192.0.2.2/24", "dev", "up0"]);
        run("ip", &["route", "add", "10.0.0.0/8", "via", "192.0.2.1"]);
    });
    pod
}
