//! Connecting to etcd.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KeyValue, TlsOptions,
    WatchOptions, WatchStream,
};

use super::table::Pair;

use crate::config::NetConf;

/// Limits of a connection: to come about, for one request, and between signs of life.
const CONNECT: Duration = Duration::from_secs(5);
pub(super) const REQUEST: Duration = Duration::from_secs(10);
const ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How etcd is reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EtcdSettings {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without a slash at the end.
    pub prefix: String,
    /// Who signs etcd's certificate; the file is read anew for every connection.
    pub ca: Option<PathBuf>,
    /// This node's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User and password.
    pub user: Option<(String, String)>,
}

// === impl EtcdSettings ===

impl EtcdSettings {
    /// The key of the network configuration.
    #[must_use]
    pub fn config_key(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// What the keys of leases begin with.
    #[must_use]
    pub fn leases_prefix(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// What is to be said of an error: where, and what may help.
    pub(super) fn explained(&self, error: &anyhow::Error) -> anyhow::Error {
        let (all, text) = (self.endpoints.join(", "), format!("{error:#}"));
        // Of a certificate that is refused the client of TLS 1.3 often sees no more than the end
        // of the connection.
        let refused = ["connection closed", "received fatal alert"];
        let hint = match &self.identity {
            _ if !refused.iter().any(|sign| text.contains(sign)) => String::new(),
            _ if !self.is_tls() => String::new(),
            None => "; does etcd ask for a client certificate? Set etcd-certfile and etcd-keyfile"
                .to_owned(),
            Some((certificate, _)) => format!(
                "; does etcd's trusted-ca-file have the signer of certificate {}?",
                certificate.display()
            ),
        };
        anyhow::anyhow!("etcd at {all}: {text}{hint}")
    }

    fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|url| url.starts_with("https://"))
    }

    /// Connects; certificates are read now, so that rotated ones are used.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(REQUEST)
            .with_keep_alive(ALIVE.0, ALIVE.1)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if self.is_tls() {
            options = options.with_tls(self.tls()?);
        }
        let connected = Client::connect(&self.endpoints, Some(options)).await;
        connected
            .map_err(|error| described(&error))
            .context("connect")
    }

    fn tls(&self) -> anyhow::Result<TlsOptions> {
        let read = |setting: &str, path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("{setting}: {}", path.display()))
        };
        let mut tls = TlsOptions::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read("etcd-cafile", ca)?));
        }
        if let Some((certificate, key)) = &self.identity {
            let certificate = read("etcd-certfile", certificate)?;
            let key = read("etcd-keyfile", key)?;
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Ok(tls)
    }
}

/// The network configuration that etcd holds.
///
/// # Errors
/// When etcd cannot be asked, has none, or has one that is wrong.
pub async fn network_config(settings: &EtcdSettings) -> anyhow::Result<NetConf> {
    let key = settings.config_key();
    let found = async {
        let mut client = settings.connect().await?;
        let found = client.get(key.clone(), None).await;
        found
            .map_err(|error| described(&error))
            .with_context(|| format!("read {key}"))
    };
    let found = found.await.map_err(|error| settings.explained(&error))?;
    let Some(pair) = found.kvs().first() else {
        let example = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
        anyhow::bail!("etcd has no {key}: write the network configuration there, e.g. {example}");
    };
    let text = String::from_utf8_lossy(pair.value());
    let net = NetConf::parse(&format!("etcd {key}"), &text)?;
    // What it says of subnets may be repaired too, as long as it is waited for.
    net.pools()?;
    Ok(net)
}

/// Whatever there is, however much: a large cluster's leases, or somebody's large values among them,
/// are more than the usual 4 MiB.
const NO_LIMIT: usize = usize::MAX;

/// Reads keys.
pub(super) async fn get(
    client: &Client,
    key: &str,
    options: GetOptions,
) -> Result<GetResponse, etcd_client::Error> {
    let mut client = client.kv_client().max_decoding_message_size(NO_LIMIT);
    client.get(key, Some(options)).await
}

/// Follows keys.
pub(super) async fn watch(
    client: &Client,
    key: &str,
    options: WatchOptions,
) -> Result<WatchStream, etcd_client::Error> {
    let mut client = client.watch_client().max_decoding_message_size(NO_LIMIT);
    client.watch(key, Some(options)).await
}

/// A key and its value as the table takes them.
pub(super) fn pair(found: &KeyValue) -> Pair<'_> {
    Pair {
        key: found.key(),
        value: found.value(),
        created: found.create_revision(),
        modified: found.mod_revision(),
        etcd_lease: found.lease(),
    }
}

/// An error of the client with what is behind it: its own text leaves that out.
pub(super) fn described(error: &etcd_client::Error) -> anyhow::Error {
    use std::error::Error as _;
    let (text, mut cause) = match error {
        etcd_client::Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        etcd_client::Error::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), None),
    };
    let mut all = vec![text];
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !all.iter().any(|known| known.contains(&text)) {
            all.push(text);
        }
        cause = inner.source();
    }
    anyhow::anyhow!(all.join(": "))
}
