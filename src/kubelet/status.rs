//! The status of a pod out of what was observed and remembered, in Kubernetes' words. Pure.
//!
//! Invariants: a phase never goes back from Succeeded or Failed; conditions that others own are kept; a condition's transition time
//! moves only when its status does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{self, ImageState, Memory, Order};
use crate::podspec;
use crate::runtime::{Container, State, label};

/// What the probes of running containers say, by container id.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    pub ready: BTreeSet<String>,
    pub started: BTreeSet<String>,
}

pub struct Seen<'a> {
    pub pod: &'a core::Pod,
    pub order: Order,
    pub containers: &'a [Container],
    pub memory: &'a Memory,
    pub verdicts: &'a Verdicts,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// Registry digests by image id.
    pub digests: &'a BTreeMap<String, String>,
    pub previous: Option<&'a core::PodStatus>,
    pub pod_ip: Option<String>,
    pub host_ip: String,
    pub now: Timestamp,
}

pub fn status(seen: &Seen<'_>) -> core::PodStatus {
    let containers = seen.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let newest = plan::latest(seen.containers);
    let statuses: Vec<core::ContainerStatus> = containers
        .iter()
        .map(|wanted| container_status(seen, wanted, newest.get(wanted.name.as_str()).copied()))
        .collect();
    let phase = phase(seen, &statuses);
    let sandbox_runs = newest.get(label::SANDBOX).is_some_and(|sandbox| sandbox.state == State::Running);
    let ip = seen.pod_ip.clone().filter(|_| sandbox_runs || newest.contains_key(label::SANDBOX));
    let generation = seen.pod.metadata.generation;
    let start = seen.previous.and_then(|old| old.start_time.clone()).unwrap_or_else(|| Time(whole_seconds(seen.now)));
    core::PodStatus {
        conditions: Some(conditions(seen, &statuses, &phase, sandbox_runs)),
        container_statuses: Some(statuses),
        host_ip: Some(seen.host_ip.clone()),
        host_ips: Some(vec![core::HostIP { ip: seen.host_ip.clone() }]),
        pod_ips: ip.clone().map(|ip| vec![core::PodIP { ip }]),
        pod_ip: ip,
        observed_generation: generation,
        phase: Some(phase),
        qos_class: Some(podspec::qos_class(seen.pod).to_owned()),
        start_time: Some(start),
        ..Default::default()
    }
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn time(at: Option<Timestamp>) -> Option<Time> {
    at.map(|at| Time(whole_seconds(at)))
}

fn ended_badly(status: &core::ContainerStatus) -> bool {
    status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_none_or(|end| end.exit_code != 0)
}

fn phase(seen: &Seen<'_>, statuses: &[core::ContainerStatus]) -> String {
    let old = seen.previous.and_then(|old| old.phase.as_deref());
    if let Some(end @ ("Succeeded" | "Failed")) = old {
        return end.to_owned();
    }
    let policy = plan::restart_policy(seen.pod);
    let newest = plan::latest(seen.containers);
    let stopping = seen.order != Order::Run;
    let ended = !statuses.is_empty()
        && statuses.iter().all(|status| {
            newest
                .get(status.name.as_str())
                .is_some_and(|c| c.state == State::Exited && (stopping || !plan::restarts(policy, c)))
        });
    if ended {
        let failed = statuses.iter().any(ended_badly);
        return if failed { "Failed" } else { "Succeeded" }.to_owned();
    }
    if stopping {
        // Its containers go one after the other; what it was stays until all have ended.
        return old.unwrap_or("Pending").to_owned();
    }
    let never_ran = statuses.iter().any(|status| {
        let name = status.name.as_str();
        !newest.contains_key(name) && !seen.memory.attempts.contains_key(name)
    });
    if never_ran { "Pending" } else { "Running" }.to_owned()
}

fn container_status(seen: &Seen<'_>, wanted: &core::Container, present: Option<&Container>) -> core::ContainerStatus {
    let image = wanted.image.clone().unwrap_or_default();
    let mut status = core::ContainerStatus {
        name: wanted.name.clone(),
        image: image.clone(),
        started: Some(false),
        ..Default::default()
    };
    let waiting = waiting(seen, wanted);
    let Some(present) = present else {
        let attempts = seen.memory.attempts.get(&wanted.name).copied().unwrap_or(0);
        status.restart_count = i32::try_from(attempts).unwrap_or(i32::MAX);
        let (reason, message) = waiting.unwrap_or(("ContainerCreating".to_owned(), String::new()));
        status.state = Some(waiting_state(&reason, &message));
        return status;
    };
    let name = wanted.name.as_str();
    let before =
        seen.containers.iter().filter(|c| c.label(label::CONTAINER) == name && c.attempt() < present.attempt());
    let before = before.max_by_key(|c| c.attempt());
    status.restart_count = i32::try_from(present.attempt()).unwrap_or(i32::MAX);
    status.container_id = Some(format!("docker://{}", present.id));
    status.image.clone_from(&present.image);
    status.image_id = match seen.digests.get(&present.image_id) {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{}", present.image_id),
    };
    status.last_state = before.filter(|c| c.state == State::Exited).map(|c| terminated(seen, c));
    match present.state {
        State::Running => {
            status.state = Some(core::ContainerState {
                running: Some(core::ContainerStateRunning { started_at: time(present.started) }),
                ..Default::default()
            });
            status.ready = seen.verdicts.ready.contains(&present.id);
            status.started = Some(seen.verdicts.started.contains(&present.id));
        }
        State::Created => status.state = Some(waiting_state("ContainerCreating", "")),
        State::Exited => {
            let again = seen.order == Order::Run
                && !seen.memory.finished
                && plan::restarts(plan::restart_policy(seen.pod), present);
            let (at, wait, _) = plan::back_off(present);
            let crash = again && wait > 0 && at > seen.now;
            let reason = if crash {
                Some((
                    "CrashLoopBackOff".to_owned(),
                    format!(
                        "back-off {} restarting failed container={name} pod={}_{}({})",
                        duration(wait),
                        podspec::name(seen.pod),
                        podspec::namespace(seen.pod),
                        podspec::uid(seen.pod)
                    ),
                ))
            } else if again {
                waiting
            } else {
                None
            };
            match reason {
                Some((reason, message)) => {
                    status.last_state = Some(terminated(seen, present));
                    status.state = Some(waiting_state(&reason, &message));
                }
                None => status.state = Some(terminated(seen, present)),
            }
        }
    }
    status
}

/// `10s`, `2m40s`, `5m0s` as Go prints durations.
pub fn duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// Why a container is not there, when something is known to be in the way.
fn waiting(seen: &Seen<'_>, wanted: &core::Container) -> Option<(String, String)> {
    if let Some(ImageState::Failed { reason, message, at, .. }) = seen.memory.images.get(&wanted.name) {
        // The first look after a failure says what failed; from then on it is backing off.
        let image = wanted.image.as_deref().unwrap_or_default();
        let fresh = seen.now.duration_since(*at).as_secs() < plan::PULL_ERROR_SHOWN_SECONDS;
        return Some(match *reason {
            "ErrImagePull" if !fresh => {
                ("ImagePullBackOff".to_owned(), format!("Back-off pulling image \"{image}\": ErrImagePull: {message}"))
            }
            reason => (reason.to_owned(), message.clone()),
        });
    }
    let failure = seen.memory.failures.get(&wanted.name)?;
    Some((failure.reason.to_owned(), failure.message.clone()))
}

fn waiting_state(reason: &str, message: &str) -> core::ContainerState {
    core::ContainerState {
        waiting: Some(core::ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        }),
        ..Default::default()
    }
}

