//! `ipMasq`: what a pod sends beyond its own subnet gets the node's address.

pub mod iptables;
pub mod nftables;

use hostnet::Nftables;
use netstate::Step;
use protocol::{Attachment, Error, IpConfig, Request};

/// How packets are masqueraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One nftables transaction over netlink; the default.
    Nftables {
        /// Whether the configuration says so.
        chosen: bool,
    },
    /// The iptables programs.
    Iptables,
}

/// What an ADD has to do to masquerade a pod's addresses.
#[derive(Debug)]
pub struct Masquerade<'a> {
    network: &'a str,
    attachment: Attachment,
    ips: &'a [IpConfig],
    backend: Option<Backend>,
}

// === impl Backend ===

impl Backend {
    /// The backend of `ipMasqBackend`.
    ///
    /// # Errors
    /// Code 7 for another name.
    pub fn named(text: &str) -> Result<Self, Error> {
        match text {
            "" => Ok(Self::Nftables { chosen: false }),
            "nftables" => Ok(Self::Nftables { chosen: true }),
            "iptables" => Ok(Self::Iptables),
            other => Err(Error::config(format!(
                "ipMasqBackend {other:?} is unknown; give \"nftables\" or \"iptables\""
            ))),
        }
    }
}

// === impl Masquerade ===

impl<'a> Masquerade<'a> {
    /// For `ips`, where the configuration asks for it.
    #[must_use]
    pub fn of(request: &'a Request<'_>, backend: Option<Backend>, ips: &'a [IpConfig]) -> Self {
        Self {
            network: &request.network,
            attachment: request.attachment(),
            ips,
            backend: backend.filter(|_| !ips.is_empty()),
        }
    }

    /// The step of a plan that does it, if it is done so.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match self.backend {
            Some(Backend::Nftables { .. }) => {
                Some(nftables::step(self.network, &self.attachment, self.ips))
            }
            _ => None,
        }
    }

    /// Does it where no step of a plan can, after the plan.
    ///
    /// # Errors
    /// When a program is missing or refuses. Nothing is left then.
    pub fn finish(&self) -> Result<(), Error> {
        match self.backend {
            Some(Backend::Iptables) => iptables::add(self.network, &self.attachment, self.ips),
            _ => Ok(()),
        }
    }
}

/// Removes what masquerades the attachment, whichever backend or plugin made it and whatever the
/// configuration says by now; what is absent is no error. The connection to nftables is returned,
/// to be closed after all else.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(request: &Request<'_>) -> Result<Nftables, Error> {
    let (network, attachment) = (&request.network, request.attachment());
    let known = request.prev_result.as_ref().map(|before| &*before.ips);
    // First, because it closes connections to nftables of its own: after a removal the kernel would
    // wait there until no packet can be using what was removed.
    let other = iptables::remove(network, &attachment, known.unwrap_or_default());
    let removed = nftables::remove(network, &attachment);
    other.and(removed)
}

/// Removes what masquerades attachments of this network that are not in `valid`, if the runtime
/// said which are.
///
/// # Errors
/// When the kernel refuses.
pub fn sweep(request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
    let Some(valid) = valid else { return Ok(()) };
    let swept = nftables::sweep(&request.network, valid);
    iptables::sweep(&request.network, valid).and(swept)
}

/// Whether `ips` are masqueraded. By which backend does not matter unless the configuration chose
/// one: the pod may have been attached by another plugin.
///
/// # Errors
/// When they are not.
pub fn check(request: &Request<'_>, backend: Backend, ips: &[IpConfig]) -> Result<(), Error> {
    let (network, attachment) = (&request.network, request.attachment());
    let there = match backend {
        Backend::Iptables => iptables::is_there(network, &attachment, ips)?,
        Backend::Nftables { chosen } => {
            nftables::is_there(network, &attachment, ips.len())?
                || (!chosen && iptables::is_there(network, &attachment, ips)?)
        }
    };
    if there {
        return Ok(());
    }
    Err(Error::other(format!(
        "masquerading of {} is gone",
        request.container_id
    )))
}
