//! etcd as its package installs it, started by a test and ended with it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use etcd_client::{Certificate, Client, ConnectOptions, Identity as TlsIdentity, TlsOptions};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::certificates::{Authority, Identity};

/// How long an etcd may take to answer, and how often it is asked.
const START: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(25));

/// An etcd cluster. Its members end when this is dropped.
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    token: String,
    settings: Settings,
    server: Option<Identity>,
}

/// How clients are let in.
#[derive(Default)]
pub struct Settings {
    /// With TLS and certificates of clients, by this authority.
    pub tls: Option<Authority>,
    /// Where the first member listens; an address of the loopback network without one.
    pub address: Option<Ipv4Addr>,
    /// Seconds that the token of a user is good for.
    pub token_ttl: Option<u32>,
}

/// One member, which may be down.
pub struct Member {
    address: Ipv4Addr,
    name: String,
    scheme: &'static str,
    process: Option<Child>,
}

// === impl Etcd ===

impl Etcd {
    /// Starts a cluster of `size` members and waits until it answers.
    ///
    /// # Errors
    /// When etcd is not installed, or does not answer in time; its log's end is in the error.
    pub async fn start(size: usize) -> Result<Self> {
        Self::start_with(size, Settings::default()).await
    }

    /// Starts a cluster of `size` members and waits until it answers.
    ///
    /// # Errors
    /// When etcd is not installed, or does not answer in time; its log's end is in the error.
    pub async fn start_with(size: usize, settings: Settings) -> Result<Self> {
        let members: Vec<Member> = (0..size)
            .map(|at| Member {
                address: settings
                    .address
                    .filter(|_| at == 0)
                    .unwrap_or_else(unused_address),
                name: format!("m{at}"),
                scheme: if settings.tls.is_some() {
                    "https"
                } else {
                    "http"
                },
                process: None,
            })
            .collect();
        let addresses: Vec<Ipv4Addr> = members.iter().map(|member| member.address).collect();
        let server = settings.tls.as_ref().map(|tls| tls.server(&addresses));
        let mut etcd = Self {
            server: server.transpose()?,
            settings,
            token: format!("{}-{}", std::process::id(), members[0].address),
            members,
            folder: TempDir::new().context("folder for etcd")?,
        };
        let all = etcd.initial();
        for at in 0..size {
            etcd.spawn(at, &all, "new")?;
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
        let mut options = ConnectOptions::new().with_timeout(Duration::from_secs(10));
        if let Some(tls) = &self.settings.tls {
            let identity = tls.client("tester")?;
            let (certificate, key) = (fs::read(identity.certificate)?, fs::read(identity.key)?);
            let ca = Certificate::from_pem(fs::read(tls.certificate())?);
            let tls = TlsOptions::new().ca_certificate(ca);
            options = options.with_tls(tls.identity(TlsIdentity::from_pem(certificate, key)));
        }
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
        let all = self.initial();
        self.spawn(at, &all, "new")?;
        self.answers(at).await
    }

    /// What the only member has stored, as of now, for [`Etcd::restore`].
    ///
    /// # Errors
    /// When it cannot be copied.
    pub async fn backup(&mut self) -> Result<TempDir> {
        self.kill(0)?;
        let copy = TempDir::new().context("folder for a backup")?;
        copy_folder(&self.data(0), copy.path())?;
        self.restart(0).await?;
        Ok(copy)
    }

    /// Ends the only member and starts it again with what it had stored at a backup.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn restore(&mut self, backup: &TempDir) -> Result<()> {
        self.kill(0)?;
        fs::remove_dir_all(self.data(0)).context("remove etcd's data")?;
        copy_folder(backup.path(), &self.data(0))?;
        self.restart(0).await
    }