fn terminated(seen: &Seen<'_>, container: &Container) -> core::ContainerState {
    let reason = match container {
        c if c.oom_killed => "OOMKilled",
        c if !c.error.is_empty() => "ContainerCannotRun",
        c if c.exit_code == 0 => "Completed",
        _ => "Error",
    };
    let said = seen.messages.get(&container.id).filter(|text| !text.is_empty()).cloned();
    core::ContainerState {
        terminated: Some(core::ContainerStateTerminated {
            container_id: Some(format!("docker://{}", container.id)),
            exit_code: container.exit_code,
            finished_at: time(container.finished.or(Some(container.created))),
            message: said.or_else(|| Some(container.error.clone()).filter(|text| !text.is_empty())),
            reason: Some(reason.to_owned()),
            signal: None,
            started_at: time(container.started.or(Some(container.created))),
        }),
        ..Default::default()
    }
}

const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

fn conditions(
    seen: &Seen<'_>,
    statuses: &[core::ContainerStatus],
    phase: &str,
    sandbox_runs: bool,
) -> Vec<core::PodCondition> {
    let unready: Vec<&str> =
        statuses.iter().filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    let unready_text = format!("containers with unready status: [{}]", unready.join(" "));
    let no =
        |reason: &str, message: String| ("False", Some(reason.to_owned()), Some(message).filter(|m| !m.is_empty()));
    let containers_ready = match phase {
        "Succeeded" => no("PodCompleted", String::new()),
        "Failed" => no("PodFailed", String::new()),
        _ if unready.is_empty() => ("True", None, None),
        _ => no("ContainersNotReady", unready_text.clone()),
    };
    let earlier: &[core::PodCondition] = seen.previous.and_then(|old| old.conditions.as_deref()).unwrap_or_default();
    let assigned = seen.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let gates = seen.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let open = |gate: &core::PodReadinessGate| {
        assigned.iter().any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    };
    let ready = match gates.iter().find(|gate| !open(gate)) {
        Some(gate) if containers_ready.0 == "True" => no(
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {:?} does not exist.", gate.condition_type),
        ),
        _ => containers_ready.clone(),
    };
    let values = [
        (if sandbox_runs { "True" } else { "False" }, None, None),
        ("True", None, None),
        ready,
        containers_ready,
        ("True", None, None),
    ];
    let mut out = Vec::new();
    for (type_, (status, reason, message)) in OWN_CONDITIONS.iter().zip(values) {
        let old = earlier.iter().chain(assigned).find(|old| old.type_ == *type_ && old.status == status);
        let since = old.and_then(|old| old.last_transition_time.clone());
        out.push(core::PodCondition {
            type_: (*type_).to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(since.unwrap_or_else(|| Time(whole_seconds(seen.now)))),
            observed_generation: seen.pod.metadata.generation,
            ..Default::default()
        });
    }
    out.extend(assigned.iter().filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str())).cloned());
    out
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
