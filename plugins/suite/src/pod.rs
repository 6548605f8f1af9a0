//! The pod's network namespace, and kernel errors in the words of the protocol.

use hostnet::apply::Places;
use hostnet::{Netlink, Netns};
use netstate::{IfName, NetnsPath};
use protocol::{Error, Request};

/// The request's interface name.
///
/// # Errors
/// Code 4 when it is no name; the run loop has checked that already.
pub fn ifname(request: &Request<'_>) -> Result<IfName, Error> {
    request
        .ifname
        .parse()
        .map_err(|error| Error::environment(format!("CNI_IFNAME: {error}")))
}

/// The path of the pod's namespace.
///
/// # Errors
/// Code 4 when it is missing or no absolute path.
pub fn path(request: &Request<'_>) -> Result<NetnsPath, Error> {
    let text = request.netns.as_deref().unwrap_or_default();
    text.parse()
        .map_err(|error| Error::environment(format!("CNI_NETNS: {error}")))
}

/// Opens the pod's namespace and refuses the plugin's own, before anything is changed.
///
/// # Errors
/// Code 4 for a path that is no path, 8 for a namespace that is none or the plugin's own.
pub fn open(request: &Request<'_>) -> Result<Netns, Error> {
    let path = path(request)?;
    let refuse = |error: hostnet::Error| Error::netns(format!("CNI_NETNS: {error}"));
    let netns = Netns::open(&path).map_err(refuse)?;
    let allowed = request.env.get("CNI_NETNS_OVERRIDE").is_some_and(is_true);
    if !allowed
        && netns
            .is_same(&Netns::current().map_err(refuse)?)
            .map_err(refuse)?
    {
        let msg = format!("CNI_NETNS {path} is the plugin's own namespace; give the container's");
        return Err(Error::netns(msg));
    }
    Ok(netns)
}

/// The pod's namespace if it is still there, for DEL.
#[must_use]
pub fn open_if_there(request: &Request<'_>) -> Option<Netns> {
    let netns = Netns::open(&path(request).ok()?).ok()?;
    let own = Netns::current().ok()?;
    match netns.is_same(&own) {
        Ok(false) => Some(netns),
        _ => None,
    }
}

/// The host and the pod, ready for a plan.
///
/// # Errors
/// As [`open`], and when no socket can be had.
pub fn places(request: &Request<'_>) -> Result<Places, Error> {
    Places::open(Some(open(request)?)).map_err(|error| kernel(&error))
}

/// Refuses an interface that is in the pod already, before anything is done: what an ADD before
/// this one made must stay, and undoing this one would remove it.
///
/// # Errors
/// Code 999 when the pod has an interface of the request's name.
pub fn refuse_taken(request: &Request<'_>, netlink: &mut Netlink) -> Result<(), Error> {
    let name = ifname(request)?;
    match netlink.link(&name).map_err(|error| kernel(&error))? {
        Some(_) => {
            let msg = format!("interface {name} is in the container already; DEL it first");
            Err(Error::other(msg))
        }
        None => Ok(()),
    }
}

/// A kernel error in the words of the protocol.
#[must_use]
pub fn kernel(error: &hostnet::Error) -> Error {
    Error::other(error.to_string())
}

/// A failed plan in the words of the protocol.
#[must_use]
pub fn failed(error: &hostnet::apply::Failed) -> Error {
    Error::other(error.to_string())
}

/// An error with what could not be undone after it.
#[must_use]
pub fn with_leftovers(error: Error, leftovers: &[hostnet::Error]) -> Error {
    if leftovers.is_empty() {
        return error;
    }
    let shown: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
    let details = format!("{}; then, undoing: {}", error.details, shown.join("; "));
    error.details(details.trim_start_matches("; "))
}

fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
}
