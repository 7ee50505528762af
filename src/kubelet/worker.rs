//! One task per pod: looks at its containers, plans, acts, reports, and sleeps until something happens.
//!
//! A pull, a slow start or a grace period of one pod never holds up another. Not here: decisions (`plan`, `status`). Invariant: a worker
//! acts only on containers that carry its pod's uid.

mod make;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use rpc::pb;
use tokio::sync::{Notify, mpsc, watch};

use crate::blocking;
use crate::env::Facts;
use crate::plan::{self, Action, Failure, Given, ImageState, Memory, Order, Plan, Why};
use crate::podspec;
use crate::probe::{self, Kind, Report};
use crate::runtime::{Container, Error, State, label};
use crate::saved::PodRecord;
use crate::shared::Shared;
use crate::status::Verdicts;
use crate::volumes::{self, Home};

/// What the node wants of one pod.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub pod: Option<Arc<core::Pod>>,
    pub order: Order,
    /// The masters still know the pod: its end must be reported.
    pub assigned: bool,
    /// Raised when an object that the pod uses may have changed.
    pub generation: u64,
}

/// After an engine that does not answer, and after an action that failed without a back-off of its own.
const RETRY: Duration = Duration::from_secs(1);

/// Container name and what became of its image.
type Pulled = (String, ImageState);

pub struct Worker {
    shared: Arc<Shared>,
    uid: String,
    wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    memory: Memory,
    verdicts: Verdicts,
    probes: BTreeMap<(String, Kind), probe::Running>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    pulled: (mpsc::Sender<Pulled>, mpsc::Receiver<Pulled>),
    messages: BTreeMap<String, String>,
    digests: BTreeMap<String, String>,
    record: PodRecord,
    sent: Option<(core::PodStatus, Timestamp)>,
    released: bool,
    /// Of `wanted`, as of the last refresh.
    generation: u64,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, uid: &str, wanted: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Worker {
        let record = shared.record(uid);
        Worker {
            uid: uid.to_owned(),
            wanted,
            wake,
            memory: Memory { finished: record.finished, attempts: record.attempts.clone(), ..Memory::default() },
            verdicts: Verdicts::default(),
            probes: BTreeMap::new(),
            reports: mpsc::channel(16),
            pulled: mpsc::channel(16),
            messages: BTreeMap::new(),
            digests: BTreeMap::new(),
            record,
            sent: None,
            released: false,
            generation: 0,
            shared,
        }
    }

