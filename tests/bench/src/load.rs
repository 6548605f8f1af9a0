//! The load: a server and a client of one TCP protocol, each one thread.
//!
//! The first byte of a connection says what it is for: [`ECHO`] answers every byte with one byte,
//! [`SINK`] reads until the end and answers one byte, [`CPU`] answers the server's own CPU time as
//! eight bytes, big endian, nanoseconds. The server thus reports its own cost to the client, which
//! works across any namespaces.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, bail};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::cpu;

const ECHO: u8 = b'E';
const SINK: u8 = b'S';
const CPU: u8 = b'C';
/// The server's answer when its kernel keeps no such statistics; a new thread's time is 0.
const UNKNOWN: u64 = u64::MAX;
const BLOCK: usize = 64 * 1024;
const MEBIBYTE: u64 = 1024 * 1024;

/// What one operation is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// connect, one byte each way, reset
    Crr,
    /// one byte each way on an open connection
    Rr,
    /// one MiB sent
    Bulk,
}

/// What a client measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Operations made.
    pub(crate) operations: u64,
    /// CPU time of client and server together, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Wall time, nanoseconds.
    pub(crate) wall_ns: u64,
}

/// Serves until killed.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    cpu::pin()?;
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    println!("{}", listener.local_addr()?);
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else {
            continue;
        };
        // A reset by the client at the end of an operation is the expected end.
        let _ = answer(&mut connection);
    }
    Ok(())
}

fn answer(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    connection.read_exact(&mut first)?;
    match first[0] {
        CPU => connection.write_all(&cpu::own_time().unwrap_or(UNKNOWN).to_be_bytes()),
        SINK => {
            let mut block = vec![0; BLOCK];
            while connection.read(&mut block)? > 0 {}
            connection.write_all(&[1])
        }
        _ => {
            connection.set_nodelay(true)?;
            let mut byte = first;
            loop {
                connection.write_all(&byte)?;
                connection.read_exact(&mut byte)?;
            }
        }
    }
}

/// Makes `operations` of `mode` against `target` and reports their cost.
///
/// # Errors
/// Any connection that fails: a benchmark with failures measures nothing.
pub(crate) fn run(target: SocketAddr, mode: Mode, operations: u64) -> anyhow::Result<Measured> {
    cpu::pin()?;
    let (server, own, start) = (server_time(target)?, cpu::own_time()?, Instant::now());
    match mode {
        Mode::Crr => connect_each(target, operations)?,
        Mode::Rr => ping_pong(target, operations)?,
        Mode::Bulk => send(target, operations)?,
    }
    let wall_ns = u64::try_from(start.elapsed().as_nanos())?;
    let own = cpu::own_time()? - own;
    Ok(Measured {
        operations,
        cpu_ns: own + server_time(target)? - server,
        wall_ns,
    })
}

fn connect(target: SocketAddr, kind: u8) -> anyhow::Result<TcpStream> {
    let mut stream =
        TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn server_time(target: SocketAddr) -> anyhow::Result<u64> {
    let mut answer = [0; 8];
    connect(target, CPU)?
        .read_exact(&mut answer)
        .context("asking the server's CPU time")?;
    match u64::from_be_bytes(answer) {
        UNKNOWN => bail!("the server cannot read its own CPU time"),
        nanoseconds => Ok(nanoseconds),
    }
}

fn connect_each(target: SocketAddr, operations: u64) -> anyhow::Result<()> {
    // A reset leaves no TIME_WAIT behind, so ports never run out.
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let mut byte = [0];
    for _ in 0..operations {
        let mut stream = connect(target, ECHO)?;
        setsockopt(&stream, sockopt::Linger, &at_once)?;
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

fn ping_pong(target: SocketAddr, operations: u64) -> anyhow::Result<()> {
    let mut stream = connect(target, ECHO)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    for _ in 0..operations {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

fn send(target: SocketAddr, mebibytes: u64) -> anyhow::Result<()> {
    let mut stream = connect(target, SINK)?;
    let block = vec![0; BLOCK];
    for _ in 0..mebibytes * MEBIBYTE / BLOCK as u64 {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut done = [0];
    stream
        .read_exact(&mut done)
        .context("waiting for the server to have read all")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_runs_on_loopback_and_reports_its_cost() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let _ = answer(&mut connection.unwrap());
            }
        });
        for (mode, operations) in [(Mode::Crr, 20), (Mode::Rr, 100), (Mode::Bulk, 2)] {
            let measured = run(target, mode, operations).unwrap();
            assert_eq!(measured.operations, operations);
            assert!(
                measured.cpu_ns > 0 && measured.wall_ns > 0,
                "{mode:?}: {measured:?}"
            );
        }
    }
}
