//! Loads, attaches and pins Towline's eBPF programs, and offers their maps as targets.
//!
//! Everything is blocking and happens in the calling thread's network namespace; only [`Events`] has a
//! descriptor to wait on. What the maps and programs mean is said in `ebpf_shared` and
//! `docs/datapath.md`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use towline_loader as loader;
//! use loader::{Datapath, Options};
//! use netstate::target::Target;
//!
//! let options = Options { bpf_root: "/sys/fs/bpf/towline".into(), capacities: Default::default() };
//! let mut datapath = Datapath::load(&options)?; // adopts what an earlier run pinned
//! datapath.maps().set_config(&ebpf_shared::maps::Config {
//!     node_netns: loader::netns_cookie()?,
//!     flags: ebpf_shared::maps::CONFIG_SERVICES | ebpf_shared::maps::CONFIG_LOCAL_REDIRECT,
//!     ..Default::default()
//! })?;
//! datapath.attach_cgroup("/sys/fs/cgroup".as_ref())?;
//! let ifindex = datapath.attach_pod(&"veth1234".parse()?)?; // fails closed from here on
//! let mut tables = datapath.maps().tables()?;
//! let pod = ebpf_shared::policy::PodValue { addr4: [10, 244, 1, 5], ..Default::default() };
//! tables.pods.put(&ebpf_shared::policy::PodKey { ifindex }, &pod)?; // the pod has network
//! loader::retire_other_layouts(&options.bpf_root)?;
//! # Ok(()) }
//! ```
//!
//! Pins: `<bpf-root>/<layout hash>/maps/<map>` and `…/links/<program>`. Dropping a [`Datapath`] detaches
//! nothing. A reader without the daemon ([`Maps::open`]) finds the same maps.

mod bpf;
mod cgroup;
mod conntrack;
mod counters;
mod error;
mod events;
mod layout;
mod load;
mod map_target;
mod maps;
mod pods;
mod preflight;
mod tc;

pub use cgroup::{cgroup_attachments, detach_cgroup, remove_pins, retire_other_layouts};
pub use conntrack::{Conntrack, Flow, Sweep};
pub use counters::{Count, Counters};
pub use error::Error;
pub use events::Events;
pub use layout::{Kind, LAYOUTS, Layout, layout, layout_hash};
pub use load::{CgroupAttachment, Datapath, Options, PodAttachment, detach_pod, pod_attachments};
pub use map_target::MapTarget;
pub use maps::{MapUsage, Maps, Tables};
pub use pods::PodTarget;
pub use preflight::{monotonic_ns, netns_cookie, preflight};
