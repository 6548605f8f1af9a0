//! PURE: address ranges, checked.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::route::masked;
use protocol::Error;
use serde::Deserialize;

/// A range as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawRange {
    /// The subnet, host bits zero.
    pub subnet: Option<IpNetwork>,
    /// First address; the one after the network's by default.
    pub range_start: Option<IpAddr>,
    /// Last address; by default the last before the broadcast address, or the last of all (IPv6).
    pub range_end: Option<IpAddr>,
    /// The gateway, never given away; the first address of the subnet by default.
    pub gateway: Option<IpAddr>,
}

/// Addresses from `start` to `end`, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Their subnet.
    pub subnet: IpNetwork,
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
    /// The gateway, never given away.
    pub gateway: IpAddr,
}

/// Ranges of one family, one address of which is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

// === impl Range ===

impl Range {
    /// Checks a range and fills in what is left out.
    ///
    /// # Errors
    /// Code 7 naming the field.
    pub fn new(raw: &RawRange) -> Result<Self, Error> {
        let Some(subnet) = raw.subnet else {
            return Err(Error::config(
                "ipam: subnet is missing; give one such as 10.1.0.0/24",
            ));
        };
        let bad = |why: String| Err(Error::config(format!("ipam: subnet {subnet}: {why}")));
        if masked(subnet) != subnet {
            return bad(format!("has host bits; write {}", masked(subnet)));
        }
        let longest = if subnet.is_ipv4() { 30 } else { 126 };
        if subnet.prefix() > longest {
            return bad(format!(
                "is too small; give a prefix of /{longest} or shorter"
            ));
        }
        let (network, last) = (number(subnet.network()), number(last_address(subnet)));
        let v4 = subnet.is_ipv4();
        let range = Self {
            subnet,
            start: raw.range_start.unwrap_or_else(|| address(network + 1, v4)),
            end: raw
                .range_end
                .unwrap_or_else(|| address(last - u128::from(v4), v4)),
            gateway: raw.gateway.unwrap_or_else(|| address(network + 1, v4)),
        };
        for (field, ip) in [("rangeStart", range.start), ("rangeEnd", range.end)] {
            if !subnet.contains(ip) {
                return bad(format!("{field} {ip} is outside; give an address within"));
            }
        }
        if range.gateway.is_ipv4() != v4 {
            return bad(format!(
                "gateway {} is of the other address family",
                range.gateway
            ));
        }
        if number(range.start) > number(range.end) {
            return bad(format!(
                "rangeStart {} is after rangeEnd {}",
                range.start, range.end
            ));
        }
        Ok(range)
    }

    /// Whether `ip` may be given from this range, were it not the gateway.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(ip) && (number(self.start)..=number(self.end)).contains(&number(ip))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4()
            && number(self.start) <= number(other.end)
            && number(other.start) <= number(self.end)
    }
}

// === impl RangeSet ===

impl RangeSet {
    /// Checks a set.
    ///
    /// # Errors
    /// Code 7 when it is empty, mixes families or overlaps itself.
    pub fn new(raw: &[RawRange]) -> Result<Self, Error> {
        let ranges = raw
            .iter()
            .map(Range::new)
            .collect::<Result<Vec<Range>, Error>>()?;
        let Some(first) = ranges.first() else {
            return Err(Error::config(
                "ipam: a set of ranges is empty; give at least one range",
            ));
        };
        if ranges
            .iter()
            .any(|range| range.subnet.is_ipv4() != first.subnet.is_ipv4())
        {
            let msg = "ipam: a set of ranges mixes IPv4 and IPv6; make two sets";
            return Err(Error::config(msg));
        }
        let set = Self { ranges };
        set.check_overlaps()?;
        Ok(set)
    }

    fn check_overlaps(&self) -> Result<(), Error> {
        for (at, range) in self.ranges.iter().enumerate() {
            disjoint(range, &self.ranges[at + 1..])?;
        }
        Ok(())
    }

    /// Refuses a set that overlaps this one.
    ///
    /// # Errors
    /// Code 7 naming both subnets.
    pub fn check_disjoint(&self, other: &Self) -> Result<(), Error> {
        self.ranges
            .iter()
            .try_for_each(|range| disjoint(range, &other.ranges))
    }

    /// The ranges in order.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The range that `ip` is in.
    #[must_use]
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(ip))
    }

    /// The ranges as text.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self
            .ranges
            .iter()
            .map(|range| format!("{}-{}", range.start, range.end));
        shown.collect::<Vec<_>>().join(", ")
    }
}

fn disjoint(range: &Range, others: &[Range]) -> Result<(), Error> {
    match others.iter().find(|other| range.overlaps(other)) {
        Some(other) => {
            let (a, b) = (range.subnet, other.subnet);
            let msg = format!("ipam: ranges of subnets {a} and {b} overlap; separate them");
            Err(Error::config(msg))
        }
        None => Ok(()),
    }
}

/// An address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// A number as an address.
pub(crate) fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into())
    } else {
        IpAddr::V6(number.into())
    }
}

fn last_address(subnet: IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(v4) => v4.broadcast().into(),
        IpNetwork::V6(v6) => v6.broadcast().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(subnet: &str) -> RawRange {
        RawRange {
            subnet: Some(subnet.parse().unwrap()),
            ..RawRange::default()
        }
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let shown = |subnet: &str| {
            let range = Range::new(&raw(subnet)).unwrap();
            format!("{} {} {}", range.start, range.end, range.gateway)
        };
        assert_eq!(shown("10.1.0.0/24"), "10.1.0.1 10.1.0.254 10.1.0.1");
        assert_eq!(
            shown("fd00::/64"),
            "fd00::1 fd00::ffff:ffff:ffff:ffff fd00::1"
        );
        assert_eq!(shown("10.1.0.0/30"), "10.1.0.1 10.1.0.2 10.1.0.1");
    }

    #[test]
    fn impossible_ranges_are_refused_with_a_reason() {
        let refusal = |raw: &[RawRange]| RangeSet::new(raw).unwrap_err().msg;
        assert_eq!(
            refusal(&[raw("10.1.0.0/31")]),
            "ipam: subnet 10.1.0.0/31: is too small; give a prefix of /30 or shorter"
        );
        assert_eq!(
            refusal(&[raw("10.1.0.5/24")]),
            "ipam: subnet 10.1.0.5/24: has host bits; write 10.1.0.0/24"
        );
        assert_eq!(
            refusal(&[raw("10.1.0.0/16"), raw("10.1.2.0/24")]),
            "ipam: ranges of subnets 10.1.0.0/16 and 10.1.2.0/24 overlap; separate them"
        );
        assert_eq!(
            refusal(&[raw("10.1.0.0/24"), raw("fd00::/64")]),
            "ipam: a set of ranges mixes IPv4 and IPv6; make two sets"
        );
        let start = Some("10.2.0.1".parse().unwrap());
        assert_eq!(
            refusal(&[RawRange {
                range_start: start,
                ..raw("10.1.0.0/24")
            }]),
            "ipam: subnet 10.1.0.0/24: rangeStart 10.2.0.1 is outside; give an address within"
        );
    }
}
