//! The whole daemon with leases in a real etcd and no API server, as flanneld may run: in a network
//! namespace of the test's own. Needs root and etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
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
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(20);
const ETCD: &str = "http://127.0.0.1:2379";
const PREFIX: &str = "/coreos.com/network";
/// A node that is only a key.
const PEER: &str = r#"{"PublicIP":"172.30.0.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#;

/// A namespace with an uplink and an etcd, where towlined's notifications are heard.
struct Host {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    etcd: Option<Child>,
}

/// A daemon; ended, however the test ends.
struct Towlined(Child);

fn on_a_host(test: impl FnOnce(Host) + Send + 'static) {
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
fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts etcd with a network configuration and one peer.
    fn start_etcd(&mut self) {
        let etcd = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.path("etcd"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path("etcd.log")).unwrap())
            .spawn()
            .unwrap();
        self.etcd = Some(etcd);
        let config = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
        until(|| etcdctl(&["put", &format!("{PREFIX}/config"), config]));
        etcdctl(&["put", &format!("{PREFIX}/subnets/10.5.2.0-24"), PEER]).unwrap();
    }

    fn start(&self) -> Towlined {
        let mut towlined = Command::new(env!("CARGO_BIN_EXE_towlined"));
        towlined
            .env_clear()
            .env("NOTIFY_SOCKET", self.path("notify"))
            .args(["--kube-subnet-mgr=false", "--datapath=none"])
            .args(["--node-name=n1", "--iface=eth0", "--resync-seconds=1"])
            .args(["--etcd-endpoints", ETCD])
            .args(["--metrics-bind-address=127.0.0.1:10249"])
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--subnet-file")
            .arg(self.path("state/subnet.env"))
            .stdin(Stdio::null())
            .stderr(File::create(self.path("towlined.log")).unwrap());
        Towlined(towlined.spawn().unwrap())
    }

    /// Waits until the service manager is told a line that begins with `line`.
    #[track_caller]
    fn hears(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let Ok(length) = self.manager.recv(&mut buffer) else {
                let log = fs::read_to_string(self.path("towlined.log")).unwrap();
                panic!("{line} was not heard:\n{log}");
            };
            let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(found) = told.lines().find(|told| told.starts_with(line)) {
                return found.to_owned();
            }
        }
    }

    fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        request(&self.path("state/towlined.sock"), method, path)
    }

    /// What is in the kernel and on disk: routes, the device's MAC, our rules, the subnet file.
    fn left(&self) -> Value {
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
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill().unwrap();
            etcd.wait().unwrap();
        }
    }
}

// === impl Towlined ===

