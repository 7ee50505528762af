//! The node's pods: turns assignments into one worker per pod, and passes on what the engine reports.
//!
//! Not here: connections to masters (`session`) and single pods (`worker`). Invariants: assignments lower than the one followed are
//! ignored; a pod that is not marked deleted is stopped only because a master's ordered assignment removed it or a full one lacks
//! it; containers of unknown pods are left alone until a full assignment has come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use rpc::pb;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::plan::Order;
use crate::runtime::{self, Container, State, label};
use crate::saved::Object;
use crate::shared::{Shared, key};
use crate::worker::{Wanted, Worker};

/// A look at everything although nothing was reported.
const RESYNC: Duration = Duration::from_secs(60);
/// A node that comes back waits so long for a master's word before it starts what it ran before.
pub const RETURN_WAIT: Duration = Duration::from_secs(10);
const ENGINE_RETRY: Duration = Duration::from_secs(2);
/// How often the engine is asked whether it answers, and how long it may take before the node says that it does not.
const ENGINE_LOOK: Duration = Duration::from_secs(10);
const ENGINE_ANSWER_MAX: Duration = Duration::from_secs(20);
/// Between an orphan's first sight and its removal nothing else is asked, so its own label says how politely it is stopped.
const ORPHAN_GRACE_SECONDS: i64 = 30;

struct Handle {
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
    namespace: String,
    /// The spec as last seen, to tell status echoes from changes.
    spec: Option<core::PodSpec>,
    stopping: Option<Timestamp>,
}

pub struct Pods {
    shared: Arc<Shared>,
    workers: BTreeMap<String, Handle>,
    cidr: watch::Sender<String>,
    /// What is wrong with the engine; empty when it answers.
    engine: watch::Sender<String>,
    generation: u64,
    /// A full assignment came, and what else runs here has not been looked at since.
    unknown_left: bool,
}

/// What the engine was asked and has not answered yet. It may take minutes or for ever, so nothing ever waits for it: assignments
/// are taken over and heartbeats go on meanwhile.
#[derive(Default)]
struct Asked {
    events: Option<BoxFuture<'static, runtime::Result<Events>>>,
    containers: Option<BoxFuture<'static, runtime::Result<Vec<Container>>>>,
    ping: Option<BoxFuture<'static, runtime::Result<()>>>,
}

type Events = futures::stream::BoxStream<'static, runtime::Event>;

/// Bounds a question whose answer says whether the engine works.
pub async fn in_time<T>(question: impl Future<Output = runtime::Result<T>>) -> runtime::Result<T> {
    let answered = tokio::time::timeout(ENGINE_ANSWER_MAX, question).await;
    answered.unwrap_or_else(|_| {
        Err(runtime::Error::Down(format!(
            "the Docker Engine has not answered for {} s: look at its log (journalctl -u docker) and restart it",
            ENGINE_ANSWER_MAX.as_secs()
        )))
    })
}

/// The answer to a question, if one was asked; it is forgotten then.
async fn answer<T>(question: &mut Option<BoxFuture<'static, T>>) -> T {
    match question {
        Some(asked) => {
            let answer = asked.await;
            *question = None;
            answer
        }
        None => std::future::pending().await,
    }
}

impl Pods {
    pub fn new(shared: Arc<Shared>, cidr: watch::Sender<String>, engine: watch::Sender<String>) -> Pods {
        Pods { shared, workers: BTreeMap::new(), cidr, engine, generation: 0, unknown_left: false }
    }

