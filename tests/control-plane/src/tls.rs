//! The cluster's certificate authority, server and client certificates, kubeconfig files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

/// Names by which every cluster's API server is known.
const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A failure to make or read certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file operation failed.
    #[error("certificates: {action} {path}: {cause}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// A certificate or key could not be made or read.
    #[error(
        "certificates: one cannot be made or read; remove the pki directory below the data directory to make new ones"
    )]
    Certificate(#[from] rcgen::Error),
    /// A certificate or key does not fit.
    #[error("certificates: TLS cannot use one")]
    Rustls(#[from] rustls::Error),
    /// The client verifier could not be made.
    #[error("certificates: the authority's cannot verify clients")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A PEM text is none.
    #[error("certificates: one is not PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// The certificate authority; kept in a directory so that issued kubeconfigs survive a restart.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads `ca.crt` and `ca.key` of a directory, or makes them.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not hold what they should.
    pub fn open(dir: &Path) -> Result<Self, TlsError> {
        let file = |action, path: &Path| {
            let path = path.to_owned();
            move |cause| TlsError::File {
                action,
                path,
                cause,
            }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(file("create", dir))?;
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "towline-control-plane-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        if certificate_path.exists() && key_path.exists() {
            let read = |path: &Path| std::fs::read_to_string(path).map_err(file("read", path));
            let key = KeyPair::from_pem(&read(&key_path)?)?;
            let certificate = read(&certificate_path)?;
            return Ok(Self {
                certificate,
                issuer: Issuer::new(params, key),
            });
        }
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write_private(&key_path, key.serialize_pem().as_bytes())
            .map_err(file("write", &key_path))?;
        write_private(&certificate_path, certificate.as_bytes())
            .map_err(file("write", &certificate_path))?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server at these addresses.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn server(&self, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
        let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        names.extend(addresses.iter().map(IpAddr::to_string));
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// A certificate for a user in a group.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, group: &str) -> Result<Identity, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity, TlsError> {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// The server's TLS: HTTP/2 and HTTP/1.1; client certificates of this authority are asked for,
    /// not required.
    ///
    /// # Errors
    /// When the identity does not fit.
    pub fn server_config(&self, identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let chain = vec![CertificateDer::from_pem_slice(
            identity.certificate.as_bytes(),
        )?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A kubeconfig for a client of the server at `address`.
    pub fn kubeconfig(&self, address: SocketAddr, client: &Identity) -> String {
        let name = "towline";
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(&self.certificate),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": STANDARD.encode(&client.certificate),
                "client-key-data": STANDARD.encode(&client.key),
            }}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": "admin"}}],
        });
        // JSON is YAML.
        format!("{config:#}\n")
    }
}

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    std::fs::rename(&temporary, path)
}
