//! What the plugin asks of the daemon.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use protocol::{Attachment, Error, Request};
use serde_json::Value;

use crate::towline::config::Config;
use crate::towline::http::{self, Response};
use crate::towline::plan::Endpoint;

/// What the daemon may take beyond the policy's own time.
const GRACE: Duration = Duration::from_secs(5);

/// The daemon behind its socket.
#[derive(Debug, Clone, Copy)]
pub struct Daemon<'a> {
    socket: &'a Path,
    timeout: Duration,
}

// === impl Daemon ===

impl<'a> Daemon<'a> {
    /// The daemon that `config` names.
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        Self {
            socket: &config.socket,
            timeout: config.policy_timeout + GRACE,
        }
    }

    /// Whether it listens.
    ///
    /// # Errors
    /// Code 11 when it does not.
    pub fn check_present(&self) -> Result<(), Error> {
        http::connect(self.socket)
            .map(drop)
            .map_err(|error| self.absent(&error))
    }

    /// Registers an endpoint and waits until its policy is in force.
    ///
    /// # Errors
    /// Code 11 when the daemon is absent, else the daemon's own code.
    pub fn register(&self, request: &Request<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        let body = serde_json::to_vec(endpoint)
            .map_err(|error| Error::other("cannot encode the endpoint").details(error))?;
        self.call("PUT", &path(&request.container_id, &request.ifname), &body)
            .map(drop)
    }

    /// Deregisters an endpoint. An absent daemon and an unknown endpoint are no error.
    ///
    /// # Errors
    /// The daemon's own.
    pub fn deregister(&self, request: &Request<'_>) -> Result<(), Error> {
        self.forget(&path(&request.container_id, &request.ifname))
    }

    /// Deregisters the endpoint of another attachment.
    ///
    /// # Errors
    /// The daemon's own.
    pub fn deregister_attachment(&self, attachment: &Attachment) -> Result<(), Error> {
        self.forget(&path(&attachment.container_id, &attachment.ifname))
    }

    /// Whether the daemon knows the endpoint.
    ///
    /// # Errors
    /// Code 11 when the daemon is absent, 3 when it does not know it.
    pub fn check_registered(&self, request: &Request<'_>) -> Result<(), Error> {
        let answer = self.call("GET", "/v1/endpoints", b"")?;
        let document: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| Error::decode("the daemon's endpoints are no JSON").details(error))?;
        let same = |endpoint: &Value, field: &str, wanted: &str| endpoint[field] == *wanted;
        let known = document.as_array().into_iter().flatten().any(|endpoint| {
            same(endpoint, "containerId", &request.container_id)
                && same(endpoint, "ifname", &request.ifname)
        });
        if known {
            return Ok(());
        }
        let msg = format!(
            "towlined does not know {}/{}",
            request.container_id, request.ifname
        );
        Err(Error::unknown_container(msg))
    }

    fn forget(&self, path: &str) -> Result<(), Error> {
        if self.check_present().is_err() {
            return Ok(());
        }
        self.call("DELETE", path, b"").map(drop)
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Response, Error> {
        let answer = http::exchange(self.socket, method, path, body, self.timeout);
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let seconds = self.timeout.as_secs();
                Error::try_again(format!("towlined did not answer within {seconds} s"))
            }
            _ => self.absent(&error),
        })?;
        if (200..300).contains(&answer.status) {
            Ok(answer)
        } else {
            Err(refused(&answer))
        }
    }

    fn absent(&self, error: &std::io::Error) -> Error {
        let socket = self.socket.display();
        Error::try_again(format!(
            "towlined cannot be reached at {socket}; is it running?"
        ))
        .details(error)
    }
}

/// The daemon's error in its own words, if it has any.
fn refused(answer: &Response) -> Error {
    match serde_json::from_slice::<Error>(&answer.body) {
        Ok(error) if error.code != 0 => error,
        _ => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            Error::other(format!("towlined answered {}", answer.status)).details(text)
        }
    }
}

/// Container IDs and interface names of requests hold nothing that a path would have to escape,
/// except what an interface name may hold beyond them.
fn path(container_id: &str, ifname: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped: String = ifname
        .bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    format!("/v1/endpoints/{container_id}/{escaped}")
}
