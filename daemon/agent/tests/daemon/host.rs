//! A network namespace with an uplink, perhaps an etcd, and the daemon in it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hostnet::{Netlink, Nftables, PROTOCOL_TOWLINE};
use netstate::nft::TableFamily;
use netstate::{Address, IfName, Link, LinkKind, VethPeer};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long a condition may take to come true.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const ETCD: &str = "http://127.0.0.1:2379";
pub(crate) const PREFIX: &str = "/coreos.com/network";
/// A node that is only a key.
pub(crate) const PEER: &str = r#"{"PublicIP":"172.30.0.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#;

/// A namespace with an uplink and an etcd, where towlined's notifications are heard.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    pub(crate) etcd: Option<Child>,
}

/// A daemon; ended, however the test ends.
pub(crate) struct Towlined(pub(crate) Child);

pub(crate) fn on_a_host(test: impl FnOnce(Host) + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: run it as root"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test(Host::new());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Waits until `what` gives something.
#[track_caller]
pub(crate) fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < limit, "not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

// === impl Host ===

impl Host {
    fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        let peer = VethPeer {
            name: name("eth0p"),
            netns: None,
            mac: None,
        };
        let uplink = Link::new(name("eth0"), LinkKind::Veth(peer)).up();
        netlink.create_link(&uplink).unwrap();
        netlink.set_up(&name("eth0p")).unwrap();
        netlink.set_up(&name("lo")).unwrap();
        let address = Address::new("172.30.0.1/24".parse().unwrap());
        netlink.add_address(&name("eth0"), &address).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            folder,
            manager,
            etcd: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts etcd with a network configuration and one peer.
    pub(crate) fn start_etcd(&mut self) {
        self.run_etcd();
        let config = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
        until(|| etcdctl(&["put", &format!("{PREFIX}/config"), config]));
        etcdctl(&["put", &format!("{PREFIX}/subnets/10.5.2.0-24"), PEER]).unwrap();
    }

    /// Starts etcd with what it holds already.
    pub(crate) fn run_etcd(&mut self) {
        let etcd = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.path("etcd"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path("etcd.log")).unwrap())
            .spawn()
            .unwrap();
        self.etcd = Some(etcd);
    }

    /// Ends etcd as a power failure would.
    pub(crate) fn kill_etcd(&mut self) {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill().unwrap();
            etcd.wait().unwrap();
        }
    }

    /// A daemon with its leases in etcd.
    pub(crate) fn start(&self) -> Towlined {
        self.start_with(&[
            "--kube-subnet-mgr=false",
            "--datapath=none",
            "--etcd-endpoints",
            ETCD,
        ])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Towlined {
        let mut towlined = Command::new(env!("CARGO_BIN_EXE_towlined"));
        towlined
            .env_clear()
            .env("NOTIFY_SOCKET", self.path("notify"))
            .args(arguments)
            .args(["--node-name=n1", "--iface=eth0", "--resync-seconds=1"])
            .args(["--metrics-bind-address=127.0.0.1:10249"])
            .args(["--healthz-bind-address=127.0.0.1:10256"])
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--subnet-file")
            .arg(self.path("state/subnet.env"))
            .stdin(Stdio::null())
            .stderr(File::create(self.path("towlined.log")).unwrap());
        Towlined(towlined.spawn().unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("towlined.log")).unwrap()
    }

    /// Waits until the service manager is told a line that begins with `line`.
    #[track_caller]
    pub(crate) fn hears(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let Ok(length) = self.manager.recv(&mut buffer) else {
                panic!("{line} was not heard:\n{}", self.log());
            };
            let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(found) = told.lines().find(|told| told.starts_with(line)) {
                return found.to_owned();
            }
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        request(&self.path("state/towlined.sock"), method, path)
    }

    /// What is in the kernel and on disk: routes, the device's MAC, our rules, the subnet file.
    pub(crate) fn left(&self) -> Value {
        let mut netlink = Netlink::open().unwrap();
        let routes = netlink.routes(Some(PROTOCOL_TOWLINE)).unwrap();
        let routes: Vec<String> = routes
            .iter()
            .map(|route| route.key.destination.to_string())
            .collect();
        let device = netlink.link(&name("flannel.1")).unwrap();
        let mut nftables = Nftables::open().unwrap();
        json!({
            "routes": routes,
            "device": device.and_then(|link| link.mac).map(|mac| mac.to_string()),
            "rules": nftables.exists(TableFamily::Inet, "towline").unwrap(),
            "file": fs::read_to_string(self.path("state/subnet.env")).ok(),
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_etcd();
    }
}

// === impl Towlined ===

impl Towlined {
    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Towlined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn etcdctl(arguments: &[&str]) -> Option<String> {
    let answer = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", ETCD, "--command-timeout=2s"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    answer.status.success().then_some(text)
}

/// The subnets that etcd holds for the node with this test's address.
pub(crate) fn leased() -> Vec<String> {
    let all = etcdctl(&["get", "--prefix", &format!("{PREFIX}/subnets/")]).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    let pairs = lines.chunks(2);
    let own = pairs.filter(|pair| pair[1].contains(r#""PublicIP":"172.30.0.1""#));
    own.map(|pair| pair[0].rsplit('/').next().unwrap().to_owned())
        .collect()
}

pub(crate) fn request(socket: &Path, method: &str, path: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: towlined\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let nothing = body.is_empty().then_some(Value::Null);
    let body = nothing.unwrap_or_else(|| serde_json::from_str(body).unwrap());
    (status, body)
}

/// What health or metrics answer, if anybody does.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The answer of a health path, once there is one that `what` is true of.
#[track_caller]
pub(crate) fn health(path: &str, what: impl Fn(u16, &Value) -> bool) -> (u16, Value) {
    let limit = Instant::now() + LIMIT;
    loop {
        let answer = get(10256, path);
        let answer = answer.map(|(status, body)| {
            let body: Value = serde_json::from_str(&body).unwrap();
            (status, body)
        });
        match answer {
            Some((status, body)) if what(status, &body) => return (status, body),
            answer => assert!(Instant::now() < limit, "not in time: {answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn metric(name: &str) -> Option<f64> {
    let (_, text) = get(10249, "/metrics").unwrap();
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}
