//! Running the matrix: one line per check as it ends, and the tally.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::workloads::{self, POLICY, SERVERS};
use super::world::{POD_LIMIT, World};
use super::{Check, How, Phase, Prepare, ask, leased, lifecycle, underlay};

/// How one check ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The check's name.
    pub name: String,
    /// What was seen, or what went wrong.
    pub result: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// The line `ok|FAIL  name  detail  ms`.
    pub fn line(&self) -> String {
        let (verdict, detail) = match &self.result {
            Ok(detail) => ("ok", detail),
            Err(why) => ("FAIL", why),
        };
        // An error may hold a whole log; the line takes one.
        let detail = detail.lines().next().unwrap_or_default();
        format!(
            "{verdict:<4}  {:<56}  {detail}  {} ms",
            self.name,
            self.took.as_millis()
        )
    }
}

/// All outcomes of a run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// In the order of the plan.
    pub outcomes: Vec<Outcome>,
}

impl Tally {
    /// Checks that failed.
    pub fn failed(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.result.is_err())
            .count()
    }

    /// The line `N passed, N failed`.
    pub fn summary(&self) -> String {
        let failed = self.failed();
        format!("{} passed, {failed} failed", self.outcomes.len() - failed)
    }
}

/// Runs all phases, telling each outcome to `tell` as it comes.
pub async fn run(world: &mut World, plan: &[Phase], mut tell: impl FnMut(&Outcome)) -> Tally {
    let mut tally = Tally::default();
    for phase in plan {
        let prepared = prepare(world, &phase.prepare)
            .await
            .map_err(|e| format!("not prepared: {e:#}"));
        for check in &phase.checks {
            let start = Instant::now();
            let result = match &prepared {
                Ok(()) => one(world, check)
                    .await
                    .map_err(|error| format!("{error:#}")),
                Err(why) => Err(why.clone()),
            };
            let outcome = Outcome {
                name: check.name.clone(),
                result,
                took: start.elapsed(),
            };
            tell(&outcome);
            tally.outcomes.push(outcome);
        }
    }
    tally
}

async fn one(world: &mut World, check: &Check) -> Result<String> {
    match &check.how {
        How::Ask(question, expect) => ask::check(world, question, expect).await,
        How::Carried(from, to) => underlay::check(world, *from, *to).await,
        How::Leased => leased::check(world).await,
        How::Restart => lifecycle::restart(world).await,
        How::Reuse => lifecycle::reuse(world).await,
    }
}

async fn prepare(world: &mut World, prepare: &Prepare) -> Result<()> {
    match prepare {
        Prepare::Nothing => Ok(()),
        Prepare::Workloads => {
            world.start_outside()?;
            let objects = workloads::objects();
            for object in &objects {
                world.kubernetes.apply(object.clone()).await?;
            }
            let text = |object: &serde_json::Value, key: &str| {
                object["metadata"][key]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            for pod in objects.iter().filter(|object| object["kind"] == "Pod") {
                let (namespace, name) = (text(pod, "namespace"), text(pod, "name"));
                world
                    .kubernetes
                    .wait_ready(&namespace, &name, POD_LIMIT)
                    .await?;
            }
            let servers = SERVERS.len();
            world
                .kubernetes
                .wait_endpoints(workloads::DEMO, "server", servers, POD_LIMIT)
                .await?;
            world
                .kubernetes
                .wait_endpoints(POLICY, "target", 1, POD_LIMIT)
                .await
        }
        Prepare::Policies(text) => world.kubernetes.apply_yaml(text).await,
        Prepare::RemovePolicies(names) => {
            for name in *names {
                let delete =
                    world
                        .kubernetes
                        .delete("networking.k8s.io/v1", "NetworkPolicy", POLICY, name);
                delete.await.context("remove the policy")?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let outcome = |result| Outcome {
            name: "n".into(),
            result,
            took: Duration::from_millis(7),
        };
        let tally = Tally {
            outcomes: vec![outcome(Ok("fine".into())), outcome(Err("bad\nlog".into()))],
        };
        assert_eq!(tally.summary(), "1 passed, 1 failed");
        let lines = tally.outcomes.iter().map(Outcome::line).collect::<Vec<_>>();
        assert_eq!(lines[0], format!("ok    {:<56}  fine  7 ms", "n"));
        assert_eq!(lines[1], format!("FAIL  {:<56}  bad  7 ms", "n"));
    }
}
