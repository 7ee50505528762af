//! Decides what to do next about one pod: desired pod × observed containers × what is remembered × now → actions. Pure.
//!
//! ```text
//!   no sandbox ─► Sandbox ─► per container: Pull ─► Run ─► (exits) ─► back-off ─► Run, attempt + 1
//!   order Stop ─► Signal ─► grace ─► Kill ─► Remove each ─► Release ─► gone
//! ```
//!
//! Not here: how an action is carried out, and whether a pod should be on this node. Invariants: the plan of a pod whose actions
//! were carried out is empty; restart count and back-off stand in the labels of the containers, so a restarted kubelet goes on
//! where it was; a finished pod never runs again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use crate::runtime::{Container, State, label};

/// Back-off between restarts: none, then this doubling up to the maximum, forgotten after a long run.
pub const BACK_OFF_SECONDS: i64 = 10;
pub const BACK_OFF_SECONDS_MAX: i64 = 300;
pub const BACK_OFF_RESET_SECONDS: i64 = 600;
/// How long a failed pull is shown as itself before it is shown as backing off.
pub const PULL_ERROR_SHOWN_SECONDS: i64 = 2;
/// Between attempts at something that failed on this node: doubles from one second.
const RETRY_SECONDS_MAX: i64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Run,
    /// The pod is deleted, or absent from a confirmed full assignment.
    Stop {
        grace_seconds: i64,
        since: Timestamp,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    Pulling,
    Ready,
    Failed { reason: &'static str, message: String, at: Timestamp, tries: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
    pub at: Timestamp,
    pub tries: u32,
}

/// What looking at the engine cannot tell.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By container name.
    pub images: BTreeMap<String, ImageState>,
    /// By container name; the sandbox's under `label::SANDBOX`.
    pub failures: BTreeMap<String, Failure>,
    /// Containers told to stop, by id.
    pub signalled: BTreeMap<String, Timestamp>,
    /// Containers whose liveness or startup probe gave up, by id, with the grace that they get.
    pub unhealthy: BTreeMap<String, i64>,
    /// Kept on disk: the pod has ended for good.
    pub finished: bool,
    /// Kept on disk: the newest attempt of each container that was ever seen, by name.
    pub attempts: BTreeMap<String, u32>,
}

pub struct Given<'a> {
    /// `None`: only its containers are known.
    pub pod: Option<&'a core::Pod>,
    pub order: Order,
    pub containers: &'a [Container],
    pub memory: &'a Memory,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Prepare volumes and files, take an address, create and start the sandbox.
    Sandbox {
        attempt: u32,
    },
    /// Make sure of the image, in the background.
    Pull {
        container: String,
    },
    /// Create and start.
    Run {
        container: String,
        attempt: u32,
        step: u32,
    },
    /// Ask it to stop.
    Signal {
        id: String,
        why: Why,
    },
    Kill {
        id: String,
    },
    Remove {
        id: String,
    },
    /// Remove volumes and files, give the address back: nothing of the pod is left.
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Stop,
    Unhealthy,
    Changed,
    SandboxGone,
    Finished,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Look again then, even if nothing happens.
    pub again: Option<Timestamp>,
    /// All containers have ended for good.
    pub finished: bool,
}

impl Plan {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
    fn look_at(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }
}

/// The hash of what may change in a container of a running pod: its image.
pub fn spec_hash(container: &core::Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    hex::encode(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..8])
}

