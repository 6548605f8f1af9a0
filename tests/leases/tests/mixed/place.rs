//! Network namespaces, and what is done in them.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hostnet::netns::Netns;
use nix::sched::{CloneFlags, unshare};

/// How long a condition may take to come true.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A network namespace without a name. It ends with this and with what runs in it.
pub(crate) struct Place {
    netns: Netns,
}

// === impl Place ===

impl Place {
    /// A new one, in which packets are forwarded.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        });
        let place = Self {
            netns: made.join().unwrap(),
        };
        place.ip("link set lo up");
        place
    }

    /// The same one, for another thread.
    pub(crate) fn another(&self) -> Self {
        let netns = self.run(Netns::current).unwrap();
        Self { netns }
    }

    /// Runs `work` inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run_in(work).unwrap()
    }

    /// What `ip` takes for a namespace.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let fd = self.netns.as_fd().as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id())
    }

    /// Runs `ip` with these arguments.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.tool(&format!("ip {arguments}"))
    }

    /// Runs a program with arguments, and returns what it prints.
    #[track_caller]
    pub(crate) fn tool(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = self.run(|| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).output()
        });
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Sets a kernel parameter, named with slashes.
    pub(crate) fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/{parameter}");
        self.run(|| std::fs::write(&path, value)).unwrap();
    }

    /// A cable from here to `other`: `name` here, `other_name` there.
    pub(crate) fn cable(&self, name: &str, other: &Self, other_name: &str) {
        let netns = other.path();
        self.ip(&format!(
            "link add {name} type veth peer name {other_name} netns {netns}"
        ));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// Gives `device` addresses that can be used at once.
    pub(crate) fn address(&self, device: &str, addresses: &[String]) {
        for one in addresses {
            let nodad = if one.contains(':') { "nodad" } else { "" };
            self.ip(&format!("addr add {one} dev {device} {nodad}"));
        }
    }
}

/// Waits until `what` gives something; why it does not is shown in the end.
#[track_caller]
pub(crate) fn until<T>(mut what: impl FnMut() -> Result<T, String>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        match what() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < limit, "not in time: {why}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}