    /// Until the pod is gone from this node and from the masters' assignment.
    pub async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if self.released && !wanted.assigned {
                return;
            }
            let wait = if self.released { None } else { self.step(&wanted).await };
            let sleep = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.wake.notified() => {}
                changed = self.wanted.changed() => {
                    // The node is shutting down; containers run on.
                    if changed.is_err() {
                        return;
                    }
                    let generation = self.wanted.borrow().generation;
                    if generation != self.generation {
                        self.generation = generation;
                        self.refresh().await;
                    }
                }
                Some(report) = self.reports.1.recv() => self.report(report),
                Some((container, state)) = self.pulled.1.recv() => self.image(container, state),
            }
        }
    }

    /// One look and what follows from it; how long to sleep, unless woken.
    async fn step(&mut self, wanted: &Wanted) -> Option<Duration> {
        let containers = match self.shared.runtime.list(Some(&self.uid)).await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::debug!(pod = %self.uid, %error, "cannot look at the pod's containers");
                return Some(RETRY);
            }
        };
        let now = Timestamp::now();
        self.forget_old(&containers);
        if let Some(pod) = &wanted.pod {
            self.watch_probes(pod, &containers, wanted.order, now);
        }
        let plan = plan::plan(&Given {
            pod: wanted.pod.as_deref(),
            order: wanted.order,
            containers: &containers,
            memory: &self.memory,
            now,
        });
        if plan.finished && !self.memory.finished && wanted.order == Order::Run {
            self.memory.finished = true;
            self.record.finished = true;
        }
        // When its containers are removed, what was said last of a stopping pod stays: how they ended.
        let all_said = wanted.order != Order::Run && containers.is_empty() && self.has_said_how_it_ended();
        if let Some(pod) = wanted.pod.as_ref().filter(|_| !all_said) {
            self.publish(pod, wanted.order, &containers, now).await;
        }
        self.execute(wanted, &containers, plan).await
    }

    fn has_said_how_it_ended(&self) -> bool {
        let ended = |status: &core::ContainerStatus| status.state.as_ref().is_some_and(|s| s.terminated.is_some());
        let said = self.record.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        said.is_some_and(|all| all.iter().all(ended))
    }

    /// Carries the plan out; how long to sleep afterwards.
    async fn execute(&mut self, wanted: &Wanted, containers: &[Container], plan: Plan) -> Option<Duration> {
        let mut look_again = false;
        let mut retry = false;
        for action in &plan.actions {
            let find = |id: &str| containers.iter().find(|container| container.id == id);
            tracing::debug!(pod = %self.uid, ?action, "acting");
            let result = match action {
                Action::Pull { container } => {
                    self.pull(wanted, container).await;
                    Ok(())
                }
                Action::Sandbox { attempt } => {
                    look_again = true;
                    self.sandbox(wanted, *attempt).await;
                    Ok(())
                }
                Action::Run { container, attempt, step } => {
                    look_again = true;
                    self.start(wanted, containers, container, *attempt, *step).await;
                    Ok(())
                }
                Action::Signal { id, why } => self.signal(wanted, find(id), *why).await,
                Action::Kill { id } => {
                    retry = true;
                    self.shared.runtime.signal(id, "SIGKILL").await
                }
                Action::Remove { id } => {
                    look_again = true;
                    let _slot = self.shared.operations.acquire().await;
                    self.shared.runtime.remove(id).await
                }
                Action::Release => self.release(wanted, containers.is_empty()).await,
            };
            if let Err(error) = result {
                tracing::warn!(pod = %self.uid, ?action, %error, "action failed, trying again");
                retry = true;
                look_again = false;
                break;
            }
        }
        if self.released {
            return None;
        }
        if look_again {
            return Some(Duration::ZERO);
        }
        let until = plan.again.map(|at| {
            let wait = at.duration_since(Timestamp::now());
            Duration::try_from(wait).unwrap_or(Duration::ZERO) + Duration::from_millis(5)
        });
        if retry { Some(until.map_or(RETRY, |until| until.min(RETRY))) } else { until }
    }

    fn facts(&self) -> Facts {
        Facts {
            pod_ip: self.pod_ip().unwrap_or_default(),
            host_ip: self.shared.host_ip(),
            cpu_millis: self.shared.cpu_millis,
            memory_bytes: self.shared.memory_bytes,
        }
    }

    fn pod_ip(&self) -> Option<String> {
        self.record.address.map(|address| address.to_string())
    }

    fn fail(&mut self, subject: &str, reason: &'static str, message: String) {
        let tries = self.memory.failures.get(subject).map_or(0, |failure| failure.tries) + 1;
        let at = Timestamp::now();
        self.memory.failures.insert(subject.to_owned(), Failure { reason, message, at, tries });
    }

    async fn sandbox(&mut self, wanted: &Wanted, attempt: u32) {
        let Some(pod) = wanted.pod.clone() else { return };
        if let Err((reason, message)) = self.make_sandbox(&pod, attempt).await {
            tracing::warn!(pod = podspec::name(&pod), reason, message, "sandbox not made");
            self.shared.recorder.pod(&pod, None, "Warning", reason, &message);
            self.fail(label::SANDBOX, reason, message);
        } else {
            self.memory.failures.remove(label::SANDBOX);
        }
    }

    /// Runs one of the functions on volumes off the async threads.
    async fn files(
        &self,
        pod: &Arc<core::Pod>,
        work: fn(&core::Pod, &Home, &dyn crate::env::Source) -> Result<(), String>,
    ) -> Result<(), String> {
        let (shared, pod) = (self.shared.clone(), pod.clone());
        let done = blocking::call(move || {
            let home = volumes::home(&shared.data_dir, &pod);
            work(&pod, &home, &shared.source(podspec::namespace(&pod)))
        });
        done.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Objects may have changed: what failed for want of one is tried at once, volumes are brought up to date.
    async fn refresh(&mut self) {
        self.memory.failures.clear();
        self.memory.images.retain(|_, state| *state == ImageState::Pulling);
        let pod = self.wanted.borrow().pod.clone();
        if let Some(pod) = pod
            && let Err(error) = self.files(&pod, volumes::refresh).await
        {
            tracing::warn!(pod = podspec::name(&pod), %error, "volumes not brought up to date");
        }
    }

    async fn pull(&mut self, wanted: &Wanted, container: &str) {
        let Some(pod) = wanted.pod.clone() else { return };
        let Some(spec) = find(&pod, container) else { return };
        let tries = match self.memory.images.get(container) {
            Some(ImageState::Failed { tries, message, .. }) => {
                let image = spec.image.as_deref().unwrap_or_default();
                let text = format!("Back-off pulling image \"{image}\": ErrImagePull: {message}");
                self.shared.recorder.pod(&pod, Some(container), "Normal", "BackOff", &text);
                *tries
            }
            _ => 0,
        };
        self.memory.images.insert(container.to_owned(), ImageState::Pulling);
        let (shared, pulled, spec, name) =
            (self.shared.clone(), self.pulled.0.clone(), spec.clone(), container.to_owned());
        tokio::spawn(async move {
            let state = crate::pull::ensure(&shared, &pod, &spec, tries).await;
            // The worker has ended: nobody wants the image.
            let _ = pulled.send((name, state)).await;
        });
    }

    fn image(&mut self, container: String, state: ImageState) {
        if self.memory.images.get(&container) == Some(&ImageState::Pulling) {
            self.memory.images.insert(container, state);
        }
    }

    async fn start(&mut self, wanted: &Wanted, containers: &[Container], name: &str, attempt: u32, step: u32) {
        let Some(pod) = wanted.pod.clone() else { return };
        let Some(spec) = find(&pod, name).cloned() else { return };
        let newest = plan::latest(containers);
        let Some(sandbox) = newest.get(label::SANDBOX).map(|sandbox| sandbox.id.clone()) else { return };
        // A pull policy of Always asks again before each start.
        self.memory.images.remove(name);
        match self.make_container(&pod, &spec, &sandbox, attempt, step).await {
            Ok(()) => {
                self.memory.failures.remove(name);
                metrics::counter!("hactl_kubelet_containers_started_total").increment(1);
            }
            Err((reason, message)) => {
                self.shared.recorder.pod(&pod, Some(name), "Warning", "Failed", &format!("Error: {message}"));
                self.fail(name, reason, message);
            }
        }
    }

    async fn signal(&mut self, wanted: &Wanted, container: Option<&Container>, why: Why) -> Result<(), Error> {
        let Some(container) = container else { return Ok(()) };
        let signal = if container.stop_signal.is_empty() { "SIGTERM" } else { &container.stop_signal };
        self.shared.runtime.signal(&container.id, signal).await?;
        self.memory.signalled.insert(container.id.clone(), Timestamp::now());
        if let Some(pod) = &wanted.pod
            && !container.is_sandbox()
        {
            let name = container.label(label::CONTAINER);
            let text = match why {
                Why::Unhealthy => format!("Container {name} failed liveness probe, will be restarted"),
                Why::Changed => format!("Container {name} definition changed, will be restarted"),
                _ => format!("Stopping container {name}"),
            };
            self.shared.recorder.pod(pod, Some(name), "Normal", "Killing", &text);
        }
        Ok(())
    }

    /// Removes what the pod has on disk; done when nothing of it was left before.
    async fn release(&mut self, wanted: &Wanted, empty: bool) -> Result<(), Error> {
        if !empty {
            // The next look must see that the containers are gone.
            return Ok(());
        }
        let home = Home::of(&self.shared.data_dir, &self.uid);
        let done = blocking::call(move || volumes::release(&home)).await;
        done.unwrap_or_else(|e| Err(e.to_string())).map_err(Error::Refused)?;
        self.released = true;
        self.probes.clear();
        self.shared.release(&self.uid);
        if wanted.assigned
            && let Some(pod) = &wanted.pod
        {
            self.shared.outbox.gone(pb::PodGone {
                namespace: podspec::namespace(pod).to_owned(),
                name: podspec::name(pod).to_owned(),
                uid: self.uid.clone(),
            });
        }
        Ok(())
    }

    /// Drops what is remembered of containers that are gone, but for how often they were started.
    fn forget_old(&mut self, containers: &[Container]) {
        for (name, container) in plan::latest(containers) {
            // One that was made and never started is removed and does not count.
            let counts = name != label::SANDBOX && container.state != State::Created;
            if counts && self.memory.attempts.get(name).is_none_or(|seen| *seen < container.attempt()) {
                self.memory.attempts.insert(name.to_owned(), container.attempt());
                self.record.attempts.clone_from(&self.memory.attempts);
            }
        }
        let known = |id: &String| containers.iter().any(|container| container.id == *id);
        self.memory.signalled.retain(|id, _| known(id));
        self.memory.unhealthy.retain(|id, _| known(id));
        self.verdicts.ready.retain(known);
        self.verdicts.started.retain(known);
        self.messages.retain(|id, _| known(id));
        if self.record.address.is_none() {
            let sandbox = plan::latest(containers)
                .get(label::SANDBOX)
                .and_then(|sandbox| sandbox.label(label::ADDRESS).parse().ok());
            if let Some(address) = sandbox {
                self.shared.hold_address(&self.uid, address);
                self.record.address = Some(address);
            }
        }
    }
}

fn find<'a>(pod: &'a core::Pod, container: &str) -> Option<&'a core::Container> {
    pod.spec.as_ref()?.containers.iter().find(|spec| spec.name == container)
}
