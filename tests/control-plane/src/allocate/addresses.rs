//! The pool of Service addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rand::Rng;

/// Addresses looked at before the pool counts as full.
const SCAN: u128 = 1 << 20;

/// Addresses of one range. The lowest ones are left for Services that name their address, as long
/// as there are others: min(max(16, size / 16), 256) of them.
#[derive(Debug)]
pub(super) struct AddressPool {
    range: IpNetwork,
    taken: BTreeSet<IpAddr>,
}

impl AddressPool {
    pub(super) fn new(range: IpNetwork) -> Self {
        Self {
            range,
            taken: BTreeSet::new(),
        }
    }

    /// `IPv4` or `IPv6`.
    pub(super) fn family(&self) -> &'static str {
        if self.range.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    /// The address at an offset from the network address.
    fn at(&self, offset: u128) -> IpAddr {
        let bits = Self::bits(self.range.network()) + offset;
        match self.range {
            IpNetwork::V4(_) => IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into()),
            IpNetwork::V6(_) => IpAddr::V6(bits.into()),
        }
    }

    /// Offsets that can be given out: network and (v4) broadcast address excluded.
    fn offsets(&self) -> std::ops::Range<u128> {
        let width = if self.range.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(width - self.range.prefix());
        let size = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let last = if self.range.is_ipv4() {
            size.saturating_sub(1)
        } else {
            size
        };
        1..last.max(1)
    }

    /// Takes a free address.
    pub(super) fn allocate(&mut self) -> Option<IpAddr> {
        let offsets = self.offsets();
        let size = offsets.end - offsets.start;
        let band = (size / 16).clamp(16, 256).min(size);
        let upper = (offsets.start + band)..offsets.end;
        let lower = offsets.start..(offsets.start + band);
        let address = self.free_in(upper).or_else(|| self.free_in(lower))?;
        self.taken.insert(address);
        Some(address)
    }

    fn free_in(&self, offsets: std::ops::Range<u128>) -> Option<IpAddr> {
        let size = offsets
            .end
            .checked_sub(offsets.start)
            .filter(|size| *size > 0)?;
        let start = rand::rng().random_range(0..size);
        (0..size.min(SCAN))
            .map(|step| self.at(offsets.start + (start + step) % size))
            .find(|address| !self.taken.contains(address))
    }

    /// Takes this address.
    pub(super) fn reserve(&mut self, address: IpAddr) -> Result<(), String> {
        let inside = self.range.contains(address)
            && self
                .offsets()
                .contains(&(Self::bits(address) - Self::bits(self.range.network())));
        if !inside {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.range
            ));
        }
        if !self.taken.insert(address) {
            return Err("provided IP is already allocated".into());
        }
        Ok(())
    }

    /// Takes note of an address in use, wherever it is from.
    pub(super) fn adopt(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    pub(super) fn free(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}