    /// Until shutdown. Saved pods whose sandbox runs are looked after at once, the others wait for a master's word, at most
    /// for `hold`: the machine may have been away for so long that they run elsewhere.
    pub async fn run(
        mut self,
        mut assignments: mpsc::Receiver<pb::Assignment>,
        alive: BTreeSet<String>,
        hold: Duration,
        shutdown: CancellationToken,
    ) {
        self.start_saved(|uid| alive.contains(uid));
        let mut held = Some(Box::pin(tokio::time::sleep(hold)));
        let mut events: Option<Events> = None;
        let mut asked = Asked::default();
        let mut reconnect = Box::pin(tokio::time::sleep(Duration::ZERO));
        let every = |period| {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let (mut resync, mut look) = (every(RESYNC), every(ENGINE_LOOK));
        let mut bridge = self.shared.bridge.clone();
        loop {
            let release = async {
                match held.as_mut() {
                    Some(held) => held.await,
                    None => std::future::pending().await,
                }
            };
            let connected = events.is_some();
            let next = async {
                match events.as_mut() {
                    Some(events) => events.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(assignment) = assignments.recv() => {
                    // A master has spoken: nothing needs to be guessed from the disk any more.
                    if self.assign(assignment) && held.take().is_some() {
                        self.start_saved(|_| true);
                    }
                }
                () = release => {
                    held = None;
                    self.start_saved(|_| true);
                }
                () = &mut reconnect, if !connected && asked.events.is_none() => {
                    let runtime = self.shared.runtime.clone();
                    asked.events = Some(Box::pin(in_time(async move { runtime.events().await })));
                }
                answered = answer(&mut asked.events) => match answered {
                    Ok(stream) => {
                        events = Some(stream);
                        self.engine_is("");
                        self.wake_all();
                    }
                    Err(error) => {
                        self.engine_is(&error.to_string());
                        reconnect = Box::pin(tokio::time::sleep(ENGINE_RETRY));
                    }
                },
                event = next => match event {
                    Some(event) => {
                        if let Some(handle) = self.workers.get(&event.pod_uid) {
                            handle.wake.notify_one();
                        }
                    }
                    None => {
                        events = None;
                        reconnect = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
                    }
                },
                listed = answer(&mut asked.containers) => match listed {
                    Ok(containers) => self.stop_unknown(&containers),
                    // Asked again: a pod that runs elsewhere by now must not stay.
                    Err(error) => {
                        self.unknown_left = true;
                        tracing::warn!(%error, "cannot look for containers of unknown pods");
                    }
                },
                _ = look.tick(), if connected && asked.ping.is_none() => {
                    let runtime = self.shared.runtime.clone();
                    asked.ping = Some(Box::pin(in_time(async move { runtime.ping().await })));
                }
                answered = answer(&mut asked.ping) => {
                    let wrong = answered.err().map(|error| error.to_string()).unwrap_or_default();
                    if self.engine_is(&wrong) && wrong.is_empty() {
                        self.wake_all();
                    }
                }
                _ = resync.tick() => {
                    self.workers.retain(|_, handle| !handle.task.is_finished());
                    if held.is_none() {
                        // A worker that failed is made anew.
                        let known: BTreeSet<String> = self.workers.keys().cloned().collect();
                        self.start_saved(|uid| !known.contains(uid));
                    }
                    metrics::gauge!("hactl_kubelet_pods").set(self.workers.len() as f64);
                    self.wake_all();
                }
                Ok(()) = bridge.changed() => {
                    let ready = bridge.borrow_and_update().is_ok();
                    if ready {
                        self.objects_changed(None);
                    }
                }
            }
            // While the engine is away, its return is waited for.
            if self.unknown_left && asked.containers.is_none() && events.is_some() {
                self.unknown_left = false;
                let runtime = self.shared.runtime.clone();
                asked.containers = Some(Box::pin(async move { runtime.list(None).await }));
            }
        }
    }

    /// Notes what is wrong with the engine, or nothing; says whether that is news.
    fn engine_is(&self, wrong: &str) -> bool {
        self.engine.send_if_modified(|text| {
            let changed = *text != wrong;
            if changed && !wrong.is_empty() {
                tracing::error!("{wrong}");
            }
            wrong.clone_into(text);
            changed
        })
    }

    fn wake_all(&self) {
        for handle in self.workers.values() {
            handle.wake.notify_one();
        }
    }

    /// Lets workers look at their objects again: of some namespaces or of all.
    fn objects_changed(&mut self, namespaces: Option<&BTreeSet<String>>) {
        self.generation += 1;
        let generation = self.generation;
        for handle in self.workers.values() {
            if namespaces.is_none_or(|some| some.contains(&handle.namespace)) {
                handle.wanted.send_modify(|wanted| wanted.generation = generation);
            }
        }
    }

    /// Starts workers for pods of the assignment that is followed.
    fn start_saved(&mut self, which: impl Fn(&str) -> bool) {
        for object in self.shared.objects_of("pods") {
            if which(&object.uid) {
                self.want(&object);
            }
        }
    }

    /// Follows an assignment; says whether it was followed.
    pub fn assign(&mut self, assignment: pb::Assignment) -> bool {
        let position = (assignment.epoch, assignment.revision);
        if position < self.shared.position() {
            tracing::warn!(?position, followed = ?self.shared.position(), "ignoring an older assignment");
            return false;
        }
        if !assignment.pod_cidr.is_empty() {
            self.cidr.send_if_modified(|cidr| {
                let changed = *cidr != assignment.pod_cidr;
                cidr.clone_from(&assignment.pod_cidr);
                changed
            });
        }
        let full = assignment.full;
        let (fresh, removed) = self.shared.change(|saved, objects| {
            saved.epoch = assignment.epoch;
            saved.revision = assignment.revision;
            if !assignment.pod_cidr.is_empty() {
                saved.pod_cidr.clone_from(&assignment.pod_cidr);
            }
            take_over(objects, assignment)
        });
        let mut namespaces = BTreeSet::new();
        for object in fresh.iter().chain(&removed) {
            if matches!(object.resource.as_str(), "configmaps" | "secrets") {
                namespaces.insert(object.namespace.clone());
            }
        }
        for object in removed.iter().filter(|object| object.resource == "pods") {
            self.unassign(&object.uid);
        }
        for object in fresh.iter().filter(|object| object.resource == "pods") {
            self.want(object);
        }
        if !namespaces.is_empty() {
            self.objects_changed(Some(&namespaces));
        }
        if full {
            self.stop_unassigned();
            self.unknown_left = true;
        }
        true
    }

    fn unassign(&mut self, uid: &str) {
        self.shared.outbox.forget(uid);
        if let Some(handle) = self.workers.get_mut(uid) {
            let since = *handle.stopping.get_or_insert_with(Timestamp::now);
            handle.wanted.send_modify(|wanted| {
                let grace = match (wanted.order, &wanted.pod) {
                    (Order::Stop { grace_seconds, .. }, _) => grace_seconds,
                    (Order::Run, Some(pod)) => grace_of(pod),
                    (Order::Run, None) => ORPHAN_GRACE_SECONDS,
                };
                wanted.order = Order::Stop { grace_seconds: grace, since };
                wanted.assigned = false;
            });
        }
    }

    /// Gives a pod's worker its newest object, or makes the worker.
    fn want(&mut self, object: &Object) {
        let pod: core::Pod = match serde_json::from_str(object.json.get()) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(pod = object.name, %error, "an assigned pod cannot be read");
                return;
            }
        };
        let ended =
            matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        // One that is being deleted only stops, and may have been released: nothing more is kept of it.
        let deleted = pod.metadata.deletion_timestamp.is_some();
        if ended && !deleted && !self.shared.record(&object.uid).finished {
            let mut record = self.shared.record(&object.uid);
            record.finished = true;
            self.shared.set_record(&object.uid, record);
        }
        let spec = pod.spec.clone();
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| grace_of(&pod));
        let earlier = self.workers.get(&object.uid).filter(|handle| !handle.task.is_finished());
        let stopping = deleted.then(|| earlier.and_then(|handle| handle.stopping).unwrap_or_else(Timestamp::now));
        let changed = earlier.is_none_or(|handle| handle.spec != spec);
        if changed {
            self.generation += 1;
        }
        let mut wanted = Wanted {
            pod: Some(Arc::new(pod)),
            order: stopping.map_or(Order::Run, |since| Order::Stop { grace_seconds: grace, since }),
            assigned: true,
            generation: self.generation,
        };
        match self.workers.get_mut(&object.uid).filter(|handle| !handle.task.is_finished()) {
            Some(handle) => {
                if !changed {
                    wanted.generation = handle.wanted.borrow().generation;
                }
                handle.spec = spec;
                handle.stopping = stopping;
                handle.wanted.send_replace(wanted);
            }
            None => self.spawn(&object.uid, &object.namespace, spec, stopping, wanted),
        }
    }

    fn spawn(
        &mut self,
        uid: &str,
        namespace: &str,
        spec: Option<core::PodSpec>,
        stopping: Option<Timestamp>,
        wanted: Wanted,
    ) {
        let (sender, receiver) = watch::channel(wanted);
        let wake = Arc::new(Notify::new());
        let task = tokio::spawn(Worker::new(self.shared.clone(), uid, receiver, wake.clone()).run());
        let handle = Handle { wanted: sender, wake, task, namespace: namespace.to_owned(), spec, stopping };
        self.workers.insert(uid.to_owned(), handle);
    }

    fn assigned(&self) -> BTreeSet<String> {
        self.shared.objects_of("pods").into_iter().map(|object| object.uid).collect()
    }

    /// After a full assignment: what it does not name goes.
    fn stop_unassigned(&mut self) {
        let assigned = self.assigned();
        let unassigned: Vec<String> = self.workers.keys().filter(|uid| !assigned.contains(*uid)).cloned().collect();
        for uid in unassigned {
            self.unassign(&uid);
        }
    }

    /// And so does what the engine runs that nobody here looks after.
    fn stop_unknown(&mut self, containers: &[Container]) {
        let assigned = self.assigned();
        let mut orphans: BTreeMap<String, i64> =
            crate::volumes::homes(&self.shared.data_dir).into_iter().map(|uid| (uid, ORPHAN_GRACE_SECONDS)).collect();
        for container in containers {
            let grace = container.label(label::GRACE).parse().unwrap_or(ORPHAN_GRACE_SECONDS);
            orphans.insert(container.label(label::POD_UID).to_owned(), grace);
        }
        orphans.retain(|uid, _| !assigned.contains(uid) && !self.workers.contains_key(uid));
        for (uid, grace_seconds) in orphans {
            tracing::info!(pod = uid, "removing a pod that no master assigns to this node");
            let since = Timestamp::now();
            let wanted =
                Wanted { pod: None, order: Order::Stop { grace_seconds, since }, assigned: false, generation: 0 };
            self.spawn(&uid, "", None, Some(since), wanted);
        }
    }
}

