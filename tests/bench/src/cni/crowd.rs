//! Many containers at once, as when a node starts or is drained.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::cni::Bins;
use crate::cni::figure::{Figure, Samples};
use crate::cni::measure::{add, del};
use crate::cni::node::{Host, Pod};
use crate::cni::rows::Row;

/// Containers at once.
const CROWD: u16 = 50;
const WARM_UP: usize = 1;

/// The time until all containers are through `row`'s chain, in `rounds` rounds.
///
/// # Errors
/// When a plugin fails.
pub(crate) fn row(row: &Row, bins: &Bins, rounds: usize) -> anyhow::Result<[Figure; 2]> {
    let hosts = [
        Host::new("Towline", &bins.ours)?,
        Host::new("reference", &bins.reference)?,
    ];
    let mut crowds = Vec::new();
    for host in &hosts {
        let pods: anyhow::Result<Vec<Pod>> = (0..CROWD).map(|n| host.pod(&n.to_string())).collect();
        crowds.push(pods?);
    }
    let mut samples: [[Samples; 2]; 2] = Default::default();
    for round in 0..WARM_UP + rounds {
        let mut order = [0, 1];
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (host, pods) = (&hosts[at], &crowds[at]);
            let (results, added) = at_once(host, pods, |pod, number| {
                add(host, row.chain, pod, number).map(|(result, _)| result)
            })?;
            let (_, deleted) = at_once(host, pods, |pod, number| {
                del(host, row.chain, pod, number, &results[usize::from(number)])
            })?;
            if round >= WARM_UP {
                samples[at][0].push(added);
                samples[at][1].push(deleted);
            }
        }
    }
    let [ours, reference] = samples;
    Ok([0, 1].map(|at| Figure {
        name: format!("{} {}", row.name, ["ADD", "DEL"][at]),
        ours: ours[at].clone(),
        reference: reference[at].clone(),
        floor: Samples::default(),
        bars: [row.add, row.del][at].to_vec(),
    }))
}

/// Does `work` for every container on a thread of its own, all beginning together; returns what
/// each came to, and the time until the last was done.
fn at_once<T: Send>(
    host: &Host,
    pods: &[Pod],
    work: impl Fn(&Pod, u16) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<(Vec<T>, Duration)> {
    let (begin, work) = (Barrier::new(pods.len() + 1), &work);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (pod, number) in pods.iter().zip(0..) {
            let begin = &begin;
            threads.push(scope.spawn(move || {
                let entered = host.enter();
                begin.wait();
                let _inside = entered?;
                work(pod, number)
            }));
        }
        begin.wait();
        let start = Instant::now();
        let done: Vec<anyhow::Result<T>> = threads
            .into_iter()
            .map(|thread| {
                let panicked = |_| Err(anyhow!("a thread of the benchmark panicked"));
                thread.join().unwrap_or_else(panicked)
            })
            .collect();
        let took = start.elapsed();
        Ok((done.into_iter().collect::<anyhow::Result<_>>()?, took))
    })
}