    /// Takes a member out for good, and puts a new one with another address in its place.
    ///
    /// # Errors
    /// When the others refuse, or it does not answer in time.
    pub async fn rotate(&mut self, at: usize) -> Result<()> {
        let other = (at + 1) % self.members.len();
        let mut client = self.client(other).await?;
        let listed = client.member_list().await?;
        let name = self.members[at].name.clone();
        let old = listed.members().iter().find(|member| member.name() == name);
        let id = old.context("no such member")?.id();
        let until = Instant::now() + START.0;
        // etcd refuses while a member is not up to date after a change.
        while let Err(error) = client.member_remove(id).await {
            anyhow::ensure!(Instant::now() < until, "remove a member: {error}");
            tokio::time::sleep(START.1).await;
        }
        self.kill(at)?;
        self.members[at].address = unused_address();
        self.members[at].name = format!("{name}x");
        let added = [self.members[at].peer_url()];
        while let Err(error) = client.member_add(added.clone(), None).await {
            anyhow::ensure!(Instant::now() < until, "add a member: {error}");
            tokio::time::sleep(START.1).await;
        }
        let all = self.initial();
        self.spawn(at, &all, "existing")?;
        self.answers(at).await
    }

    /// Stops a member without ending it: connections stay, and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, at: usize, pause: bool) -> Result<()> {
        let process = self.members[at].process.as_ref().context("it is down")?;
        let signal = if pause { "-STOP" } else { "-CONT" };
        let done = Command::new("kill")
            .args([signal, &process.id().to_string()])
            .status()?;
        anyhow::ensure!(done.success(), "kill {signal}: {done}");
        Ok(())
    }

    /// The address of a member.
    #[must_use]
    pub fn address(&self, at: usize) -> Ipv4Addr {
        self.members[at].address
    }

    /// Ends the only member, forgets everything it had stored, and starts it again.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn wipe(&mut self) -> Result<()> {
        self.kill(0)?;
        fs::remove_dir_all(self.data(0)).context("remove etcd's data")?;
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

    /// All members, as a new one is told of them.
    fn initial(&self) -> String {
        let peers = self.members.iter();
        let peers: Vec<String> = peers
            .map(|member| format!("{}={}", member.name, member.peer_url()))
            .collect();
        peers.join(",")
    }

    fn data(&self, at: usize) -> std::path::PathBuf {
        self.folder.path().join(&self.members[at].name)
    }

    /// Arguments that say how clients are let in.
    fn access(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let (Some(tls), Some(server)) = (&self.settings.tls, &self.server) {
            let files = [
                ("--cert-file", server.certificate.clone()),
                ("--key-file", server.key.clone()),
                ("--trusted-ca-file", tls.certificate()),
            ];
            for (name, file) in files {
                all.extend([name.to_owned(), file.display().to_string()]);
            }
            all.push("--client-cert-auth".to_owned());
        }
        if let Some(ttl) = self.settings.token_ttl {
            all.push(format!("--auth-token-ttl={ttl}"));
            // Slow hashes are for attackers.
            all.push("--bcrypt-cost=4".to_owned());
        }
        all
    }

    fn spawn(&mut self, at: usize, all: &str, state: &str) -> Result<()> {
        let member = &self.members[at];
        let log = File::create(self.log(at)).context("etcd's log")?;
        let child = Command::new("etcd")
            .env_clear()
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", &member.name, "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data(at))
            .args(["--listen-client-urls", &member.client_url()])
            .args(["--advertise-client-urls", &member.client_url()])
            .args(["--listen-peer-urls", &member.peer_url()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--initial-cluster", all, "--initial-cluster-state", state])
            .args(self.access())
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
        format!("{}://{}:2379", self.scheme, self.address)
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

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp")
        .args(["-a", "--"])
        .arg(from.join("."))
        .arg(to)
        .status()?;
    anyhow::ensure!(done.success(), "copy {}: {done}", from.display());
    Ok(())
}

/// An address of 127.0.0.0/8 for this process and call alone: no port can be taken there.
pub(crate) fn unused_address() -> Ipv4Addr {
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
