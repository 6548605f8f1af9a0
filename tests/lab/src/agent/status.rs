//! What a pod's status says, computed from its object and what the node agent knows. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is known of a pod on this node.
#[derive(Debug, Clone)]
pub struct PodFacts {
    /// Whether the sandbox and its network stand.
    pub sandbox_ready: bool,
    /// Why the sandbox could not be made at the last attempt.
    pub sandbox_error: Option<String>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's address.
    pub host_ip: IpAddr,
    /// When the node agent first saw the pod.
    pub start_time: Timestamp,
    /// Init containers, in order.
    pub init: Vec<ContainerFacts>,
    /// Containers, in order.
    pub main: Vec<ContainerFacts>,
}

/// What is known of a container.
#[derive(Debug, Clone)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Its image as the pod names it.
    pub image: String,
    /// Id of the newest run.
    pub id: Option<String>,
    /// What it does now.
    pub state: State,
    /// How the run before ended.
    pub last: Option<Ended>,
    /// Runs before the newest.
    pub restarts: i32,
    /// Passes its readiness probe.
    pub ready: bool,
    /// Has passed its startup probe.
    pub started: bool,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not running, with a CamelCase reason and a message.
    Waiting(String, String),
    /// Running since.
    Running(Timestamp),
    /// Ended for good.
    Ended(Ended),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Id of the run.
    pub id: String,
}

/// The pod's status at `now`; transition times are kept from the status in `pod` where nothing changed.
pub fn compute(pod: &Pod, facts: &PodFacts, now: Timestamp) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let generation = pod.metadata.generation;
    let phase = phase(pod, facts);
    let over = phase == "Succeeded" || phase == "Failed";
    let initialized = facts.init.iter().all(succeeded);
    let ready = !over && facts.sandbox_ready && facts.main.iter().all(|c| c.ready);
    let not_ready = || {
        let names = facts
            .main
            .iter()
            .filter(|c| !c.ready)
            .map(|c| c.name.as_str());
        format!(
            "containers with unready status: [{}]",
            names.collect::<Vec<_>>().join(" ")
        )
    };
    let reason = if over {
        "PodCompleted"
    } else {
        "ContainersNotReady"
    };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let mut set = |kind: &str, is: bool, reason: &str, message: String| {
        set_condition(&mut conditions, kind, is, reason, message, generation, now);
    };
    let sandbox_error = facts.sandbox_error.clone().unwrap_or_default();
    set(
        "PodReadyToStartContainers",
        facts.sandbox_ready,
        "SandboxNotReady",
        sandbox_error,
    );
    set(
        "Initialized",
        initialized,
        "ContainersNotInitialized",
        String::new(),
    );
    set("ContainersReady", ready, reason, not_ready());
    set("Ready", ready, reason, not_ready());
    let ips = facts
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        host_ip: Some(facts.host_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: facts.host_ip.to_string(),
        }]),
        pod_ip: ips.first().cloned().or(before.pod_ip),
        pod_ips: match ips.is_empty() {
            true => before.pod_ips,
            false => Some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        },
        start_time: before.start_time.or(Some(Time(facts.start_time))),
        observed_generation: generation,
        qos_class: before.qos_class,
        init_container_statuses: statuses(&facts.init),
        container_statuses: statuses(&facts.main),
        ..PodStatus::default()
    }
}

/// Whether a container that ended so is to run again.
pub fn restarts(policy: &str, init: bool, code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => !init || code != 0,
    }
}

fn succeeded(container: &ContainerFacts) -> bool {
    matches!(&container.state, State::Ended(ended) if ended.code == 0)
}

fn phase(pod: &Pod, facts: &PodFacts) -> &'static str {
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    let policy = policy.unwrap_or("Always");
    let failed = |c: &ContainerFacts| matches!(&c.state, State::Ended(ended) if ended.code != 0);
    if facts
        .init
        .iter()
        .any(|c| failed(c) && !restarts(policy, true, 1))
    {
        return "Failed";
    }
    if !facts.init.iter().all(succeeded) {
        return "Pending";
    }
    let never_ran = |c: &ContainerFacts| matches!(c.state, State::Waiting(..)) && c.last.is_none();
    if facts.main.iter().any(never_ran) {
        return "Pending";
    }
    if facts
        .main
        .iter()
        .any(|c| !matches!(c.state, State::Ended(_)))
    {
        return "Running";
    }
    if facts.main.iter().any(failed) {
        "Failed"
    } else {
        "Succeeded"
    }
}

fn set_condition(
    conditions: &mut Vec<PodCondition>,
    kind: &str,
    is: bool,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if is { "True" } else { "False" };
    let old = conditions
        .iter()
        .position(|condition| condition.type_ == kind);
    let since = old
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let fresh = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!is).then(|| reason.to_owned()),
        message: (!is && !message.is_empty()).then_some(message),
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: generation,
        ..PodCondition::default()
    };
    match old {
        Some(at) => conditions[at] = fresh,
        None => conditions.push(fresh),
    }
}

