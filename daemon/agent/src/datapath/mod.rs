//! The kernel's side as the API shows it, and the eBPF data path behind it.

mod attach;
mod ebpf;
mod ebpf_view;
mod host_view;
mod sockets;
mod view;

pub use self::attach::AttachTarget;
pub use self::ebpf::Ebpf;
pub use self::host_view::{HostView, OverlayView};
pub use self::sockets::{ConfigTarget, SocketTarget};
pub use self::view::{CounterView, Difference, FlowView, KernelView, MapView, differences};