fn grace_of(pod: &core::Pod) -> i64 {
    pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30)
}

type Objects = BTreeMap<(String, String, String), Object>;

/// Puts the assignment's objects in place; what is new or changed, and what went.
fn take_over(objects: &mut Objects, assignment: pb::Assignment) -> (Vec<Object>, Vec<Object>) {
    let mut fresh = Vec::new();
    let mut gone = Vec::new();
    for name in assignment.removed {
        let key = (name.resource, name.namespace, name.name);
        if objects.get(&key).is_some_and(|known| known.uid == name.uid) {
            gone.extend(objects.remove(&key));
        }
    }
    let mut named = BTreeSet::new();
    for assigned in assignment.objects {
        let Some(name) = assigned.name else { continue };
        let Ok(json) = String::from_utf8(assigned.json.to_vec())
            .map_err(drop)
            .and_then(|text| serde_json::value::RawValue::from_string(text).map_err(drop))
        else {
            tracing::error!(resource = name.resource, name = name.name, "an assigned object is no JSON");
            continue;
        };
        let object = Object {
            resource: name.resource,
            namespace: name.namespace,
            name: name.name,
            uid: name.uid,
            revision: assigned.revision,
            json: Arc::from(json),
        };
        named.insert(key(&object));
        match objects.insert(key(&object), object.clone()) {
            Some(old) if old.uid == object.uid && old.revision == object.revision => continue,
            Some(old) if old.uid != object.uid => gone.push(old),
            _ => {}
        }
        fresh.push(object);
    }
    if assignment.full {
        let absent: Vec<_> = objects.keys().filter(|key| !named.contains(*key)).cloned().collect();
        gone.extend(absent.iter().filter_map(|key| objects.remove(key)));
    }
    (fresh, gone)
}

/// Takes the addresses that sandboxes of this node hold already, before any pod asks for one; whose sandbox runs.
pub fn adopt(shared: &Shared, containers: &[Container]) -> BTreeSet<String> {
    let mut alive = BTreeSet::new();
    for sandbox in containers.iter().filter(|container| container.is_sandbox()) {
        let uid = sandbox.label(label::POD_UID);
        if let Ok(address) = sandbox.label(label::ADDRESS).parse::<Ipv4Addr>() {
            shared.hold_address(uid, address);
        }
        if sandbox.state == State::Running {
            alive.insert(uid.to_owned());
        }
    }
    alive
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
