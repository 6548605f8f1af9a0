//! What flanneld's vxlan backend makes in the kernel, after `pkg/backend/vxlan`: a device for each
//! family, and for each peer a neighbour, a forwarding entry and a route, made and undone by events.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::host::{Interface, json, run};
use super::registry::{Subnets, parse_key};
use super::{Event, Peers};

/// Bytes that flannel takes off the interface's MTU, over IPv6 too.
const ENCAP_OVERHEAD: u64 = 50;

/// The backend on one host.
pub struct Vxlan {
    vni: u64,
    mtu: u64,
    v4: Device,
    v6: Option<Device>,
    /// The values of the leases that it was told of, by name: a removal speaks of what was added.
    told: BTreeMap<String, String>,
    /// How many of the events are done.
    done: usize,
}

/// A VXLAN device.
struct Device {
    name: String,
    mac: String,
    local: IpAddr,
}

/// Where a peer is, in one family.
struct Peer {
    subnet: String,
    /// The subnet's first address: the gateway of its route.
    first: IpAddr,
    mac: String,
    public_ip: String,
}

// === impl Vxlan ===

impl Vxlan {
    /// `RegisterNetwork`: the devices, before there is a lease.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(interface: &Interface, vni: u64) -> Result<Self> {
        let mtu = interface.mtu - ENCAP_OVERHEAD;
        let v4 = Device::ensure(
            format!("flannel.{vni}"),
            interface.v4.into(),
            interface,
            vni,
        )?;
        let v6 = interface
            .v6
            .map(|ip| Device::ensure(format!("flannel-v6.{vni}"), ip.into(), interface, vni))
            .transpose()?;
        Ok(Self {
            vni,
            mtu,
            v4,
            v6,
            told: BTreeMap::new(),
            done: 0,
        })
    }

    /// What pods are told.
    #[must_use]
    pub const fn mtu(&self) -> u64 {
        self.mtu
    }

    /// The value of its lease.
    #[must_use]
    pub fn value(&self) -> String {
        let data = |mac: &str| format!(r#"{{"VNI":{},"VtepMAC":"{mac}"}}"#, self.vni);
        let (v6_ip, v6_data) = match &self.v6 {
            None => ("null".to_owned(), String::new()),
            Some(v6) => (
                format!(r#""{}""#, v6.local),
                format!(r#","BackendV6Data":{}"#, data(&v6.mac)),
            ),
        };
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":{v6_ip},"BackendType":"vxlan","BackendData":{}{v6_data}}}"#,
            self.v4.local,
            data(&self.v4.mac)
        )
    }

    /// `Configure`: the devices' addresses, once there is a lease.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn configure(&self, own: &Subnets) -> Result<()> {
        self.v4.configure(&format!("{}/32", own.v4.ip()))?;
        if let (Some(device), Some(subnet)) = (&self.v6, own.v6) {
            device.configure(&format!("{}/128", subnet.ip()))?;
        }
        Ok(())
    }

    /// `handleSubnetEvents`: does what it has not done yet, and tells of each event. What the kernel
    /// refuses is told too, and not tried again.
    pub fn handle(&mut self, peers: &Peers, say: &mut dyn FnMut(&str)) {
        for event in &peers.events[self.done..] {
            let (name, add) = match event {
                Event::Added(name, value) => {
                    self.told.insert(name.clone(), value.clone());
                    (name, true)
                }
                Event::Removed(name) => (name, false),
            };
            let value = self.told.get(name).cloned();
            say(&format!("{} {name}", if add { "added" } else { "removed" }));
            if let Err(error) = self.change(name, &value.unwrap_or_default(), add) {
                say(&format!("error: {name}: {error:#}"));
            }
            if !add {
                self.told.remove(name);
            }
        }
        self.done = peers.events.len();
    }

    fn change(&self, name: &str, value: &str, add: bool) -> Result<()> {
        let subnets = parse_key(name.as_bytes()).context("not a subnet")?;
        let value: Value = serde_json::from_str(value)?;
        if value["BackendType"] != "vxlan" {
            return Ok(());
        }
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not there");
        let v4 = Peer {
            subnet: subnets.v4.to_string(),
            first: subnets.v4.ip().into(),
            mac: text(&value["BackendData"]["VtepMAC"])?,
            public_ip: text(&value["PublicIP"])?,
        };
        self.v4.change(&v4, add)?;
        let (Some(device), Some(subnet)) = (&self.v6, subnets.v6) else {
            return Ok(());
        };
        let v6 = Peer {
            subnet: subnet.to_string(),
            first: subnet.ip().into(),
            mac: text(&value["BackendV6Data"]["VtepMAC"])?,
            public_ip: text(&value["PublicIPv6"])?,
        };
        device.change(&v6, add)
    }
}

