//! TCP connections on which something is exchanged all the time.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::place::{LIMIT, Place};
use crate::traffic::{AT_LEAST, Flow, Target};

const PORT: u16 = 7000;
/// Time between two exchanges.
const EVERY: Duration = Duration::from_millis(20);
/// What is exchanged is more than one packet takes.
const SIZE: usize = 4000;

/// A connection.
pub(crate) struct Stream {
    name: String,
    tcp: TcpStream,
}

/// Answers everything that comes with the same, until whoever has connected hangs up.
pub(crate) fn serve(place: &Place) {
    let listener = place.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; SIZE];
                while tcp.read_exact(&mut buffer).is_ok() && tcp.write_all(&buffer).is_ok() {}
            });
        }
    });
}

// === impl Stream ===

impl Stream {
    #[track_caller]
    pub(crate) fn connect(place: &Place, from: &str, target: &Target) -> Self {
        let address = SocketAddr::new(target.ip, PORT);
        let name = format!("{from} connected to {} {}", target.name, target.ip);
        let tcp = place.run(|| TcpStream::connect_timeout(&address, LIMIT));
        let tcp = tcp.unwrap_or_else(|error| panic!("{name}: {error}"));
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(LIMIT)).unwrap();
        Self { name, tcp }
    }

    /// Exchanges until `stop`.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Flow {
        let mut flow = Flow {
            name: self.name.clone(),
            sent: 0,
            lost: Vec::new(),
            slowest: Duration::ZERO,
        };
        while flow.lost.is_empty() && (flow.sent < AT_LEAST || !stop.load(Ordering::Relaxed)) {
            flow.sent += 1;
            let begun = Instant::now();
            if let Err(error) = self.exchange(flow.sent) {
                flow.lost.push(format!("exchange {}: {error}", flow.sent));
            }
            flow.slowest = flow.slowest.max(begun.elapsed());
            std::thread::sleep(EVERY);
        }
        flow
    }

    fn exchange(&mut self, number: u32) -> std::io::Result<()> {
        let asked: Vec<u8> = number.to_be_bytes().repeat(SIZE / 4);
        self.tcp.write_all(&asked)?;
        let mut answer = vec![0; SIZE];
        self.tcp.read_exact(&mut answer)?;
        match answer == asked {
            true => Ok(()),
            false => Err(std::io::Error::other("another answer")),
        }
    }
}