pub fn restart_policy(pod: &core::Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Says whether the ended container is to run again.
pub fn restarts(policy: &str, container: &Container) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => container.exit_code != 0 || !container.error.is_empty(),
        _ => true,
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

pub fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// When an ended container may start again, the back-off in seconds, and the step of the next one.
pub fn back_off(ended: &Container) -> (Timestamp, i64, u32) {
    let finished = ended.finished.unwrap_or(ended.created);
    let ran = ended.started.map_or(0, |started| seconds(started, finished));
    let step = ended.number(label::STEP);
    if ran >= BACK_OFF_RESET_SECONDS {
        return (finished, 0, 1);
    }
    let wait = match step {
        0 => 0,
        step => BACK_OFF_SECONDS
            .saturating_mul(1_i64.checked_shl(step - 1).unwrap_or(i64::MAX))
            .clamp(0, BACK_OFF_SECONDS_MAX),
    };
    (after(finished, wait), wait, (step + 1).min(16))
}

/// When something that failed may be tried again.
pub fn retry_at(failure: &Failure) -> Timestamp {
    let wait = 1_i64.checked_shl(failure.tries.saturating_sub(1)).unwrap_or(i64::MAX).clamp(1, RETRY_SECONDS_MAX);
    after(failure.at, wait)
}

/// When a failed pull may be tried again.
pub fn pull_at(at: Timestamp, tries: u32) -> Timestamp {
    let wait = BACK_OFF_SECONDS.saturating_mul(1_i64.checked_shl(tries.saturating_sub(1)).unwrap_or(i64::MAX));
    after(at, wait.clamp(BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX))
}

/// The newest container of each name, sandboxes under `label::SANDBOX`.
pub fn latest(containers: &[Container]) -> BTreeMap<&str, &Container> {
    let mut newest: BTreeMap<&str, &Container> = BTreeMap::new();
    for container in containers {
        let entry = newest.entry(container.label(label::CONTAINER)).or_insert(container);
        if container.attempt() >= entry.attempt() {
            *entry = container;
        }
    }
    newest
}

pub fn plan(given: &Given<'_>) -> Plan {
    let mut plan = Plan::default();
    match (given.order, given.pod) {
        (Order::Stop { grace_seconds, since }, _) => stop(given, grace_seconds, since, &mut plan),
        (Order::Run, Some(pod)) => run(given, pod, &mut plan),
        // Containers without an order: another assignment may still name them.
        (Order::Run, None) => {}
    }
    plan
}

fn stop(given: &Given<'_>, grace: i64, since: Timestamp, plan: &mut Plan) {
    let running: Vec<_> = given.containers.iter().filter(|c| c.state == State::Running && !c.is_sandbox()).collect();
    for container in &running {
        end(given, container, grace, Some(since), Why::Stop, plan);
    }
    if running.is_empty() {
        let apps = given.containers.iter().filter(|c| !c.is_sandbox());
        let sandboxes = given.containers.iter().filter(|c| c.is_sandbox());
        for container in apps.chain(sandboxes) {
            plan.act(Action::Remove { id: container.id.clone() });
        }
        plan.act(Action::Release);
    }
}

/// Stops a running container: asks once, then kills when its grace has passed.
fn end(given: &Given<'_>, container: &Container, grace: i64, since: Option<Timestamp>, why: Why, plan: &mut Plan) {
    let asked = given.memory.signalled.get(&container.id).copied();
    let began = match (asked, since) {
        (Some(asked), Some(since)) => asked.min(since),
        (Some(asked), None) => asked,
        (None, since) => since.unwrap_or(given.now),
    };
    let deadline = after(began, grace);
    if given.now >= deadline {
        plan.act(Action::Kill { id: container.id.clone() });
        return;
    }
    if asked.is_none() {
        plan.act(Action::Signal { id: container.id.clone(), why });
    }
    plan.look_at(deadline);
}

fn run(given: &Given<'_>, pod: &core::Pod, plan: &mut Plan) {
    let Some(spec) = pod.spec.as_ref() else { return };
    let newest = latest(given.containers);
    let policy = restart_policy(pod);
    let done = spec.containers.iter().all(|wanted| {
        newest.get(wanted.name.as_str()).is_some_and(|c| c.state == State::Exited && !restarts(policy, c))
    });
    if given.memory.finished || done {
        plan.finished = true;
        for container in given.containers.iter().filter(|c| c.state == State::Running) {
            end(given, container, 0, None, Why::Finished, plan);
        }
        return;
    }
    remove_old(given, &newest, plan);
    match newest.get(label::SANDBOX) {
        Some(sandbox) if sandbox.state == State::Running => {
            for wanted in &spec.containers {
                keep(given, pod, wanted, newest.get(wanted.name.as_str()).copied(), plan);
            }
        }
        old => replace_sandbox(given, old.copied(), plan),
    }
}

/// Keeps the present and the previous container of each name; of sandboxes only the newest.
fn remove_old(given: &Given<'_>, newest: &BTreeMap<&str, &Container>, plan: &mut Plan) {
    let mut kept: BTreeSet<(&str, u32)> = BTreeSet::new();
    for (name, container) in newest {
        kept.insert((name, container.attempt()));
        if *name != label::SANDBOX
            && let Some(before) = given
                .containers
                .iter()
                .filter(|c| c.label(label::CONTAINER) == *name && c.attempt() < container.attempt())
                .map(Container::attempt)
                .max()
        {
            kept.insert((name, before));
        }
    }
    for container in given.containers {
        if !kept.contains(&(container.label(label::CONTAINER), container.attempt())) {
            plan.act(Action::Remove { id: container.id.clone() });
        }
    }
}

/// The network is gone with the sandbox: end what hangs on it, then make a new one.
fn replace_sandbox(given: &Given<'_>, old: Option<&Container>, plan: &mut Plan) {
    let running: Vec<_> = given.containers.iter().filter(|c| c.state == State::Running && !c.is_sandbox()).collect();
    if !running.is_empty() {
        for container in running {
            end(given, container, 0, None, Why::SandboxGone, plan);
        }
        return;
    }
    if let Some(failure) = given.memory.failures.get(label::SANDBOX)
        && retry_at(failure) > given.now
    {
        plan.look_at(retry_at(failure));
        return;
    }
    let mut attempt = 0;
    if let Some(old) = old {
        attempt = old.attempt() + 1;
        plan.act(Action::Remove { id: old.id.clone() });
    }
    plan.act(Action::Sandbox { attempt });
}

/// One container of a pod whose sandbox runs.
fn keep(given: &Given<'_>, pod: &core::Pod, wanted: &core::Container, present: Option<&Container>, plan: &mut Plan) {
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    let Some(present) = present else {
        // None, or it was removed by somebody else: that counts as a restart.
        let attempt = given.memory.attempts.get(&wanted.name).map_or(0, |seen| seen + 1);
        return start(given, wanted, attempt, 0, plan);
    };
    let changed = present.label(label::SPEC_HASH) != spec_hash(wanted);
    match present.state {
        // A kubelet died between creation and start.
        State::Created => plan.act(Action::Remove { id: present.id.clone() }),
        State::Running if changed => end(given, present, grace, None, Why::Changed, plan),
        State::Running => {
            if let Some(grace) = given.memory.unhealthy.get(&present.id) {
                end(given, present, *grace, None, Why::Unhealthy, plan);
            }
        }
        State::Exited if changed => start(given, wanted, present.attempt() + 1, 0, plan),
        State::Exited if !restarts(restart_policy(pod), present) => {}
        State::Exited => {
            let (at, _, step) = back_off(present);
            if at > given.now {
                plan.look_at(at);
            } else {
                start(given, wanted, present.attempt() + 1, step, plan);
            }
        }
    }
}

fn start(given: &Given<'_>, wanted: &core::Container, attempt: u32, step: u32, plan: &mut Plan) {
    let name = wanted.name.clone();
    if let Some(failure) = given.memory.failures.get(&name)
        && retry_at(failure) > given.now
    {
        return plan.look_at(retry_at(failure));
    }
    match given.memory.images.get(&name) {
        None => plan.act(Action::Pull { container: name }),
        Some(ImageState::Pulling) => {}
        Some(ImageState::Ready) => plan.act(Action::Run { container: name, attempt, step }),
        Some(ImageState::Failed { at: failed, tries, .. }) => {
            let at = pull_at(*failed, *tries);
            if at > given.now {
                plan.look_at(at);
                // The status turns from "failed" to "backing off" meanwhile.
                let shown = after(*failed, PULL_ERROR_SHOWN_SECONDS);
                if shown > given.now {
                    plan.look_at(shown);
                }
            } else {
                plan.act(Action::Pull { container: name });
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
