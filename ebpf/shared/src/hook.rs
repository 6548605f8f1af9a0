//! Where programs are attached and the marks they set.

/// Program at the clsact ingress of a pod's host-side device: what the pod sends.
pub const FROM_POD: &str = "towline_from_pod";
/// Program at the clsact egress of a pod's host-side device: what the pod receives.
pub const TO_POD: &str = "towline_to_pod";
/// Cgroup program: `connect` on an IPv4 socket.
pub const CONNECT4: &str = "towline_connect4";
/// Cgroup program: `sendmsg` with a destination on an IPv4 UDP socket.
pub const SENDMSG4: &str = "towline_sendmsg4";
/// Cgroup program: `recvmsg` on an IPv4 UDP socket.
pub const RECVMSG4: &str = "towline_recvmsg4";
/// Cgroup program: `getpeername` on an IPv4 socket.
pub const GETPEERNAME4: &str = "towline_getpeername4";
/// As [`CONNECT4`], on an IPv6 socket to a mapped IPv4 address. (What such a UDP socket sends without
/// connecting the kernel itself shows to [`SENDMSG4`].)
pub const CONNECT6: &str = "towline_connect6";
/// As [`RECVMSG4`], on an IPv6 socket.
pub const RECVMSG6: &str = "towline_recvmsg6";
/// As [`GETPEERNAME4`], on an IPv6 socket.
pub const GETPEERNAME6: &str = "towline_getpeername6";

/// All programs attached to the node's cgroup.
pub const CGROUP_PROGRAMS: [&str; 7] = [
    CONNECT4,
    SENDMSG4,
    RECVMSG4,
    GETPEERNAME4,
    CONNECT6,
    RECVMSG6,
    GETPEERNAME6,
];

/// Priority of our clsact filters.
pub const TC_PRIORITY: u16 = 84;
/// Handle of our clsact filters.
pub const TC_HANDLE: u32 = 0x54;

/// Packet mark bit: the packet goes to a frontend without backends, and the node's nftables table must
/// `reject` it: match `mark & MARK_REJECT == MARK_REJECT`. Other bits of the mark are left alone.
pub const MARK_REJECT: u32 = 0x4000_0000;
