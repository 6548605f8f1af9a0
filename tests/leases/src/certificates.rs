//! Certificates of a test's etcd: an authority, its server's and its clients'.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority, and the folder that what it issues is written to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// A new one, of which the certificate is [`Authority::certificate`].
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context("folder for certificates")?;
        let key = KeyPair::generate()?;
        let authority = Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(authority(folder), key),
        };
        let certificate = self::authority(folder).self_signed(authority.issuer.key())?;
        fs::write(authority.certificate(), certificate.pem())?;
        let key = authority.issuer.key().serialize_pem();
        fs::write(folder.join("ca.key"), key)?;
        Ok(authority)
    }

    /// The one that was made in this folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let key = fs::read_to_string(folder.join("ca.key")).context("an authority's key")?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(authority(folder), KeyPair::from_pem(&key)?),
        })
    }

    /// Its own certificate's file.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for a server at these addresses, which is a client of its peers too.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn server(&self, addresses: &[Ipv4Addr]) -> Result<Identity> {
        let mut params = CertificateParams::default();
        let addresses = addresses.iter();
        params.subject_alt_names = addresses
            .map(|ip| SanType::IpAddress(IpAddr::V4(*ip)))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue("server", params)
    }

    /// A certificate for a client, in files called after it: issued again, they are replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    fn issue(&self, name: &str, mut params: CertificateParams) -> Result<Identity> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = Identity {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, certificate.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}

/// What an authority's certificate says: it is called after its folder.
fn authority(folder: &Path) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, folder.display().to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}
