//! ICMP echo requests with numbers, from one namespace to many addresses.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::place::{LIMIT, Place};
use crate::traffic::{AT_LEAST, Flow, Target};

/// Time between two requests to one address.
const EVERY: Duration = Duration::from_millis(10);
/// Time between two requests that have nothing to do with each other.
const EVERY_ANEW: Duration = Duration::from_millis(50);
/// After so long an answer is no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks many addresses from one namespace.
pub(crate) struct Pinger {
    name: String,
    targets: Vec<Target>,
    /// Over IPv4 and over IPv6; the kernel puts these sockets' own identifiers into requests.
    sockets: [UdpSocket; 2],
    /// What is not answered yet, by target and number.
    pending: BTreeMap<(u32, u32), Instant>,
    sent: u32,
    slowest: Vec<Duration>,
    /// Why requests could not be sent.
    unsent: BTreeMap<(u32, u32), String>,
}

/// Asks all of them again and again until `stop`, each time by a socket that no packet has come from
/// before: nothing that the kernel remembers of earlier packets (translated addresses) helps.
pub(crate) fn anew(place: &Place, name: &str, targets: &[Target], stop: &AtomicBool) -> Vec<Flow> {
    let mut all: Vec<Flow> = Vec::new();
    for round in 1.. {
        let mut pinger = Pinger::new(place, name.to_owned(), targets.to_vec());
        pinger.sent = round;
        let flows = pinger.once();
        match all.is_empty() {
            true => all = flows,
            false => all
                .iter_mut()
                .zip(flows)
                .for_each(|(sum, flow)| sum.add(flow)),
        }
        if stop.load(Ordering::Relaxed) && round >= AT_LEAST {
            break;
        }
        std::thread::sleep(EVERY_ANEW);
    }
    all
}

// === impl Pinger ===

impl Pinger {
    pub(crate) fn new(place: &Place, name: String, targets: Vec<Target>) -> Self {
        let families = [
            (AddressFamily::Inet, SockProtocol::Icmp),
            (AddressFamily::Inet6, SockProtocol::IcmpV6),
        ];
        let sockets = place.run(|| {
            families.map(|(family, protocol)| {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let socket = socket(family, SockType::Datagram, flags, protocol);
                UdpSocket::from(socket.unwrap())
            })
        });
        Self {
            name,
            slowest: vec![Duration::ZERO; targets.len()],
            targets,
            sockets,
            pending: BTreeMap::new(),
            sent: 0,
            unsent: BTreeMap::new(),
        }
    }

    /// Waits until each has answered: what was started takes effect after a moment.
    #[track_caller]
    pub(crate) fn all_answer(&mut self) {
        let limit = Instant::now() + LIMIT;
        let mut silent: Vec<u32> = self.numbers().collect();
        while !silent.is_empty() {
            let names = silent.iter().map(|at| self.flow_name(*at));
            let names: Vec<String> = names.collect();
            assert!(Instant::now() < limit, "no answer: {names:?}");
            self.sent += 1;
            for at in &silent {
                self.ask(*at);
            }
            let begun = Instant::now();
            while !self.pending.is_empty() && begun.elapsed() < Duration::from_secs(1) {
                self.listen(EVERY);
            }
            let still = |at: &u32| self.is_pending(*at);
            silent.retain(still);
            self.pending.clear();
            self.unsent.clear();
        }
        self.sent = 0;
        self.slowest.fill(Duration::ZERO);
    }

    /// Asks all of them all the time until `stop`.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Vec<Flow> {
        while !stop.load(Ordering::Relaxed) || self.sent < AT_LEAST {
            let next = Instant::now() + EVERY;
            self.sent += 1;
            for at in self.numbers() {
                self.ask(at);
            }
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                self.listen(left);
            }
        }
        self.end()
    }

    /// Asks all of them once.
    fn once(mut self) -> Vec<Flow> {
        for at in self.numbers() {
            self.ask(at);
        }
        self.end()
    }

    /// Waits for what is on its way.
    fn end(mut self) -> Vec<Flow> {
        let ended = Instant::now();
        while !self.pending.is_empty() && ended.elapsed() < PATIENCE {
            self.listen(EVERY);
        }
        let flows = self.numbers().map(|at| self.flow(at));
        flows.collect()
    }

    fn numbers(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.targets.len()).unwrap()
    }

    fn is_pending(&self, target: u32) -> bool {
        let mut all = self.pending.keys();
        all.any(|(at, _)| *at == target)
    }

    fn flow_name(&self, at: u32) -> String {
        let target = &self.targets[at as usize];
        format!("{} to {} {}", self.name, target.name, target.ip)
    }

    fn flow(&self, at: u32) -> Flow {
        let pending = self.pending.keys().filter(|(target, _)| *target == at);
        let lost = pending.map(|key| {
            let why = self.unsent.get(key).map_or("no answer", String::as_str);
            format!("{} of {}: {why}", key.1, self.sent)
        });
        Flow {
            name: self.flow_name(at),
            sent: self.sent,
            lost: lost.collect(),
            slowest: self.slowest[at as usize],
        }
    }

    fn ask(&mut self, at: u32) {
        let ip = self.targets[at as usize].ip;
        let (socket, kind) = match ip.is_ipv4() {
            true => (&self.sockets[0], 8),
            false => (&self.sockets[1], 128),
        };
        // Type, code, checksum and identifier (the kernel's), sequence number.
        let mut packet = vec![kind, 0, 0, 0, 0, 0];
        packet.extend(&self.sent.to_be_bytes()[2..]);
        packet.extend(at.to_be_bytes());
        packet.extend(self.sent.to_be_bytes());
        let key = (at, self.sent);
        self.pending.insert(key, Instant::now());
        if let Err(error) = socket.send_to(&packet, SocketAddr::new(ip, 0)) {
            self.unsent.insert(key, error.to_string());
        }
    }

    /// Takes the answers that come within `patience`, and returns with the first.
    fn listen(&mut self, patience: Duration) {
        let mut all = [0, 1].map(|at| PollFd::new(self.sockets[at].as_fd(), PollFlags::POLLIN));
        let millis = u16::try_from(patience.as_millis() + 1).unwrap();
        poll(&mut all, PollTimeout::from(millis)).unwrap();
        for socket in &self.sockets {
            let mut packet = [0; 64];
            loop {
                match socket.recv(&mut packet) {
                    Ok(16) => {
                        let number =
                            |at: usize| packet[at..at + 4].try_into().map(u32::from_be_bytes);
                        let key = (number(8).unwrap(), number(12).unwrap());
                        if let Some(asked) = self.pending.remove(&key) {
                            let slowest = &mut self.slowest[key.0 as usize];
                            *slowest = asked.elapsed().max(*slowest);
                        }
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What came back for a request is no answer to it.
                    Err(_) => {}
                }
            }
        }
    }
}
