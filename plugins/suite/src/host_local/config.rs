//! The network configuration of `host-local`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use protocol::{Dns, Error, Request, Route};
use serde::Deserialize;

use crate::host_local::range::{RangeSet, RawRange};

const DATA_DIR: &str = "/var/lib/cni/networks";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    ipam: Option<RawIpam>,
    args: RawArgs,
    runtime_config: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawIpam {
    data_dir: String,
    resolv_conf: String,
    routes: Vec<Route>,
    ranges: Vec<Vec<RawRange>>,
    #[serde(flatten)]
    flat: RawRange,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawCni,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCni {
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    ip_ranges: Vec<Vec<RawRange>>,
    ips: Vec<String>,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where this network's reservations are.
    pub folder: PathBuf,
    /// One address of each is given.
    pub sets: Vec<RangeSet>,
    /// Addresses that must be among them.
    pub requested: Vec<IpAddr>,
    /// Routes of the result.
    pub routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let ipam = raw
        .ipam
        .ok_or_else(|| Error::config("ipam is missing; configure host-local"))?;
    let mut groups = raw.runtime_config.ip_ranges;
    if ipam.flat.subnet.is_some() {
        groups.push(vec![ipam.flat]);
    }
    groups.extend(ipam.ranges);
    let sets = groups
        .iter()
        .map(|set| RangeSet::new(set))
        .collect::<Result<Vec<_>, _>>()?;
    if sets.is_empty() {
        return Err(Error::config("ipam: no ranges; give subnet or ranges"));
    }
    for (at, set) in sets.iter().enumerate() {
        sets[at + 1..]
            .iter()
            .try_for_each(|other| set.check_disjoint(other))?;
    }
    let data_dir = if ipam.data_dir.is_empty() {
        DATA_DIR
    } else {
        &ipam.data_dir
    };
    Ok(Config {
        folder: PathBuf::from(data_dir).join(&request.network),
        sets,
        requested: requested(request, &raw.args.cni.ips, &raw.runtime_config.ips)?,
        routes: ipam.routes,
        resolv_conf: Some(ipam.resolv_conf)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    })
}

/// The requests of all three sources add up; a prefix length is allowed and ignored.
fn requested(
    request: &Request<'_>,
    args: &[String],
    runtime: &[String],
) -> Result<Vec<IpAddr>, Error> {
    request.args.check_known(&["IP", "MAC", "GATEWAY"])?;
    let from_env = request
        .args
        .get("IP")
        .into_iter()
        .flat_map(|list| list.split(','));
    let sources = from_env.chain(args.iter().map(String::as_str));
    let mut ips = Vec::new();
    for text in sources.chain(runtime.iter().map(String::as_str)) {
        let bad = |_| Error::config(format!("requested address {text:?} is no IP address"));
        let ip = text.trim().parse::<IpNetwork>().map_err(bad)?.ip();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

// === impl Config ===

impl Config {
    /// Name resolution as `resolvConf` says; none without it.
    ///
    /// # Errors
    /// Code 7 when the file cannot be read.
    pub fn dns(&self) -> Result<Dns, Error> {
        let Some(path) = &self.resolv_conf else {
            return Ok(Dns::default());
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let msg = format!("ipam: resolvConf {} cannot be read", path.display());
            Error::config(msg).details(error)
        })?;
        Ok(resolv_conf(&text))
    }
}

/// `resolv.conf(5)`.
fn resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line
            .split(['#', ';'])
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let mut rest = words.map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.extend(rest.next()),
            "domain" => dns.domain = rest.next().unwrap_or_default(),
            "search" => dns.search.extend(rest),
            "options" => dns.options.extend(rest),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_does() {
        let text = "# mine\nnameserver 10.0.0.1\nnameserver 10.0.0.2 # second\ndomain a.example\n\
                    search a.example b.example\noptions ndots:5 timeout:1\n";
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            resolv_conf(text),
            Dns {
                nameservers: words("10.0.0.1 10.0.0.2"),
                domain: "a.example".to_owned(),
                search: words("a.example b.example"),
                options: words("ndots:5 timeout:1"),
            }
        );
    }
}
