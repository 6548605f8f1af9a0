//! etcd as its package installs it, started by a test and ended with it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long an etcd may take to answer, and how often it is asked.
const START: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(25));

/// An etcd cluster. Its members end when this is dropped.
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    token: String,
}

/// One member, which may be down.
pub struct Member {
    address: Ipv4Addr,
    name: String,
    process: Option<Child>,
}

// === impl Etcd ===

impl Etcd {
    /// Starts a cluster of `size` members and waits until it answers.
    ///
    /// # Errors
    /// When etcd is not installed, or does not answer in time; its log's end is in the error.
    pub async fn start(size: usize) -> Result<Self> {
        let members: Vec<Member> = (0..size)
            .map(|at| Member {
                address: unused_address(),
                name: format!("m{at}"),
                process: None,
            })
            .collect();
        let mut etcd = Self {
            token: format!("{}-{}", std::process::id(), members[0].address),
            members,
            folder: TempDir::new().context("folder for etcd")?,
        };
        for at in 0..size {
            etcd.spawn(at)?;
        }
        for at in 0..size {
            etcd.answers(at).await?;
        }
        Ok(etcd)
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.client_url()).collect()
    }

    /// A client of one member.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client(&self, at: usize) -> Result<Client> {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(10));
        let client = Client::connect([self.members[at].client_url()], Some(options)).await;
        client.with_context(|| format!("connect to {}", self.members[at].name))
    }

    /// Ends a member at once, as a crash would.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.members[at].kill()
    }

    /// Starts a member again, with what it had stored.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn restart(&mut self, at: usize) -> Result<()> {
        self.spawn(at)?;
        self.answers(at).await
    }

    /// Ends the only member, forgets everything it had stored, and starts it again.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn wipe(&mut self) -> Result<()> {
        self.kill(0)?;
        let folder = self.folder.path().join(&self.members[0].name);
        fs::remove_dir_all(folder).context("remove etcd's data")?;
        self.restart(0).await
    }

    /// The number of the member that leads.
    ///
    /// # Errors
    /// When none says so.
    pub async fn leader(&self) -> Result<usize> {
        for at in 0..self.members.len() {
            let status = self.client(at).await?.status().await?;
            if status
                .header()
                .is_some_and(|header| header.member_id() == status.leader())
            {
                return Ok(at);
            }
        }
        bail!("no member leads")
    }

    fn spawn(&mut self, at: usize) -> Result<()> {
        let peers = self.members.iter();
        let peers: Vec<String> = peers
            .map(|member| format!("{}={}", member.name, member.peer_url()))
            .collect();
        let member = &self.members[at];
        let log = File::create(self.log(at)).context("etcd's log")?;
        let child = Command::new("etcd")
            .env_clear()
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", &member.name, "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.folder.path().join(&member.name))
            .args(["--listen-client-urls", &member.client_url()])
            .args(["--advertise-client-urls", &member.client_url()])
            .args(["--listen-peer-urls", &member.peer_url()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-token", &self.token])
            // A test machine is slow at times; elections must not be its fault.
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("run etcd (package etcd-server)")?;
        self.members[at].process = Some(child);
        Ok(())
    }

    /// Waits until a member answers with a leader.
    async fn answers(&mut self, at: usize) -> Result<()> {
        let until = Instant::now() + START.0;
        loop {
            if let Some(Some(status)) = self.members[at]
                .process
                .as_mut()
                .map(|p| p.try_wait().ok().flatten())
            {
                bail!("etcd ended with {status}: {}", self.log_end(at));
            }
            let asked = async { anyhow::Ok(self.client(at).await?.get("/", None).await?) };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    bail!("etcd does not answer: {error:#}: {}", self.log_end(at));
                }
                Err(_) => tokio::time::sleep(START.1).await,
            }
        }
    }

    fn log(&self, at: usize) -> std::path::PathBuf {
        let name = &self.members[at].name;
        self.folder.path().join(format!("{name}.log"))
    }

    fn log_end(&self, at: usize) -> String {
        let text = fs::read_to_string(self.log(at)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

// === impl Member ===

impl Member {
    fn client_url(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    fn peer_url(&self) -> String {
        format!("http://{}:2380", self.address)
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().context("end etcd")?;
            process.wait().context("wait for etcd's end")?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// An address of 127.0.0.0/8 for this process and call alone: no port can be taken there.
fn unused_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let at = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // 127.0.x.y is the usual loopback; 254 addresses are enough for one process' tests.
    Ipv4Addr::new(
        127,
        high % 254 + 1,
        low,
        u8::try_from(at % 254 + 1).unwrap_or(1),
    )
}