// === impl Device ===

impl Device {
    /// `ensureLink`: one that is there is kept if it is what would be made, with its MAC; a new one
    /// gets a random one.
    fn ensure(name: String, local: IpAddr, interface: &Interface, vni: u64) -> Result<Self> {
        let all = json("ip", &["-j", "-d", "link", "show"])?;
        let all = all.as_array().context("no list of links")?;
        if let Some(found) = all.iter().find(|link| link["ifname"] == *name) {
            let data = &found["linkinfo"]["info_data"];
            let key = if local.is_ipv4() { "local" } else { "local6" };
            let is_it = data["id"] == vni
                && data[key] == local.to_string()
                && data["link"] == *interface.name
                && data["port"] == 8472;
            if is_it {
                let mac = found["address"].as_str().context("no MAC")?.to_owned();
                return Ok(Self { name, mac, local });
            }
            run("ip", &["link", "delete", &name])?;
        }
        let mac = random_mac();
        let (local_ip, vni) = (local.to_string(), vni.to_string());
        let mtu = (interface.mtu - ENCAP_OVERHEAD).to_string();
        let link = ["link", "add", &name, "address", &mac, "mtu", &mtu];
        let kind = ["type", "vxlan", "id", &vni, "dev", &interface.name];
        let rest = ["local", &local_ip, "dstport", "0", "nolearning"];
        run("ip", &[&link[..], &kind, &rest].concat())?;
        let accept_ra = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
        std::fs::write(&accept_ra, "0").context(accept_ra)?;
        let device = Self { name, mac, local };
        let shown = json("ip", &["-j", "link", "show", "dev", &device.name])?;
        // Since v0.27: somebody else (systemd) has rewritten it.
        ensure!(shown[0]["address"] == *device.mac, "the MAC was changed");
        Ok(device)
    }

    /// `EnsureV4AddressOnLink` and `EnsureV6AddressOnLink`.
    fn configure(&self, address: &str) -> Result<()> {
        let shown = json("ip", &["-j", "addr", "show", "dev", &self.name])?;
        let found = shown[0]["addr_info"].as_array().context("no addresses")?;
        let mut has = false;
        for one in found.iter().filter(|one| one["scope"] == "global") {
            let local = one["local"].as_str().context("no address")?;
            let text = format!("{local}/{}", one["prefixlen"]);
            let is_v4 = one["family"] == "inet";
            if text == address {
                has = true;
            } else if is_v4 == self.local.is_ipv4() {
                run("ip", &["addr", "delete", &text, "dev", &self.name])?;
            }
        }
        if !has {
            run("ip", &["addr", "add", address, "dev", &self.name])?;
        }
        run("ip", &["link", "set", &self.name, "up"])?;
        Ok(())
    }

    /// Makes a peer reachable, in this order; or undoes it. A peer with another MAC leaves the
    /// forwarding entry of the one that it had.
    fn change(&self, peer: &Peer, add: bool) -> Result<()> {
        let family = if self.local.is_ipv4() { "-4" } else { "-6" };
        let (dev, first) = (self.name.as_str(), peer.first.to_string());
        let verb = if add { "replace" } else { "delete" };
        let (mac, ip) = (peer.mac.as_str(), peer.public_ip.as_str());
        let mut neighbour = vec![family, "neighbour", verb, &first, "dev", dev];
        if add {
            neighbour.extend(["lladdr", mac, "nud", "permanent"]);
        }
        run("ip", &neighbour)?;
        let mut entry = vec!["fdb", verb, mac, "dev", dev, "dst", ip, "self"];
        if add {
            entry.push("permanent");
        }
        run("bridge", &entry)?;
        let route = [family, "route", verb, &peer.subnet, "via", &first];
        run("ip", &[&route[..], &["dev", dev, "onlink"]].concat())?;
        Ok(())
    }
}

/// `mac.NewHardwareAddr`: random, unicast and locally administered.
fn random_mac() -> String {
    let mut octets: [u8; 6] = rand::random();
    octets[0] = (octets[0] & 0xfe) | 0x02;
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
