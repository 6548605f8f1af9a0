//! PURE: configuration and subnet file to the delegate's configuration.

use ipnetwork::IpNetwork;
use protocol::{Error, Request};

use crate::delegate::{self, Delegate};
use crate::flannel::config::Config;
use crate::subnet::Subnet;

/// The delegate's configuration for ADD.
///
/// # Errors
/// Code 7 naming all keys that the subnet file lacks.
pub fn delegate(
    request: &Request<'_>,
    config: &Config,
    subnet: &Subnet,
) -> Result<Delegate, Error> {
    let mut missing = Vec::new();
    if subnet.networks.is_empty() {
        missing.push("FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK");
    }
    if subnet.masqueraded.is_none() {
        missing.push("FLANNEL_IPMASQ");
    }
    if !missing.is_empty() {
        let file = config.subnet_file.display();
        let missing = missing.join(", ");
        return Err(Error::config(format!(
            "subnet file {file} has no {missing}"
        )));
    }
    // Exactly one of flanneld and the delegate masquerades.
    let masquerade = subnet.masqueraded == Some(false);
    Ok(completed(request, config, Some(subnet), masquerade))
}

/// The delegate's configuration for removing what an ADD left of which nothing was saved: whatever
/// that ADD may have made is named.
#[must_use]
pub fn broadest(request: &Request<'_>, config: &Config, subnet: Option<&Subnet>) -> Delegate {
    completed(request, config, subnet, true)
}

fn completed(
    request: &Request<'_>,
    config: &Config,
    subnet: Option<&Subnet>,
    masquerade: bool,
) -> Delegate {
    let mut delegate =
        Delegate::new(request, &config.delegate, &config.delegate_type).or("ipMasq", masquerade);
    if let Some(subnet) = subnet {
        delegate = delegate.or("mtu", subnet.mtu.get());
    }
    if config.delegate_type == "bridge" {
        delegate = delegate.or("isGateway", true);
    }
    let subnets: Vec<IpNetwork> = subnet.iter().flat_map(|one| one.subnets()).collect();
    let networks = subnet.iter().flat_map(|one| &one.networks);
    let destinations = networks.map(ToString::to_string);
    delegate.ipam(delegate::ipam(&config.ipam, &subnets, destinations))
}
