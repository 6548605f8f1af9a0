//! Masquerade and forwarding of pod traffic, and rejection of what has no backend: in nftables, or
//! in chains of our own in iptables; and what is left of flanneld's rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use desired::cluster::{Cluster, Leases};
use desired::masquerade::{
    FORWARD_CHAIN, Options, POSTROUTING_CHAIN, TABLE, iptables, masquerade, refusals,
};
use hostnet::iptables::IptablesTarget;
use hostnet::{ErrorKind, NftTarget, Nftables};
use netstate::iptables::Owned;
use netstate::nft::{Family, Table};
use netstate::{Failure, Kept, Report, Target as _, Wanted, reconcile};

use super::run::{Pass, Reconciler, merge};
use super::succession::Succession;
use crate::config::{Config, Datapath, MasqueradeBackend, OverlayOptions};
use crate::datapath::{Difference, differences};

/// Name of the loop.
pub const NAME: &str = "masquerade";

/// What the loop is to keep.
#[derive(Clone, Debug, Default)]
pub struct MasqueradeSettings {
    /// What the settings say of rules.
    pub options: OverlayOptions,
    /// Whether there is a data path that marks packets to be rejected, which nftables does with
    /// either backend.
    pub refusals: bool,
    /// Where this daemon itself answers, so that it does not take itself for flanneld.
    pub healthz: Vec<SocketAddr>,
}

/// The loop that keeps `inet towline`, or our chains in iptables.
pub struct MasqueradeLoop {
    nftables: Kept<NftTarget>,
    chains: Vec<Chains>,
    succession: Succession,
    rules: Options,
    backend: MasqueradeBackend,
    /// Whether the data path marks packets to be rejected.
    refusals: bool,
    /// Nothing of an earlier run with the other backend is left.
    settled: bool,
    /// This node has had a subnet, so that there may be pods.
    has_had_subnet: bool,
}

/// Our chain in one table of one family.
struct Chains {
    family: Family,
    table: &'static str,
    target: Kept<IptablesTarget>,
}

// === impl MasqueradeSettings ===

impl MasqueradeSettings {
    /// What `config` says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            options: config.overlay,
            refusals: config.datapath == Datapath::Ebpf,
            healthz: config.healthz.clone(),
        }
    }
}

// === impl MasqueradeLoop ===

impl MasqueradeLoop {
    /// Works in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no nftables.
    pub fn open(settings: &MasqueradeSettings) -> hostnet::Result<Self> {
        let tables = [("nat", POSTROUTING_CHAIN), ("filter", FORWARD_CHAIN)];
        let chains = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            tables.map(|(table, chain)| Chains {
                family,
                table,
                target: Kept::new(IptablesTarget::new(family, table, &[chain])),
            })
        });
        Ok(Self {
            nftables: Kept::new(NftTarget::new(Nftables::open()?, TABLE)),
            chains: chains.collect(),
            succession: Succession::open(&settings.healthz)?,
            rules: settings.options.rules,
            backend: settings.options.backend,
            refusals: settings.refusals,
            settled: false,
            has_had_subnet: false,
        })
    }

    fn keep_table(&mut self, table: Option<Table>) -> Report {
        let wanted = table.map(|table| (table.name.clone(), table));
        let wanted = wanted.into_iter().collect();
        let mut nft = Wanted::new("nftables", &mut self.nftables, &wanted);
        reconcile(&mut [&mut nft])
    }

    /// Our chains as `cluster` asks for them.
    fn keep_chains(&mut self, cluster: &Cluster) -> Report {
        let mut report = Report::default();
        for Chains {
            family,
            table,
            target,
        } in &mut self.chains
        {
            let wanted = owned(cluster, &self.rules, *family, table);
            let mut chain = Wanted::new("iptables", target, &wanted);
            merge(&mut report, reconcile(&mut [&mut chain]));
        }
        report
    }

    /// Removes our chains that an earlier run with the other backend left, once. Where there is no
    /// iptables program, there was none to make them.
    fn settle(&mut self) -> Report {
        let mut report = Report::default();
        if self.settled {
            return report;
        }
        for chains in &mut self.chains {
            let found = chains.target.observe().map(|found| !found.is_empty());
            let removed = found.and_then(|there| match there {
                true => chains.target.delete(&chains.table.to_owned()).map(|()| 1),
                false => Ok(0),
            });
            match removed {
                Ok(count) => report.deletes += count,
                Err(error) if error.kind == ErrorKind::Unsupported => {}
                Err(error) => report.errors.push(failure("iptables", &error)),
            }
        }
        self.settled = report.errors.is_empty();
        report
    }

    fn take_over(&mut self) -> Report {
        let mut report = Report::default();
        match self.succession.take_over() {
            // Not drift: nobody had changed what is ours.
            Ok(_) => {}
            Err(error) => report.errors.push(failure("flannel", &error)),
        }
        report
    }
}

