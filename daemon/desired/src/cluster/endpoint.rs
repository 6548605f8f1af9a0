//! Pod interfaces on this node, as the CNI plugin registers them.

use std::net::IpAddr;

use netstate::IfName;

use crate::names::{PodName, PodUid};

/// What CNI calls an attachment: container id and interface name within the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointId {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
}

/// One registered pod interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Container id and interface name.
    pub id: EndpointId,
    /// Whose interface it is (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`).
    pub pod: PodName,
    /// `K8S_POD_UID`, when the runtime passes it.
    pub uid: Option<PodUid>,
    /// The host end of the interface pair.
    pub host_interface: IfName,
    /// The kernel's index of the host end.
    pub host_ifindex: u32,
    /// The pod's network namespace by its `SO_NETNS_COOKIE`.
    pub netns_cookie: u64,
    /// The pod's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
}
