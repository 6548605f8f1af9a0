//! Traffic that goes on while the cluster is changed, and what has become of it: pings with numbers,
//! and connections over which something is exchanged all the time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::pings::{self, Pinger};
use crate::streams::{self, Stream};

/// A flow ends no sooner than after so many exchanges.
pub(crate) const AT_LEAST: u32 = 20;

/// Whom somebody talks to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
}

/// What has become of a flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) name: String,
    pub(crate) sent: u32,
    /// Pings without an answer; or why a connection broke.
    pub(crate) lost: Vec<String>,
    /// The longest wait for an answer.
    pub(crate) slowest: Duration,
}

/// Traffic under way.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Flow>>>,
}

// === impl Flow ===

impl Flow {
    /// What has become of it later.
    pub(crate) fn add(&mut self, later: Self) {
        self.sent = later.sent;
        self.lost.extend(later.lost);
        self.slowest = self.slowest.max(later.slowest);
    }
}

// === impl Target ===

impl Target {
    pub(crate) fn new(name: &str, ip: &str) -> Self {
        Self {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
        }
    }
}

// === impl Traffic ===

impl Traffic {
    /// From every pod to all others, to all nodes and outside, and from every node to the other
    /// nodes' pods. All of it has gone through once before this returns.
    #[track_caller]
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let servers = cluster.nodes.iter().map(|node| &node.pod().place);
        for place in servers.chain([&cluster.outside]) {
            streams::serve(place);
        }
        for node in &cluster.nodes {
            let (number, pod) = (node.number, node.pod());
            let of_pod = Pinger::new(&pod.place, format!("pod{number}"), cluster.of_pod(number));
            let of_node = Pinger::new(
                &node.place,
                format!("node{number}"),
                cluster.of_node(number),
            );
            for mut pinger in [of_pod, of_node] {
                pinger.all_answer();
                let stop = stop.clone();
                threads.push(std::thread::spawn(move || pinger.run(&stop)));
            }
            for (name, place, targets) in [
                (
                    format!("pod{number} anew"),
                    &pod.place,
                    cluster.of_pod(number),
                ),
                (
                    format!("node{number} anew"),
                    &node.place,
                    cluster.of_node(number),
                ),
            ] {
                let (place, stop) = (place.another(), stop.clone());
                let run = move || pings::anew(&place, &name, &targets, &stop);
                threads.push(std::thread::spawn(run));
            }
            let is_served = |target: &Target| !target.name.starts_with("node");
            for target in cluster.of_pod(number).into_iter().filter(is_served) {
                let stream = Stream::connect(&pod.place, &format!("pod{number}"), &target);
                let stop = stop.clone();
                threads.push(std::thread::spawn(move || vec![stream.run(&stop)]));
            }
        }
        Self { stop, threads }
    }

    /// Ends it, and returns what was harmed.
    pub(crate) fn stop(self) -> Vec<Flow> {
        self.stop.store(true, Ordering::Relaxed);
        let flows = self.threads.into_iter();
        let flows = flows.flat_map(|thread| thread.join().unwrap());
        let mut flows: Vec<Flow> = flows.collect();
        let sent: u32 = flows.iter().map(|flow| flow.sent).sum();
        let slowest = flows.iter().max_by_key(|flow| flow.slowest).unwrap();
        println!(
            "{} flows, {sent} exchanges, slowest {:?} ({})",
            flows.len(),
            slowest.slowest,
            slowest.name
        );
        flows.retain(|flow| !flow.lost.is_empty());
        flows
    }

    /// Ends it; every single ping must have been answered, and every connection must be whole.
    #[track_caller]
    pub(crate) fn must_be_unharmed(self) {
        let harmed = self.stop();
        assert!(harmed.is_empty(), "{harmed:#?}");
    }
}
