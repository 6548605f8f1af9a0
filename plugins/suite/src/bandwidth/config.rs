//! The network configuration of `bandwidth`.

use ipnetwork::IpNetwork;
use netstate::route::masked;
use netstate::{Bucket, Htb, Qdisc, Remote};
use protocol::{Error, Request};
use serde::Deserialize;

/// The reference's limit of a burst in bytes is a 32-bit number that it must stay below.
const BURST_MAX: u64 = u32::MAX as u64 - 1;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    runtime_config: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    bandwidth: Option<RawLimits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawLimits {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
    shaped_subnets: Option<Vec<String>>,
    unshaped_subnets: Option<Vec<String>>,
}

/// The checked configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What the pod may receive.
    pub ingress: Option<Bucket>,
    /// What the pod may send.
    pub egress: Option<Bucket>,
    /// Far addresses that the limits speak of.
    pub subnets: Subnets,
}

/// Far addresses by which traffic is limited or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Subnets {
    /// All traffic is limited.
    #[default]
    All,
    /// Only traffic with these is.
    Limited(Vec<IpNetwork>),
    /// All but traffic with these is.
    Free(Vec<IpNetwork>),
}

/// Reads the configuration. If it has any of the plugin's keys itself, those of the runtime do not
/// count.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let own: RawLimits = request.config_as()?;
    let (raw, prefix) = if own.is_any() {
        (own, "")
    } else {
        let runtime: Raw = request.config_as()?;
        let limits = runtime.runtime_config.bandwidth.unwrap_or_default();
        (limits, "runtimeConfig.bandwidth.")
    };
    Ok(Config {
        ingress: bucket(prefix, "ingress", raw.ingress_rate, raw.ingress_burst)?,
        egress: bucket(prefix, "egress", raw.egress_rate, raw.egress_burst)?,
        subnets: raw.subnets(prefix)?,
    })
}

/// Bits to bytes. Neither rate nor burst, or zero for both, is no limit.
fn bucket(
    prefix: &str,
    side: &str,
    rate: Option<u64>,
    burst: Option<u64>,
) -> Result<Option<Bucket>, Error> {
    let (rate, burst) = (rate.unwrap_or(0), burst.unwrap_or(0));
    let key = format!("{prefix}{side}");
    let wrong = |msg: String| Err(Error::config(msg));
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => wrong(format!(
            "{key}Burst is {burst}, but {key}Rate is not set; set both or neither"
        )),
        (_, 0) => wrong(format!(
            "{key}Rate is {rate}, but {key}Burst is not set; set both or neither"
        )),
        (1..8, _) => wrong(format!(
            "{key}Rate {rate} is less than a byte per second; give at least 8 bits"
        )),
        (_, 1..8) => wrong(format!(
            "{key}Burst {burst} is less than a byte; give at least 8 bits"
        )),
        _ => match u32::try_from(burst / 8)
            .ok()
            .filter(|_| burst / 8 <= BURST_MAX)
        {
            Some(burst) => Ok(Some(Bucket {
                rate: rate / 8,
                burst,
            })),
            None => wrong(format!(
                "{key}Burst {burst} is 4 GiB or more; give at most {} bits",
                BURST_MAX * 8 + 7
            )),
        },
    }
}

// === impl RawLimits ===

impl RawLimits {
    const fn is_any(&self) -> bool {
        self.ingress_rate.is_some()
            || self.ingress_burst.is_some()
            || self.egress_rate.is_some()
            || self.egress_burst.is_some()
            || self.shaped_subnets.is_some()
            || self.unshaped_subnets.is_some()
    }

    fn subnets(&self, prefix: &str) -> Result<Subnets, Error> {
        let list = |key: &str, texts: &Option<Vec<String>>| {
            let texts = texts.as_deref().unwrap_or_default();
            let subnets = texts.iter().map(|text| subnet(prefix, key, text));
            subnets.collect::<Result<Vec<_>, _>>()
        };
        let limited = list("shapedSubnets", &self.shaped_subnets)?;
        let free = list("unshapedSubnets", &self.unshaped_subnets)?;
        match (limited.is_empty(), free.is_empty()) {
            (true, true) => Ok(Subnets::All),
            (false, true) => Ok(Subnets::Limited(limited)),
            (true, false) => Ok(Subnets::Free(free)),
            (false, false) => Err(Error::config(format!(
                "{prefix}shapedSubnets and {prefix}unshapedSubnets exclude each other; give one"
            ))),
        }
    }
}

fn subnet(prefix: &str, key: &str, text: &str) -> Result<IpNetwork, Error> {
    let parsed = text.contains('/').then(|| text.parse().ok()).flatten();
    parsed.map(masked).ok_or_else(|| {
        let msg = format!("{prefix}{key}: {text:?} is no subnet; write it as 10.0.0.0/8");
        Error::config(msg)
    })
}

// === impl Config ===

impl Config {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }

    /// What limits traffic to `bucket` at the side where the far address is `remote`.
    #[must_use]
    pub fn qdisc(&self, bucket: Bucket, remote: Remote) -> Qdisc {
        let (subnets, limited) = match &self.subnets {
            Subnets::All => return Qdisc::Tbf(bucket),
            Subnets::Limited(subnets) => (subnets.clone(), true),
            Subnets::Free(subnets) => (subnets.clone(), false),
        };
        Qdisc::Htb(Htb {
            bucket,
            remote,
            subnets,
            limited,
        })
    }
}