fn statuses(containers: &[ContainerFacts]) -> Option<Vec<ContainerStatus>> {
    (!containers.is_empty()).then(|| containers.iter().map(container_status).collect())
}

fn container_status(facts: &ContainerFacts) -> ContainerStatus {
    ContainerStatus {
        name: facts.name.clone(),
        image: facts.image.clone(),
        image_id: facts.image.clone(),
        container_id: facts.id.as_ref().map(|id| format!("towline://{id}")),
        state: Some(state(&facts.state)),
        last_state: facts
            .last
            .as_ref()
            .map(|ended| state(&State::Ended(ended.clone()))),
        ready: facts.ready,
        started: Some(facts.started),
        restart_count: facts.restarts,
        ..ContainerStatus::default()
    }
}

fn state(state: &State) -> ContainerState {
    let mut out = ContainerState::default();
    match state {
        State::Waiting(reason, message) => {
            out.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: (!message.is_empty()).then(|| message.clone()),
            });
        }
        State::Running(since) => {
            out.running = Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            });
        }
        State::Ended(ended) => {
            out.terminated = Some(ContainerStateTerminated {
                exit_code: ended.code,
                signal: ended.signal,
                reason: Some(
                    if ended.code == 0 {
                        "Completed"
                    } else {
                        "Error"
                    }
                    .to_owned(),
                ),
                started_at: Some(Time(ended.started_at)),
                finished_at: Some(Time(ended.finished_at)),
                container_id: Some(format!("towline://{}", ended.id)),
                message: None,
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{from_value, json, to_value};
    use pretty_assertions::assert_eq;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(state: State, ready: bool) -> PodFacts {
        PodFacts {
            sandbox_ready: true,
            sandbox_error: None,
            addresses: vec!["10.1.0.5".parse().unwrap()],
            host_ip: "172.30.0.11".parse().unwrap(),
            start_time: at(1),
            init: Vec::new(),
            main: vec![ContainerFacts {
                name: "c".to_owned(),
                image: "agnhost".to_owned(),
                id: Some("ab".to_owned()),
                state,
                last: None,
                restarts: 0,
                ready,
                started: true,
            }],
        }
    }

    fn ended(code: i32) -> State {
        let (started_at, finished_at) = (at(2), at(3));
        State::Ended(Ended {
            code,
            signal: None,
            started_at,
            finished_at,
            id: "ab".to_owned(),
        })
    }

    #[test]
    fn a_running_pod_becomes_ready_and_keeps_what_did_not_change() {
        let mut pod: Pod = from_value(json!({"metadata":{"generation":4},"spec":{"containers":[]},
            "status":{"conditions":[{"type":"PodScheduled","status":"True"}]}}))
        .unwrap();
        let first = compute(&pod, &facts(State::Running(at(2)), false), at(10));
        assert_eq!(first.phase.as_deref(), Some("Running"));
        pod.status = Some(first);
        let second = compute(&pod, &facts(State::Running(at(2)), true), at(20));
        assert_eq!(
            to_value(&second).unwrap(),
            json!({
                "phase":"Running","podIP":"10.1.0.5","podIPs":[{"ip":"10.1.0.5"}],
                "hostIP":"172.30.0.11","hostIPs":[{"ip":"172.30.0.11"}],
                "startTime":"1970-01-01T00:00:01Z","observedGeneration":4,
                "conditions":[
                    {"type":"PodScheduled","status":"True"},
                    {"type":"PodReadyToStartContainers","status":"True","observedGeneration":4,
                     "lastTransitionTime":"1970-01-01T00:00:10Z"},
                    {"type":"Initialized","status":"True","observedGeneration":4,
                     "lastTransitionTime":"1970-01-01T00:00:10Z"},
                    {"type":"ContainersReady","status":"True","observedGeneration":4,
                     "lastTransitionTime":"1970-01-01T00:00:20Z"},
                    {"type":"Ready","status":"True","observedGeneration":4,
                     "lastTransitionTime":"1970-01-01T00:00:20Z"}],
                "containerStatuses":[{"name":"c","image":"agnhost","imageID":"agnhost",
                    "containerID":"towline://ab","ready":true,"started":true,"restartCount":0,
                    "state":{"running":{"startedAt":"1970-01-01T00:00:02Z"}}}]
            })
        );
    }

    #[test]
    fn the_phase_follows_containers_and_restart_policy() {
        let phase_of = |policy: &str, state: State| {
            let pod: Pod =
                from_value(json!({"metadata":{},"spec":{"containers":[],"restartPolicy":policy}}))
                    .unwrap();
            compute(&pod, &facts(state, false), at(9)).phase.unwrap()
        };
        let waiting = || State::Waiting("ContainerCreating".to_owned(), String::new());
        assert_eq!(phase_of("Always", waiting()), "Pending");
        assert_eq!(phase_of("Never", ended(0)), "Succeeded");
        assert_eq!(phase_of("Never", ended(1)), "Failed");
        assert!(restarts("Always", false, 0));
        assert!(!restarts("Always", true, 0));
        assert!(restarts("OnFailure", false, 1));
        assert!(!restarts("OnFailure", false, 0));
    }
}
