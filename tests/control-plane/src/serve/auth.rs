//! Who asks, and whether they may.

use rustls_pki_types::CertificateDer;

use crate::status::ApiError;

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Somebody known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name: the certificate's common name.
    pub name: String,
    /// Groups: the certificate's organisations.
    pub groups: Vec<String>,
}

impl User {
    /// The user a verified client certificate names; `None` when it names none.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject
            .iter_organization()
            .filter_map(|o| Some(o.as_str().ok()?.to_owned()));
        let groups = groups.chain(["system:authenticated".to_owned()]).collect();
        Some(Self { name, groups })
    }
}

/// 401 for somebody unknown.
///
/// # Errors
/// When no user was authenticated.
pub(super) fn authenticated(user: Option<&User>) -> Result<&User, ApiError> {
    user.ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))
}

/// Whether a user may do `verb` on `path`. Only the group `system:masters` has rights so far; role
/// bindings are stored and not evaluated.
pub(super) fn allowed(user: &User) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

/// 403 for somebody who may not.
///
/// # Errors
/// When the user may not.
pub(super) fn authorize(user: &User, verb: &str, path: &str) -> Result<(), ApiError> {
    if allowed(user) {
        return Ok(());
    }
    let message = format!(
        "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
        user.name
    );
    Err(ApiError::new(403, "Forbidden", message))
}
