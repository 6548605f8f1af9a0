//! Real pods in network namespaces of their own, routed over veth pairs; all of it belongs to the
//! test's private namespaces and is gone with them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
};

use super::run;

/// Makes `ip netns` names private, and the test's namespace a router.
pub fn router() {
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

/// Adds a pod with this address behind host-side device `name`.
pub fn add_pod(name: &str, addr: &str) {
    run(&format!("ip netns add {name}"));
    run(&format!(
        "ip link add {name} type veth peer name eth0 netns {name}"
    ));
    run(&format!("ip link set {name} up"));
    run(&format!("ip addr add 10.244.1.1/32 dev {name}"));
    run(&format!("ip route add {addr} dev {name}"));
    let inside = format!("ip -n {name}");
    run(&format!("{inside} addr add {addr}/32 dev eth0"));
    run(&format!("{inside} link set eth0 up"));
    run(&format!("{inside} route add 10.244.1.1 dev eth0"));
    run(&format!("{inside} route add default via 10.244.1.1"));
}

/// Runs `work` in the network namespace of a pod.
pub fn inside<T: Send + 'static>(pod: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = File::open(format!("/run/netns/{pod}")).unwrap();
    let worker = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    worker.join().unwrap()
}

/// Listens in a pod and echoes what each connection sends, for as long as the test lives.
pub fn echo_server(pod: &str, addr: &str) {
    let addr: SocketAddr = addr.parse().unwrap();
    let listener = inside(pod, move || TcpListener::bind(addr).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0u8; 512];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// Connects from a pod, within a short time.
pub fn dial(pod: &str, addr: &str) -> std::io::Result<TcpStream> {
    let addr: SocketAddr = addr.parse().unwrap();
    let stream = inside(pod, move || {
        TcpStream::connect_timeout(&addr, Duration::from_millis(700))
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// Sends a word and reads it back.
pub fn exchange(stream: &mut TcpStream, word: &str) -> String {
    stream.write_all(word.as_bytes()).unwrap();
    let mut back = vec![0u8; word.len()];
    stream.read_exact(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}