impl Towlined {
    /// Ends it as a service manager does.
    fn stop(&mut self) -> ExitStatus {
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

fn etcdctl(arguments: &[&str]) -> Option<String> {
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
fn leased() -> Vec<String> {
    let all = etcdctl(&["get", "--prefix", &format!("{PREFIX}/subnets/")]).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    let pairs = lines.chunks(2);
    let own = pairs.filter(|pair| pair[1].contains(r#""PublicIP":"172.30.0.1""#));
    own.map(|pair| pair[0].rsplit('/').next().unwrap().to_owned())
        .collect()
}

fn request(socket: &Path, method: &str, path: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: towlined\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn metric(name: &str) -> Option<f64> {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:10249").unwrap();
    let head = "GET /metrics HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let mut lines = answer.lines();
    let line = lines.find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_daemon_that_waits_for_etcd_says_so_and_ends_well_when_asked() {
    on_a_host(|host| {
        let mut towlined = host.start();
        let status = host.hears("STATUS=waits for the network configuration");
        assert!(status.contains(ETCD), "{status}");
        assert_eq!(towlined.stop().code(), Some(0));
        host.hears("STOPPING=1");
    });
}

#[test]
fn a_stop_tears_nothing_down_and_the_next_daemon_goes_on_with_the_same_lease() {
    on_a_host(|mut host| {
        host.start_etcd();
        let mut first = host.start();
        host.hears("READY=1");
        let (held, left) = (leased(), host.left());
        assert_eq!(held.len(), 1);
        assert_eq!(left["routes"], json!(["10.5.2.0/24"]));
        assert_eq!(left["rules"], true);
        assert!(left["device"].is_string() && left["file"].is_string());
        assert_eq!(first.stop().code(), Some(0));
        host.hears("STOPPING=1");
        assert_eq!((leased(), host.left()), (held.clone(), left.clone()));

        let _second = host.start();
        host.hears("READY=1");
        assert_eq!((leased(), host.left()), (held, left));
    });
}

#[test]
fn leases_and_differences_are_shown_and_counted() {
    on_a_host(|mut host| {
        host.start_etcd();
        etcdctl(&["put", &format!("{PREFIX}/subnets/notes"), "x"]).unwrap();
        let _towlined = host.start();
        host.hears("READY=1");
        let (_, shown) = host.ask("GET", "/v1/leases");
        assert_eq!(shown["store"], "etcd");
        assert_eq!(shown["connected"], true);
        assert_eq!(shown["unreadable"].as_array().unwrap().len(), 1, "{shown}");
        let leases = shown["leases"].as_array().unwrap();
        let own = leases.iter().find(|lease| lease["own"] == true).unwrap();
        let expiry = own["expiry"].as_i64().unwrap();
        assert!((86_000..=86_400).contains(&expiry), "{own}");
        assert_eq!(own["state"], "own");
        let peer = leases.iter().find(|lease| lease["own"] == false).unwrap();
        assert_eq!(
            (&peer["state"], &peer["expiry"]),
            (&json!("ok"), &json!("never"))
        );
        assert_eq!(metric("towline_leases "), Some(2.0));
        assert_eq!(metric("towline_lease_obstacles "), Some(0.0));
        assert_eq!(metric("towline_lease_store_connected "), Some(1.0));
        assert_eq!(metric("towline_lease_unreadable_keys "), Some(1.0));
        assert!(metric("towline_lease_expiry_timestamp_seconds").is_some());
        assert_eq!(host.ask("GET", "/v1/drift"), (200, json!([])));
    });
}

#[test]
fn a_release_gives_all_back_once_and_for_this_run() {
    on_a_host(|mut host| {
        host.start_etcd();
        let mut towlined = host.start();
        host.hears("READY=1");
        let held = leased();
        let subnet = held[0].replace('-', "/");
        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!(status, 200, "{answer}");
        let file = host.path("state/subnet.env");
        assert_eq!(answer["subnets"], json!([subnet]));
        assert_eq!(answer["removed"]["routes"], json!(["10.5.2.0/24"]));
        assert_eq!(answer["removed"]["devices"], json!(["flannel.1"]));
        assert_eq!(answer["removed"]["rules"], json!(["inet towline"]));
        let files = answer["removed"]["files"].as_array().unwrap();
        assert!(files.contains(&json!(file)), "{files:?}");
        let nothing = json!({ "routes": [], "device": null, "rules": false, "file": null });
        assert_eq!((leased(), host.left()), (vec![], nothing.clone()));
        let etcd_leases = etcdctl(&["lease", "list"]).unwrap();
        assert!(etcd_leases.contains("found 0 leases"), "{etcd_leases}");

        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!((status, &answer["subnets"]), (200, &json!([])));
        assert_eq!(answer["removed"]["routes"], json!([]));

        // Passes go on, by the timer and by others' leases, and nothing comes back.
        let passes = || host.ask("GET", "/v1/status").1["loops"]["overlay"]["passes"].as_u64();
        let before = passes().unwrap();
        etcdctl(&["put", &format!("{PREFIX}/subnets/10.5.3.0-24"), PEER]).unwrap();
        until(|| passes().filter(|passes| *passes > before + 1));
        assert_eq!((leased(), host.left()), (vec![], nothing));
        let (_, status) = host.ask("GET", "/v1/status");
        assert_eq!(status["ready"], false);
        let why = status["waitingFor"][0].as_str().unwrap();
        assert!(why.contains("a restart of towlined"), "{why}");

        assert_eq!(towlined.stop().code(), Some(0));
        let _next = host.start();
        host.hears("READY=1");
        assert_eq!(leased().len(), 1);
    });
}

#[test]
fn a_release_without_the_store_changes_nothing() {
    on_a_host(|mut host| {
        host.start_etcd();
        let _towlined = host.start();
        host.hears("READY=1");
        let left = host.left();
        if let Some(etcd) = &mut host.etcd {
            etcd.kill().unwrap();
            etcd.wait().unwrap();
        }
        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!(status, 503, "{answer}");
        assert_eq!(host.left(), left);
    });
}
