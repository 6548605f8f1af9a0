//! A world of its own for each test: mount and network namespace of the test's thread (gone with the
//! thread, whatever happens), a BPF file system in it, and the data path loaded with small maps.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod frame;
pub mod net;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use aya::programs::{TestRun, TestRunOptions};
use ebpf_shared::{
    V4,
    maps::{CONFIG_LOCAL_REDIRECT, CONFIG_SERVICES, Config, name},
    policy::{PodKey, PodValue},
    protocol,
    service::*,
};
use netstate::target::Target;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use towline_loader::{Datapath, Options, Tables};

/// tc's return codes.
pub const PASS: i32 = -1;
pub const DROP: i32 = 2;
pub const REDIRECT: i32 = 7;

/// Index of the device that packets of a test run seem to be on: the loopback device.
pub const LO: u32 = 1;

pub struct World {
    pub datapath: Datapath,
    pub tables: Tables,
    pub options: Options,
    _directory: tempfile::TempDir,
}

/// What a program did with a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub packet: Vec<u8>,
    pub mark: u32,
}

/// Moves the test's thread into namespaces of its own.
pub fn isolate() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("tests need root");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    run("ip link set lo up");
}

/// Runs a command line of plain words in the test's namespaces.
pub fn run(line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Mounts a BPF file system that is gone with the test's thread.
pub fn mount_bpffs(path: &Path) {
    mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

pub fn options(bpf_root: PathBuf) -> Options {
    let small = [
        name::CT_NEW_V4,
        name::CT_NEW_V6,
        name::CT_EST_V4,
        name::CT_EST_V6,
        name::SOCK_V4,
        name::SOCK_V6,
        name::AFFINITY_V4,
        name::AFFINITY_V6,
        name::FRAGMENT_V4,
        name::FRAGMENT_V6,
    ];
    let capacities = small
        .into_iter()
        .map(|name| (name.to_owned(), 1024))
        .collect();
    Options {
        bpf_root,
        capacities,
    }
}

impl World {
    pub fn new() -> Self {
        isolate();
        let directory = tempfile::tempdir().unwrap();
        mount_bpffs(directory.path());
        let options = options(directory.path().join("towline"));
        let datapath = Datapath::load(&options).unwrap_or_else(|e| panic!("{e}"));
        let flags = CONFIG_SERVICES | CONFIG_LOCAL_REDIRECT;
        datapath
            .maps()
            .set_config(&Config {
                flags,
                ..Config::default()
            })
            .unwrap();
        let tables = datapath.maps().tables().unwrap();
        Self {
            datapath,
            tables,
            options,
            _directory: directory,
        }
    }

    /// Declares the pod behind a device.
    pub fn pod(&mut self, ifindex: u32, addr4: V4, flags: u32, revision: u32) {
        let value = PodValue {
            addr4,
            policy_set: 7,
            revision,
            flags,
            ..PodValue::default()
        };
        self.tables.pods.put(&PodKey { ifindex }, &value).unwrap();
    }

    /// Declares a service with these backends (ids from 1).
    pub fn service(&mut self, addr: V4, port: u16, proto: u8, backends: &[(V4, u16)]) {
        for (n, (addr, port)) in backends.iter().enumerate() {
            let id = n as u32 + 1;
            let port = port.to_be_bytes();
            let value = BackendValue {
                addr: *addr,
                port,
                pad: [0; 2],
                ifindex: 0,
                state: BACKEND_SERVING,
            };
            self.tables
                .backends4
                .put(&BackendKey { id }, &value)
                .unwrap();
            let slot = SlotKey {
                service: 5,
                generation: 1,
                n: n as u32,
            };
            self.tables
                .slots4
                .put(&slot, &SlotValue { backend: id })
                .unwrap();
        }
        let key = FrontendKey {
            addr,
            port: port.to_be_bytes(),
            proto,
            scope: SCOPE_CLUSTER,
        };
        let value = FrontendValue {
            service: 5,
            generation: 1,
            n_cluster: backends.len() as u16,
            ..FrontendValue::default()
        };
        self.tables.frontends4.put(&key, &value).unwrap();
    }

    /// Runs a device program on a frame, as on the loopback device.
    pub fn run(&self, program: &str, frame: &[u8]) -> Ran {
        let mut packet = vec![0u8; frame.len() + 64];
        let mut context = vec![0u8; 192];
        let result = self
            .datapath
            .classifier(program)
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut packet),
                ctx_out: Some(&mut context),
                ..TestRunOptions::default()
            })
            .unwrap();
        packet.truncate(result.data_size_out as usize);
        // `mark` is the third word of `__sk_buff`.
        let mark = u32::from_ne_bytes(context[8..12].try_into().unwrap());
        Ran {
            code: result.return_value as i32,
            packet,
            mark,
        }
    }
}

/// TCP from `src` to `dst` with these flags.
pub fn tcp(src: (V4, u16), dst: (V4, u16), flags: u8) -> Vec<u8> {
    frame::build(protocol::TCP, src, dst, flags, b"towline")
}

/// UDP from `src` to `dst`.
pub fn udp(src: (V4, u16), dst: (V4, u16)) -> Vec<u8> {
    frame::build(protocol::UDP, src, dst, 0, b"towline!")
}
