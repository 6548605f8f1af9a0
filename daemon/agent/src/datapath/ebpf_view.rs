//! The eBPF data path as the API shows it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use desired::cluster::Cluster;
use desired::policy::PolicyTables;
use ebpf_shared::conntrack::{CT_CLOSED, CT_FROM_REMOTE, CT_REPLIED, CT_SERVICE, CT_TRANSLATED};
use ebpf_shared::policy::INGRESS;
use loader::Flow;

use super::ebpf::Ebpf;
use super::view::{CounterView, Difference, FlowView, KernelView, MapView, differences};
use crate::admin::{Namer, protocol_name};

impl KernelView for Ebpf {
    fn flows(&self, cluster: &Cluster) -> anyhow::Result<Vec<FlowView>> {
        let namer = Namer::new(Arc::new(cluster.clone()));
        let policy = self.policy_tables.borrow().clone();
        let now = loader::monotonic_ns();
        let flows = self.maps.conntrack()?.flows()?;
        let main = flows.iter().filter(|flow| flow.value.kind != CT_SERVICE);
        Ok(main
            .map(|flow| flow_view(flow, &namer, &policy, now))
            .collect())
    }

    fn maps(&self) -> anyhow::Result<Vec<MapView>> {
        let usage = self.maps.usage()?;
        let views = usage.into_iter().map(|map| MapView {
            name: map.name.to_owned(),
            kind: map.kind.name().to_owned(),
            entries: map.entries.map(u64::from),
            capacity: map.capacity.into(),
        });
        Ok(views.collect())
    }

    fn counters(&self) -> anyhow::Result<Vec<CounterView>> {
        let counts = self.maps.counters()?.all()?;
        let views = counts.into_iter().map(|count| CounterView {
            direction: if count.direction == INGRESS {
                "ingress"
            } else {
                "egress"
            },
            reason: count.reason.name(),
            drop: count.reason.is_drop(),
            packets: count.total.packets,
            bytes: count.total.bytes,
        });
        Ok(views.filter(|view| view.packets > 0).collect())
    }

    fn differences(&self) -> anyhow::Result<Vec<Difference>> {
        let mut all = Vec::new();
        let mut kernel = self.maps.tables()?;
        let services = self.service_tables.borrow().clone();
        let policy = self.policy_tables.borrow().clone();
        let mut add = |found: anyhow::Result<Vec<Difference>>| found.map(|found| all.extend(found));
        add(differences(
            "backend-v4",
            &mut kernel.backends4,
            &services.v4.backends,
        ))?;
        add(differences(
            "slot-v4",
            &mut kernel.slots4,
            &services.v4.slots,
        ))?;
        add(differences(
            "frontend-v4",
            &mut kernel.frontends4,
            &services.v4.frontends,
        ))?;
        add(differences(
            "backend-v6",
            &mut kernel.backends6,
            &services.v6.backends,
        ))?;
        add(differences(
            "slot-v6",
            &mut kernel.slots6,
            &services.v6.slots,
        ))?;
        add(differences(
            "frontend-v6",
            &mut kernel.frontends6,
            &services.v6.frontends,
        ))?;
        add(differences(
            "verdict",
            &mut kernel.verdicts,
            &policy.verdicts,
        ))?;
        add(differences(
            "class-v4",
            &mut kernel.classes4,
            &policy.v4.classes,
        ))?;
        add(differences(
            "cidr-class-v4",
            &mut kernel.cidr_classes4,
            &policy.v4.cidr_classes,
        ))?;
        add(differences(
            "class-v6",
            &mut kernel.classes6,
            &policy.v6.classes,
        ))?;
        add(differences(
            "cidr-class-v6",
            &mut kernel.cidr_classes6,
            &policy.v6.cidr_classes,
        ))?;
        add(differences(
            "pod-netns",
            &mut kernel.pod_netns,
            &policy.pod_netns,
        ))?;
        add(differences("pod", &mut kernel.pods, &policy.pods))?;
        Ok(all)
    }
}

fn flow_view(flow: &Flow, namer: &Namer, policy: &PolicyTables, now_ns: u64) -> FlowView {
    let (key, value) = (&flow.key, &flow.value);
    let side = |address: [u8; 4], port: [u8; 2]| {
        SocketAddr::new(Ipv4Addr::from(address).into(), u16::from_be_bytes(port)).to_string()
    };
    let state = match value.flags {
        flags if flags & CT_CLOSED != 0 => "closed",
        flags if flags & CT_REPLIED != 0 => "established",
        _ => "new",
    };
    let remote = IpAddr::V4(Ipv4Addr::from(key.remote));
    FlowView {
        pod: namer.pod_of_device(key.zone),
        direction: if value.flags & CT_FROM_REMOTE != 0 {
            "in"
        } else {
            "out"
        },
        protocol: protocol_name(key.proto),
        pod_side: side(key.pod, key.pod_port),
        remote_side: side(key.remote, key.remote_port),
        remote_name: namer.pod_at(remote),
        via: (value.kind == CT_TRANSLATED).then(|| side(value.nat_addr, value.nat_port)),
        state,
        rule: policy.rules.get(&value.rule).map(ToString::to_string),
        idle_seconds: now_ns.saturating_sub(value.last_ns) / 1_000_000_000,
    }
}
