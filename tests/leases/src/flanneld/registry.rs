//! What flanneld asks of etcd: its requests, one for one.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, WatchOptions,
    WatchStream,
};
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::time::Instant;

/// The subnets of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnets {
    /// IPv4, always there.
    pub v4: Ipv4Network,
    /// IPv6 of a dual-stack lease.
    pub v6: Option<Ipv6Network>,
}

/// A lease as flanneld has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlannelLease {
    /// Its name.
    pub subnets: Subnets,
    /// Whose it is.
    pub public_ip: Ipv4Addr,
    /// Its whole value.
    pub value: String,
    /// When it ends.
    pub expires: Option<Instant>,
}

/// A connection to etcd.
pub(super) struct Registry {
    pub(super) client: Client,
    pub(super) prefix: String,
}

// === impl Subnets ===

impl Subnets {
    /// The name of its key.
    #[must_use]
    pub fn key(&self) -> String {
        let v4 = format!("{}-{}", self.v4.ip(), self.v4.prefix());
        match self.v6 {
            Some(v6) => format!("{v4}&{}-{}", v6.ip(), v6.prefix()),
            None => v4,
        }
    }
}

// === impl Registry ===

impl Registry {
    /// `getSubnets`: one request for the list and one more for each lease; what cannot be read is
    /// left out.
    pub(super) async fn leases(&mut self) -> Result<(Vec<FlannelLease>, i64)> {
        let options = GetOptions::new().with_prefix();
        let name = format!("{}/subnets", self.prefix);
        let found = self.client.get(name, Some(options)).await?;
        let mut leases = Vec::new();
        for pair in found.kvs() {
            leases.extend(self.lease(pair).await.ok());
        }
        let revision = found.header().context("no header")?.revision();
        Ok((leases, revision))
    }

    /// `parseSubnetWatchResponse`, and `kvToIPLease`.
    pub(super) async fn lease(&mut self, pair: &KeyValue) -> Result<FlannelLease> {
        let subnets = parse_key(pair.key()).context("not a subnet")?;
        let value: serde_json::Value = serde_json::from_slice(pair.value())?;
        let public_ip = value.get("PublicIP").and_then(serde_json::Value::as_str);
        let public_ip = public_ip.context("no PublicIP")?.parse()?;
        let asked = self.client.lease_time_to_live(pair.lease(), None).await?;
        // Of no lease at all etcd says -1.
        let ttl = asked.ttl();
        let expires = (ttl != 0).then(|| {
            let now = Instant::now();
            match u64::try_from(ttl) {
                Ok(ttl) => now + Duration::from_secs(ttl),
                Err(_) => now,
            }
        });
        Ok(FlannelLease {
            subnets,
            public_ip,
            value: String::from_utf8(pair.value().to_vec())?,
            expires,
        })
    }

    /// `createSubnet`.
    pub(super) async fn create(&mut self, subnets: &Subnets, value: &str, ttl: i64) -> Result<()> {
        let name = self.name(&subnets.key());
        let granted = self.client.lease_grant(ttl, None).await?.id();
        let options = PutOptions::new().with_lease(granted);
        let txn = Txn::new()
            .when([Compare::version(name.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(name, value, Some(options))]);
        if !self.client.txn(txn).await?.succeeded() {
            self.client.lease_revoke(granted).await?;
            bail!("subnet already exists");
        }
        Ok(())
    }

    /// `updateSubnet`: a new etcd lease each time; the old one is left to expire.
    pub(super) async fn update(&mut self, subnets: &Subnets, value: &str, ttl: i64) -> Result<()> {
        let granted = self.client.lease_grant(ttl, None).await?.id();
        let options = PutOptions::new().with_lease(granted);
        let name = self.name(&subnets.key());
        self.client.put(name, value, Some(options)).await?;
        Ok(())
    }

    /// `deleteSubnet`.
    pub(super) async fn delete(&mut self, subnets: &Subnets) -> Result<()> {
        let name = self.name(&subnets.key());
        self.client.delete(name, None).await?;
        Ok(())
    }

    /// `watchSubnets`, and `watchSubnet` of a name.
    pub(super) async fn watch(&mut self, name: &str, since: i64) -> Result<WatchStream> {
        let options = WatchOptions::new().with_prefix().with_start_revision(since);
        let name = match name {
            "" => format!("{}/subnets", self.prefix),
            name => self.name(name),
        };
        Ok(self.client.watch(name, Some(options)).await?)
    }

    fn name(&self, key: &str) -> String {
        format!("{}/subnets/{key}", self.prefix)
    }
}

/// `ParseSubnetKey`: what the key ends with counts.
pub(super) fn parse_key(key: &[u8]) -> Option<Subnets> {
    let text = std::str::from_utf8(key).ok()?;
    let name = text.rsplit('/').next()?;
    let (v4, v6) = match name.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (name, None),
    };
    let (ip, len) = v4.rsplit_once('-')?;
    let v4 = Ipv4Network::new(ip.parse().ok()?, len.parse().ok()?).ok()?;
    let v6 = match v6 {
        None => None,
        Some(v6) => {
            let (ip, len) = v6.rsplit_once('-')?;
            let ip: Ipv6Addr = ip.parse().ok()?;
            Some(Ipv6Network::new(ip, len.parse().ok()?).ok()?)
        }
    };
    Some(Subnets { v4, v6 })
}
