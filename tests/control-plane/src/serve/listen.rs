//! Listening sockets, also inside other network namespaces.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;

use nix::sched::{CloneFlags, setns};

/// `NETNS_PATH=IP:PORT`: a socket to be opened inside a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsListen {
    /// The namespace, e.g. `/run/netns/lab`.
    pub netns: PathBuf,
    /// The address there.
    pub address: SocketAddr,
}

impl FromStr for NetnsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "must be NETNS_PATH=IP:PORT, e.g. /run/netns/lab=172.30.0.1:6443";
        let (path, address) = text.split_once('=').ok_or(wanted)?;
        let address = address.parse().map_err(|_| wanted)?;
        if !path.starts_with('/') {
            return Err(format!("{path}: {wanted}"));
        }
        Ok(Self {
            netns: path.into(),
            address,
        })
    }
}

/// A failure to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The namespace cannot be entered.
    #[error("listen in {netns}: {cause}; the path must be a network namespace, and entering it needs root", netns = netns.display())]
    Namespace {
        /// The namespace.
        netns: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The helper thread died.
    #[error("listen: the helper thread ended without an answer")]
    Thread,
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// The address, with the port the kernel chose when 0 was asked for.
    pub address: SocketAddr,
    pub(super) socket: TcpListener,
}

impl Listener {
    /// Listens in the current network namespace.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn open(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(Self {
                address: socket.local_addr()?,
                socket,
            })
        };
        bind().map_err(|cause| ListenError::Bind { address, cause })
    }

    /// Listens in another network namespace: a thread of its own enters it, opens the socket and
    /// ends; a socket stays in the namespace it was opened in.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the address not be had there.
    pub fn open_in(place: &NetnsListen) -> Result<Self, ListenError> {
        let NetnsListen { netns, address } = place.clone();
        let enter = move || {
            File::open(&netns)
                .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?))
                .map_err(|cause| ListenError::Namespace { netns, cause })?;
            Self::open(address)
        };
        std::thread::spawn(enter)
            .join()
            .map_err(|_| ListenError::Thread)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_parsed() {
        let place: NetnsListen = "/run/netns/a=172.30.0.1:6443".parse().unwrap();
        assert_eq!(place.netns, PathBuf::from("/run/netns/a"));
        assert_eq!(place.address, "172.30.0.1:6443".parse().unwrap());
        for bad in ["x", "netns=1.2.3.4:1", "/n=1.2.3.4"] {
            assert!(bad.parse::<NetnsListen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_that_is_no_namespace_is_named() {
        let place = NetnsListen {
            netns: "/dev/null".into(),
            address: "127.0.0.1:0".parse().unwrap(),
        };
        let error = Listener::open_in(&place).unwrap_err().to_string();
        assert!(error.starts_with("listen in /dev/null: "), "{error}");
    }

    /// Needs root, as entering a namespace does.
    #[test]
    fn a_socket_is_in_the_namespace_it_was_opened_in() {
        let work = || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns = std::fs::read_link("/proc/thread-self").unwrap();
            let netns = PathBuf::from("/proc").join(netns).join("ns/net");
            let address: SocketAddr = "0.0.0.0:6443".parse().unwrap();
            let place = NetnsListen { netns, address };
            let opened = Listener::open_in(&place).unwrap();
            assert_eq!(opened.address, address);
            assert!(Listener::open(address).is_err(), "the port is taken here");
            std::thread::spawn(move || {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Listener::open(address).unwrap();
            })
            .join()
            .unwrap();
            drop(opened);
            Listener::open(address).unwrap();
        };
        std::thread::spawn(work).join().unwrap();
    }
}
