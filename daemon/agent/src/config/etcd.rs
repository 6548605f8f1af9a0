//! How etcd is reached, checked.

use super::{ConfigError, Settings, wrong};
use crate::lease::etcd::EtcdSettings;

/// flannel's default.
const PREFIX: &str = "/coreos.com/network";
const ENDPOINT: &str = "http://127.0.0.1:2379";

/// The settings that begin with `etcd-`.
pub(super) fn settings(given: &Settings) -> Result<EtcdSettings, ConfigError> {
    let mut endpoints = given.etcd_endpoints.clone();
    if endpoints.is_empty() {
        endpoints.push(ENDPOINT.to_owned());
    }
    let is_url = |url: &&String| {
        let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
        rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty())
    };
    if let Some(other) = endpoints.iter().find(|url| !is_url(url)) {
        let remedy = "write http:// or https://, address and port, e.g. http://127.0.0.1:2379";
        return Err(wrong("etcd-endpoints", other, remedy));
    }
    let is_tls = |url: &&String| url.starts_with("https://");
    if let Some(other) = endpoints.iter().find(|url| !is_tls(url))
        && endpoints.iter().any(|url| is_tls(&url))
    {
        let remedy = "write https:// for all of them, or for none";
        return Err(wrong("etcd-endpoints", other, remedy));
    }
    let prefix = given.etcd_prefix.as_deref().unwrap_or(PREFIX);
    let trimmed = prefix.trim_end_matches('/');
    if !trimmed.starts_with('/') {
        let remedy = "write a key that begins with /, e.g. /coreos.com/network";
        return Err(wrong("etcd-prefix", prefix, remedy));
    }
    let identity = match (&given.etcd_certfile, &given.etcd_keyfile) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        (Some(file), None) => {
            return Err(wrong(
                "etcd-keyfile",
                "",
                needs("etcd-certfile", &file.display()),
            ));
        }
        (None, Some(file)) => {
            return Err(wrong(
                "etcd-certfile",
                "",
                needs("etcd-keyfile", &file.display()),
            ));
        }
    };
    let user = match (&given.etcd_username, &given.etcd_password) {
        (Some(name), Some(password)) => Some((name.clone(), password.clone())),
        (None, None) => None,
        (Some(name), None) => return Err(wrong("etcd-password", "", needs("etcd-username", name))),
        (None, Some(_)) => return Err(wrong("etcd-username", "", needs("etcd-password", &"…"))),
    };
    Ok(EtcdSettings {
        endpoints,
        prefix: trimmed.to_owned(),
        ca: given.etcd_cafile.clone(),
        identity,
        user,
    })
}

fn needs(other: &str, value: &dyn std::fmt::Display) -> String {
    format!("{other} {value} needs it; give both or none")
}