fn failure(table: &'static str, error: &hostnet::Error) -> Failure {
    Failure {
        table,
        action: "delete",
        key: String::new(),
        message: error.to_string(),
    }
}

/// What a chain's table is to hold, as the Target takes it.
fn owned(
    cluster: &Cluster,
    rules: &Options,
    family: Family,
    table: &str,
) -> BTreeMap<String, Owned> {
    let tables = iptables(cluster, rules, family);
    let owned = match table {
        "nat" => tables.nat,
        _ => tables.filter,
    };
    match owned.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(table.to_owned(), owned)]),
    }
}

impl MasqueradeLoop {
    /// Where the rules differ from what is wanted, without changing anything.
    ///
    /// # Errors
    /// When the kernel or iptables refuse to tell.
    pub fn differences(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<Difference>> {
        let table = match self.backend {
            MasqueradeBackend::Nftables => Some(masquerade(cluster, &self.rules)),
            MasqueradeBackend::Iptables => self.refusals.then(refusals),
        };
        let table = table.map(|table| (table.name.clone(), table));
        let mut all = differences(
            "nftables",
            self.nftables.inner(),
            &table.into_iter().collect(),
        )?;
        if self.backend == MasqueradeBackend::Iptables {
            for chains in &mut self.chains {
                let wanted = owned(cluster, &self.rules, chains.family, chains.table);
                all.extend(differences("iptables", chains.target.inner(), &wanted)?);
            }
        }
        Ok(all)
    }

    /// Removes all of it, whichever backend made it; the names of what was there.
    ///
    /// # Errors
    /// When the kernel or iptables refuse.
    pub fn remove(&mut self) -> hostnet::Result<Vec<String>> {
        let mut removed = Vec::new();
        for name in self.nftables.observe()?.into_keys() {
            self.nftables.delete(&name)?;
            removed.push(format!("inet {name}"));
        }
        for chains in &mut self.chains {
            match chains.target.observe() {
                Ok(found) if found.is_empty() => {}
                Ok(_) => {
                    chains.target.delete(&chains.table.to_owned())?;
                    removed.push(format!("iptables {:?} {}", chains.family, chains.table));
                }
                // No iptables program made any, then.
                Err(error) if error.kind == ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

impl Reconciler for MasqueradeLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Nodes, leases and this node's addresses are all that rules are computed from.
    fn concerned_by(before: &Cluster, now: &Cluster) -> bool {
        (&before.nodes, &before.leases, &before.this_node)
            != (&now.nodes, &now.leases, &now.this_node)
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report {
        let has_subnet = cluster
            .own_lease()
            .is_some_and(|own| !own.subnets.is_empty());
        if !has_subnet && (self.has_had_subnet || matches!(cluster.leases, Leases::InStore { .. }))
        {
            // Not known yet, or lost: what pods there are go on as they do.
            return Report::default();
        }
        self.has_had_subnet |= has_subnet;
        let mut report = match self.backend {
            MasqueradeBackend::Nftables => {
                let mut report = self.keep_table(Some(masquerade(cluster, &self.rules)));
                merge(&mut report, self.settle());
                report
            }
            MasqueradeBackend::Iptables => {
                let mut report = self.keep_table(self.refusals.then(refusals));
                merge(&mut report, self.keep_chains(cluster));
                report
            }
        };
        if pass.look {
            merge(&mut report, self.take_over());
        }
        report
    }
}
