//! The network configuration of `tuning`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use netstate::{MacAddr, Mtu};
use protocol::{Error, Request};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

const DATA_DIR: &str = "/run/cni/tuning";
/// Stands for the interface's name in a parameter's.
const IFNAME: &str = "IFNAME";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    data_dir: String,
    #[serde(flatten)]
    own: RawWishes,
    args: RawArgs,
    runtime_config: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawWishes {
    mac: String,
    mtu: Option<u32>,
    promisc: Option<bool>,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    queue_length: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawWishes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    mac: String,
}

/// Read apart, from the text as it came: a JSON value holds no key twice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawSysctls {
    sysctl: Option<Pairs>,
    args: Option<RawSysctlArgs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawSysctlArgs {
    cni: Option<RawSysctlCni>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawSysctlCni {
    sysctl: Option<Pairs>,
}

/// The members of an object, as often as they are written.
#[derive(Debug, Default)]
struct Pairs(Vec<(String, String)>);

/// A kernel parameter of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// As the configuration says it; the allowlist is about this.
    pub key: String,
    /// Below `/proc/sys`, with slashes and the interface's name.
    pub name: String,
    /// What is written.
    pub value: String,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the attributes before ADD are kept.
    pub data_dir: PathBuf,
    /// Parameters, by name.
    pub sysctls: Vec<Sysctl>,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// MTU of the interface, and of the other end of a veth.
    pub mtu: Option<Mtu>,
    /// Takes all frames.
    pub promiscuous: bool,
    /// Takes all multicast frames, or not.
    pub all_multicast: Option<bool>,
    /// Packets that its queue holds.
    pub queue_length: Option<u32>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be, 4 for unknown keys in `CNI_ARGS`.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    request.args.check_known(&["MAC", "IP", "GATEWAY"])?;
    let (own, wish) = (raw.own, raw.args.cni);
    let data_dir = data_dir(&raw.data_dir).ok_or_else(|| {
        let given = &raw.data_dir;
        Error::config(format!(
            "dataDir {given:?} is not absolute; give a path such as {DATA_DIR}"
        ))
    })?;
    let mtu = match wish.mtu.or(own.mtu).unwrap_or(0) {
        0 => None,
        number => {
            let bad = |error| Error::config(format!("mtu: {error}"));
            Some(Mtu::try_from(number).map_err(bad)?)
        }
    };
    let macs = [
        ("args.cni.mac", wish.mac.as_str()),
        ("runtimeConfig.mac", &raw.runtime_config.mac),
        ("CNI_ARGS MAC", request.args.get("MAC").unwrap_or_default()),
        ("mac", &own.mac),
    ];
    let mac = macs.into_iter().find(|(_, text)| !text.is_empty());
    Ok(Config {
        data_dir,
        sysctls: sysctls(request)?,
        mac: mac.map(|(field, text)| address(field, text)).transpose()?,
        mtu,
        promiscuous: wish.promisc.or(own.promisc).unwrap_or(false),
        all_multicast: wish.allmulti.or(own.allmulti),
        queue_length: wish.queue_length.or(own.queue_length),
    })
}

/// Where the attributes are kept, for commands that read nothing else: whatever else is wrong, DEL
/// goes on. `None` for a path that is not absolute.
#[must_use]
pub fn data_dir_of(request: &Request<'_>) -> Option<PathBuf> {
    let given = request.config.get("dataDir").and_then(|dir| dir.as_str());
    data_dir(given.unwrap_or_default())
}

fn data_dir(given: &str) -> Option<PathBuf> {
    let path = Path::new(if given.is_empty() { DATA_DIR } else { given });
    path.is_absolute().then(|| path.to_owned())
}

fn address(field: &str, text: &str) -> Result<MacAddr, Error> {
    let bad = |error| Error::config(format!("{field}: {error}"));
    let mac: MacAddr = text.parse().map_err(bad)?;
    if mac.is_unicast() {
        return Ok(mac);
    }
    let msg = format!("{field}: {mac} is zero or multicast; give a unicast address");
    Err(Error::config(msg))
}

/// The configuration's parameters, those of `args.cni.sysctl` in their place.
fn sysctls(request: &Request<'_>) -> Result<Vec<Sysctl>, Error> {
    let raw: RawSysctls = serde_json::from_slice(request.stdin)
        .map_err(|error| Error::decode("cannot decode sysctl").details(error))?;
    let wished = raw.args.and_then(|args| args.cni?.sysctl);
    let mut all = BTreeMap::new();
    for (field, pairs) in [("sysctl", raw.sysctl), ("args.cni.sysctl", wished)] {
        let mut part = BTreeMap::new();
        for (key, value) in pairs.unwrap_or_default().0 {
            let name = name(field, &key, &request.ifname)?;
            let sysctl = Sysctl {
                key,
                name: name.clone(),
                value,
            };
            if let Some(before) = part.insert(name, sysctl) {
                let key = before.key;
                let msg = format!("{field}: {key:?} is there twice; give one value");
                return Err(Error::config(msg));
            }
        }
        all.extend(part);
    }
    Ok(all.into_values().collect())
}

/// `net.ipv4.conf.IFNAME.arp_filter` or `net/ipv4/conf/IFNAME/arp_filter`, below `/proc/sys`. With
/// slashes, dots belong to an interface's name.
fn name(field: &str, key: &str, ifname: &str) -> Result<String, Error> {
    let slashes = if key.starts_with("net/") {
        key.to_owned()
    } else {
        key.replace('.', "/")
    };
    let name = slashes.replacen(IFNAME, ifname, 1);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.starts_with("net/") && name.split('/').all(plain) && !name.contains('\0') {
        return Ok(name);
    }
    Err(Error::config(format!(
        "{field}: {key:?} is no parameter of the network; give one such as net.ipv4.tcp_syncookies"
    )))
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Members)
    }
}
