//! The socket programs on a cgroup of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use ebpf_shared::{
    conntrack::TCP_SYN,
    hook::FROM_POD,
    maps::{CONFIG_SERVICES, Config},
    policy::{PodNetnsKey, PodNetnsValue},
    protocol,
};
use harness::*;
use netstate::target::Target;
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork, pipe},
};
use towline_loader::{Datapath, cgroup_attachments, detach_cgroup, netns_cookie};

const VIP: [u8; 4] = [10, 96, 0, 10];
const LOCAL: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// A child cgroup of the unified hierarchy, removed on drop.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup v2 hierarchy");
        let path = root.join(format!("towline-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Runs `work` in a process that is in the cgroup (and in the test's namespaces).
    fn run(&self, work: impl FnOnce() -> String) -> String {
        let (mut reader, writer) = {
            let (reader, writer) = pipe().unwrap();
            (fs::File::from(reader), fs::File::from(writer))
        };
        // SAFETY: the child only makes system calls on its own descriptors and leaves by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let entered = fs::write(self.0.join("cgroup.procs"), "0");
                let text = entered.map_or_else(|e| e.to_string(), |()| work());
                let done = (&writer).write_all(text.as_bytes());
                // SAFETY: ends the process without running the parent's destructors.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
            ForkResult::Parent { child } => {
                drop(writer);
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                waitpid(child, None).unwrap();
                text
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn world(cgroup: &Path) -> World {
    let mut world = World::new();
    let config = Config {
        node_netns: netns_cookie().unwrap(),
        flags: CONFIG_SERVICES,
        ..Config::default()
    };
    world.datapath.maps().set_config(&config).unwrap();
    world.datapath.attach_cgroup(cgroup).unwrap();
    world
}

fn dial(port: u16) -> String {
    let addr = SocketAddr::from((VIP, port));
    match TcpStream::connect_timeout(&addr, Duration::from_secs(2)) {
        Ok(stream) => format!("connected to {}", stream.peer_addr().unwrap()),
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[test]
fn tcp_connects_to_a_backend_and_sees_the_frontend() {
    let cgroup = Cgroup::new("tcp");
    let mut world = world(&cgroup.0);
    let listener = TcpListener::bind(LOCAL.into_addr(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    world.service(VIP, 80, protocol::TCP, &[(LOCAL, port)]);
    assert_eq!(cgroup.run(|| dial(80)), "connected to 10.96.0.10:80");
    world.service(VIP, 81, protocol::TCP, &[]);
    assert_eq!(cgroup.run(|| dial(81)), "ConnectionRefused");
}

#[test]
fn a_caller_that_is_its_own_backend_keeps_the_frontend() {
    let cgroup = Cgroup::new("self");
    let mut world = world(&cgroup.0);
    let listener = TcpListener::bind(LOCAL.into_addr(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    world.service(VIP, 80, protocol::TCP, &[(LOCAL, port)]);
    let key = PodNetnsKey {
        cookie: netns_cookie().unwrap(),
    };
    let pod = PodNetnsValue {
        addr4: LOCAL,
        ..PodNetnsValue::default()
    };
    world.tables.pod_netns.put(&key, &pod).unwrap();
    assert_eq!(
        cgroup.run(|| dial(80)),
        "NetworkUnreachable",
        "nothing leads to the frontend here"
    );
}

/// A pod reached itself by the square of its fair share: the device chose again.
#[test]
fn the_device_keeps_the_choice_made_at_the_socket() {
    let cgroup = Cgroup::new("kept");
    let mut world = world(&cgroup.0);
    world.pod(LO, LOCAL, 0, 1);
    let listener = TcpListener::bind(LOCAL.into_addr(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = TcpListener::bind(SocketAddr::from((OTHER, port))).unwrap();
    world.service(
        VIP,
        80,
        protocol::TCP,
        &[(LOCAL, port), (OTHER, other.local_addr().unwrap().port())],
    );
    let key = PodNetnsKey {
        cookie: netns_cookie().unwrap(),
    };
    let pod = PodNetnsValue {
        addr4: LOCAL,
        ..PodNetnsValue::default()
    };
    world.tables.pod_netns.put(&key, &pod).unwrap();
    let mut left = 0;
    for client in 40_000..40_064 {
        let said = cgroup.run(|| dial(80));
        if said != "NetworkUnreachable" {
            assert_eq!(said, "connected to 10.96.0.10:80");
            continue;
        }
        left += 1;
        let out = world.run(FROM_POD, &tcp((LOCAL, client), (VIP, 80), TCP_SYN));
        let packet = tcp((VIP, client), (LOCAL, port), TCP_SYN);
        assert_eq!(
            (out.code, out.packet),
            (REDIRECT, packet),
            "client {client}"
        );
    }
    // One in 2^63 runs leaves none or all to the device.
    assert!((1..64).contains(&left), "{left} of 64 chose the pod itself");
}

#[test]
fn udp_of_the_node_is_translated_both_ways_and_stays_with_its_backend() {
    let cgroup = Cgroup::new("udp");
    let mut world = world(&cgroup.0);
    let servers: Vec<_> = (0..4)
        .map(|_| UdpSocket::bind(LOCAL.into_addr(0)).unwrap())
        .collect();
    let backends: Vec<_> = servers
        .iter()
        .map(|s| (LOCAL, s.local_addr().unwrap().port()))
        .collect();
    world.service(VIP, 53, protocol::UDP, &backends);
    let text = cgroup.run(|| {
        let socket = UdpSocket::bind(LOCAL.into_addr(0)).unwrap();
        for word in ["one", "two", "three", "four", "five"] {
            socket
                .send_to(word.as_bytes(), SocketAddr::from((VIP, 53)))
                .unwrap();
        }
        socket.local_addr().unwrap().to_string()
    });
    let client: SocketAddr = text.parse().unwrap();
    let mut counts = Vec::new();
    for server in &servers {
        server.set_nonblocking(true).unwrap();
        let mut buffer = [0u8; 16];
        let mut count = 0;
        while let Ok((_, from)) = server.recv_from(&mut buffer) {
            assert_eq!(from, client);
            count += 1;
        }
        counts.push(count);
    }
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 5], "one socket, one backend");

    let answering = UdpSocket::bind(LOCAL.into_addr(0)).unwrap();
    let port = answering.local_addr().unwrap().port();
    world.service(VIP, 54, protocol::UDP, &[(LOCAL, port)]);
    let echo = std::thread::spawn(move || {
        let mut buffer = [0u8; 16];
        let (read, from) = answering.recv_from(&mut buffer).unwrap();
        answering.send_to(&buffer[..read], from).unwrap();
    });
    let seen = cgroup.run(|| {
        let socket = UdpSocket::bind(LOCAL.into_addr(0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket
            .send_to(b"query", SocketAddr::from((VIP, 54)))
            .unwrap();
        let mut buffer = [0u8; 16];
        socket
            .recv_from(&mut buffer)
            .map_or_else(|e| e.to_string(), |(_, from)| from.to_string())
    });
    echo.join().unwrap();
    assert_eq!(seen, "10.96.0.10:54");
}

/// A process that has only IPv6 sockets dials IPv4 addresses in their mapped form: every JVM does.
#[test]
fn ipv6_sockets_reach_frontends_by_mapped_addresses() {
    let cgroup = Cgroup::new("mapped");
    let mut world = world(&cgroup.0);
    let listener = TcpListener::bind(LOCAL.into_addr(0)).unwrap();
    // One port for both: both frontends have the one service and backend.
    let port = listener.local_addr().unwrap().port();
    let server = UdpSocket::bind(LOCAL.into_addr(port)).unwrap();
    world.service(VIP, 80, protocol::TCP, &[(LOCAL, port)]);
    world.service(VIP, 53, protocol::UDP, &[(LOCAL, port)]);
    let echo = std::thread::spawn(move || {
        let mut buffer = [0u8; 16];
        for _ in 0..2 {
            let (read, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..read], from).unwrap();
        }
    });
    let vip = Ipv4Addr::from(VIP).to_ipv6_mapped();
    let seen = cgroup.run(|| {
        let talk = || -> std::io::Result<[SocketAddr; 4]> {
            let tcp = TcpStream::connect_timeout(&(vip, 80).into(), Duration::from_secs(2))?;
            let unconnected = UdpSocket::bind("[::]:0")?;
            let connected = UdpSocket::bind("[::]:0")?;
            connected.connect((vip, 53))?;
            for socket in [&unconnected, &connected] {
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            }
            let mut buffer = [0u8; 16];
            unconnected.send_to(b"query", (vip, 53))?;
            let first = unconnected.recv_from(&mut buffer)?.1;
            connected.send(b"query")?;
            let second = connected.recv_from(&mut buffer)?.1;
            Ok([tcp.peer_addr()?, first, second, connected.peer_addr()?])
        };
        format!("{:?}", talk())
    });
    let mapped = |port| format!("[::ffff:10.96.0.10]:{port}");
    let (tcp, udp) = (mapped(80), mapped(53));
    assert_eq!(seen, format!("Ok([{tcp}, {udp}, {udp}, {udp}])"));
    echo.join().unwrap();
}

#[test]
fn links_are_adopted_replaced_moved_and_removed() {
    let (first, second) = (Cgroup::new("first"), Cgroup::new("second"));
    let world = world(&first.0);
    let root = world.options.bpf_root.clone();
    let before = cgroup_attachments(&root).unwrap();
    assert_eq!(before.len(), ebpf_shared::hook::CGROUP_PROGRAMS.len());
    drop(world.datapath);
    assert_eq!(
        cgroup_attachments(&root).unwrap(),
        before,
        "nothing is detached"
    );

    let mut again = Datapath::load(&world.options).unwrap();
    again.attach_cgroup(&first.0).unwrap();
    let after = cgroup_attachments(&root).unwrap();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(b, a)| b.cgroup == a.cgroup && b.id != a.id)
    );
    assert!(
        after
            .iter()
            .all(|a| again.program_id(&a.program).unwrap() == a.id)
    );

    again.attach_cgroup(&second.0).unwrap();
    let moved = cgroup_attachments(&root).unwrap();
    assert!(
        after
            .iter()
            .zip(&moved)
            .all(|(a, m)| a.cgroup != m.cgroup && m.cgroup != 0)
    );
    assert!(again.attach_cgroup("/tmp".as_ref()).is_err());
    detach_cgroup(&root).unwrap();
    detach_cgroup(&root).unwrap();
    assert_eq!(cgroup_attachments(&root).unwrap(), []);
}

#[test]
fn the_event_ring_can_be_waited_for() {
    let world = World::new();
    let events = world.datapath.maps().events().unwrap();
    let readable = || {
        let mut fds = [libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&events.as_fd()),
            events: libc::POLLIN,
            revents: 0,
        }];
        // SAFETY: one valid entry, no waiting.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) == 1 }
    };
    assert!(!readable());
    world.run(ebpf_shared::hook::TO_POD, &udp((VIP, 1), (LOCAL, 2)));
    assert!(readable());
}

trait IntoAddr {
    fn into_addr(self, port: u16) -> SocketAddr;
}

impl IntoAddr for [u8; 4] {
    fn into_addr(self, port: u16) -> SocketAddr {
        SocketAddr::from((self, port))
    }
}
