//! The sessions of this master's nodes: ordered assignments down, heartbeats and writes up, streams on request.
//!
//! ```text
//! Hello ─▶ certificate = Node object? ─▶ read index ─▶ Welcome, full assignment ─┬─ changes of the node's pods ─▶ down
//!                                                                               ├─ heartbeats ─▶ Heard
//!                                                                               ├─ writes ─▶ proposals ─▶ results
//!                                                                               └─ stream requests ─▶ node dials back
//! ```
//!
//! Not here: who may connect (`rpc::tls` and the caller prove the certificate), what becomes of silent nodes (`leader`).
//!
//! **Invariant:** a full assignment is sent only from a state confirmed by a read index that began after the session
//! opened; messages go down in the order of their revisions.

mod assignment;
mod links;
mod streams;
mod usage;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::seal::Sealer;
use control::{Context, Seeds};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use replica::Replica;
use replica::watch::Filter;
use rpc::pb;
use rpc::pb::master_message::Message as Down;
use rpc::pb::node_message::Message as Up;
use state::{Key, Revision, State};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamMap;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::fence::Epochs;
use crate::leader::Heard;
use assignment::Assigned;

pub use streams::{Dialled, NodeStreams, Relay, Uplink, relayed};
pub use writes::{CERTIFICATE, new_node};

/// Messages waiting for a slow node; beyond it the session waits, and the next difference is larger instead.
const DOWN_MAX: usize = 64;
/// Writes of one node under way at once; one more is answered 429 and made again by the node.
const WRITES_MAX: usize = 64;
/// A session without a heartbeat for so long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Before a registration that found no leader is made again.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);

/// What sessions are given.
pub struct Parts {
    pub replica: Replica,
    pub heard: Heard,
    pub cluster_id: String,
    pub epoch: u64,
    /// API addresses (host:port) of all masters.
    pub masters: watch::Receiver<Vec<String>>,
    /// What nodes trust, and which certificates they shall have.
    pub trust: watch::Receiver<pb::Trust>,
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
    pub seeds: Arc<Seeds>,
    /// Opens the Secrets that assignments carry.
    pub sealer: Arc<dyn Sealer>,
    /// What proves our epoch, and judges what others show; none: nothing is proved (a simulation has no certificates).
    pub epochs: Option<Epochs>,
    pub shutdown: CancellationToken,
}

/// The nodes connected to this master. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    parts: Parts,
    connected: Mutex<BTreeMap<String, Connected>>,
    waiting: streams::Waiting,
    usages: usage::Held,
    serial: AtomicU64,
}

/// One node's session, as others on this master reach it.
#[derive(Clone)]
struct Connected {
    serial: u64,
    down: mpsc::Sender<Result<pb::MasterMessage, Status>>,
    /// Ends the session when the node opened a newer one.
    ended: CancellationToken,
}

impl Sessions {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            connected: Mutex::default(),
            waiting: streams::Waiting::default(),
            usages: usage::Held::default(),
            serial: AtomicU64::new(1),
        }))
    }

    /// The names of the connected nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.connected().keys().cloned().collect()
    }

    /// Ends every session: each node dials the next master.
    pub fn end_all(&self) {
        for connected in self.connected().values() {
            connected.ended.cancel();
        }
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<String, Connected>> {
        self.0.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replica(&self) -> &Replica {
        &self.0.parts.replica
    }

    fn root(&self) -> Arc<State> {
        self.replica().root()
    }

    fn now(&self) -> jiff::Timestamp {
        (self.0.parts.now)()
    }

    fn uid(&self) -> String {
        Context::new(self.now(), self.0.parts.seeds.draw(), Arc::default()).uid()
    }

    /// Opens a session for the node that the caller's certificate names.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the certificate is not of the present Node, `UNAVAILABLE` while there is no leader.
    pub async fn open<S>(
        &self,
        name: String,
        uid: String,
        mut up: S,
    ) -> Result<ReceiverStream<Result<pb::MasterMessage, Status>>, Status>
    where
        S: Stream<Item = Result<pb::NodeMessage, Status>> + Send + Unpin + 'static,
    {
        let first = tokio::time::timeout(SILENCE_MAX, up.next())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))?
            .ok_or_else(|| Status::cancelled("closed before Hello"))??;
        let Some(Up::Hello(hello)) = first.message else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        if hello.node != name || hello.uid != uid {
            return Err(Status::permission_denied(format!(
                "Hello names node {}, the certificate node {name}",
                hello.node
            )));
        }
        rpc::version::check(&format!("node {name}"), hello.wire_version, hello.wire_needs)
            .map_err(Status::failed_precondition)?;
        if let Some(epochs) = &self.0.parts.epochs {
            epochs.shown(&hello.epoch_proof);
        }
        if hello.epoch > self.0.parts.epoch {
            return Err(Status::failed_precondition(format!(
                "the node follows epoch {}, this master is of epoch {}: it belongs to a state that was recovered from",
                hello.epoch, self.0.parts.epoch
            )));
        }
        let root = self.replica().read().await.map_err(|error| Status::unavailable(error.to_string()))?;
        check_node(&root, &name, &uid)?;

        let (down, stream) = mpsc::channel(DOWN_MAX);
        let connected = Connected {
            serial: self.0.serial.fetch_add(1, Ordering::Relaxed),
            down: down.clone(),
            ended: self.0.parts.shutdown.child_token(),
        };
        if let Some(older) = self.connected().insert(name.clone(), connected.clone()) {
            older.ended.cancel();
        }
        let sessions = self.clone();
        tokio::spawn(async move {
            tracing::info!(node = name, "session opened");
            let why =
                Session { sessions: &sessions, name: &name, uid: &uid, down: &connected.down, ended: &connected.ended }
                    .run(root, hello, up)
                    .await;
            let mut map = sessions.connected();
            if map.get(&name).is_some_and(|present| present.serial == connected.serial) {
                map.remove(&name);
            }
            drop(map);
            tracing::info!(node = name, %why, "session closed");
        });
        Ok(ReceiverStream::new(stream))
    }
}

/// The certificate is of the Node as it is now.
///
/// # Errors
/// `PERMISSION_DENIED` when it was deleted, `UNAVAILABLE` while there is nothing to tell by.
pub fn check_node(root: &State, name: &str, uid: &str) -> Result<(), Status> {
    match root.get(&Key::node(name)) {
        Some(record) if record.header.uid == uid => Ok(()),
        Some(_) => Err(Status::permission_denied(format!(
            "node {name} is another machine now; join again under another --node-name"
        ))),
        // Before its first command a cluster has no objects at all; the first machine's node is early.
        None if root.revision() == 0 => Err(Status::unavailable("the cluster is being made; try again")),
        None => Err(Status::permission_denied(format!(
            "node {name} was deleted; `hactl cluster leave` there, then join again"
        ))),
    }
}

/// The loop of one session.
struct Session<'a> {
    sessions: &'a Sessions,
    name: &'a str,
    uid: &'a str,
    down: &'a mpsc::Sender<Result<pb::MasterMessage, Status>>,
    ended: &'a CancellationToken,
}

impl Session<'_> {
    /// Runs until the node or this master ends it; says why.
    async fn run<S>(&self, root: Arc<State>, hello: pb::Hello, mut up: S) -> String
    where
        S: Stream<Item = Result<pb::NodeMessage, Status>> + Send + Unpin,
    {
        let parts = &self.sessions.0.parts;
        let mut masters = parts.masters.clone();
        let mut trust = parts.trust.clone();
        let mut assigned = Assigned::new(Some(parts.sealer.clone()));
        let mut watched = Watched::new(self.sessions.replica(), self.name, root.revision());
        let full = assigned.full(&root, self.name, parts.epoch);
        watched.follow(self.sessions.replica(), assigned.referred(), root.revision());
        drop(root);
        let welcome = pb::Welcome {
            epoch: parts.epoch,
            cluster_id: parts.cluster_id.clone(),
            pod_cidr: full.pod_cidr.clone(),
            epoch_proof: parts.epochs.as_ref().map(Epochs::proof).unwrap_or_default().into(),
            wire_version: rpc::version::WIRE,
            wire_needs: rpc::version::OLDEST,
        };
        let addresses = pb::Masters { api_addresses: masters.borrow_and_update().clone() };
        let trusted = trust.borrow_and_update().clone();
        let first = [Down::Welcome(welcome), Down::Masters(addresses), Down::Trust(trusted), Down::Assignment(full)];
        for message in first {
            if !self.send(message).await {
                return "the node went away".into();
            }
        }
        parts.heard.heard(self.name, Duration::ZERO);
        let mut node_json = hello.node_json;
        let mut writes = FuturesUnordered::new();
        let registration = pb::Write { id: 0, write: Some(pb::write::Write::NodeStatus(node_json.clone())) };
        writes.push(self.sessions.write(self.name, self.uid, registration));

        let silence = tokio::time::sleep(SILENCE_MAX);
        tokio::pin!(silence);
        let mut register_at = None;
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return "replaced by a newer session, or shutting down".into(),
                () = &mut silence => return format!("no heartbeat for {} s", SILENCE_MAX.as_secs()),
                message = up.next() => {
                    let message = match message {
                        None => return "the node closed it".into(),
                        Some(Err(status)) => return status.message().to_owned(),
                        Some(Ok(message)) => message,
                    };
                    match message.message {
                        Some(Up::Heartbeat(beat)) => {
                            silence.as_mut().reset(tokio::time::Instant::now() + SILENCE_MAX);
                            parts.heard.heard(self.name, Duration::ZERO);
                            if !self.send(Down::HeartbeatAck(pb::HeartbeatAck { sequence: beat.sequence })).await {
                                return "the node went away".into();
                            }
                        }
                        Some(Up::Write(write)) if writes.len() >= WRITES_MAX => {
                            let busy = pb::WriteResult { id: write.id, code: 429, message: "too many writes under way".into() };
                            if !self.send(Down::WriteResult(busy)).await {
                                return "the node went away".into();
                            }
                        }
                        Some(Up::Write(write)) => {
                            if let Some(pb::write::Write::NodeStatus(json)) = &write.write {
                                node_json.clone_from(json);
                            }
                            writes.push(self.sessions.write(self.name, self.uid, write));
                        }
                        Some(Up::Usage(usage)) => self.sessions.0.usages.keep(self.name, self.uid, usage),
                        Some(Up::Hello(_)) | None => return "an unexpected message".into(),
                    }
                }
                Some(result) = writes.next() => {
                    // Id 0 is this master's own: the registration.
                    if result.id == 0 {
                        if result.code >= 400 {
                            tracing::warn!(node = self.name, code = result.code, message = result.message, "registration refused");
                        }
                        // No leader, others kept writing, or the store is full: nobody else would ask again.
                        if matches!(result.code, 409 | 503 | 507) {
                            register_at = Some(tokio::time::Instant::now() + REGISTER_PAUSE);
                        }
                    } else if !self.send(Down::WriteResult(result)).await {
                        return "the node went away".into();
                    }
                }
                () = due(register_at) => {
                    register_at = None;
                    let again = pb::Write { id: 0, write: Some(pb::write::Write::NodeStatus(node_json.clone())) };
                    writes.push(self.sessions.write(self.name, self.uid, again));
                }
                changed = watched.changed() => {
                    let root = self.sessions.root();
                    if changed == Changed::Node {
                        if let Err(refused) = check_node(&root, self.name, self.uid) {
                            // Not awaited for long: the channel's end tells the node as well.
                            let _ = self.down.try_send(Err(refused.clone()));
                            return refused.message().to_owned();
                        }
                        // The leader judged it silent, but here it is: its own word stands again.
                        if is_unknown(&root, self.name) {
                            register_at = Some(tokio::time::Instant::now());
                        }
                    }
                    if let Some(changes) = assigned.changes(&root, self.name, parts.epoch) {
                        watched.follow(self.sessions.replica(), assigned.referred(), root.revision());
                        if !self.send(Down::Assignment(changes)).await {
                            return "the node went away".into();
                        }
                    }
                }
                changed = trust.changed() => {
                    if changed.is_err() {
                        return "shutting down".into();
                    }
                    let trusted = trust.borrow_and_update().clone();
                    if !self.send(Down::Trust(trusted)).await {
                        return "the node went away".into();
                    }
                }
                changed = masters.changed() => {
                    if changed.is_err() {
                        return "shutting down".into();
                    }
                    let addresses = pb::Masters { api_addresses: masters.borrow_and_update().clone() };
                    if !self.send(Down::Masters(addresses)).await {
                        return "the node went away".into();
                    }
                }
            }
        }
    }

    /// False when the session is over: a node that takes no messages for so long is as silent as one that sends none, and
    /// must not keep the session from seeing that another took its place.
    async fn send(&self, message: Down) -> bool {
        let message = Ok(pb::MasterMessage { message: Some(message) });
        tokio::select! {
            () = self.ended.cancelled() => false,
            sent = self.down.send_timeout(message, SILENCE_MAX) => sent.is_ok(),
        }
    }
}

/// Waits until the time, or for ever without one.
async fn due(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the Node's readiness is Unknown.
fn is_unknown(root: &State, name: &str) -> bool {
    root.get(&Key::node(name))
        .is_some_and(|record| record.header.fields.get("ready").is_some_and(|ready| ready == "unknown"))
}

/// Whether a node without a session is one that was there a moment ago.
fn may_come_back(root: &State, name: &str) -> bool {
    root.get(&Key::node(name)).is_some() && !is_unknown(root, name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Node,
    Other,
}

/// Wakes a session when its pods, its Node, or an object its pods refer to changed.
struct Watched {
    streams: StreamMap<Option<Key>, futures::stream::BoxStream<'static, Changed>>,
    node: Key,
}

impl Watched {
    fn new(replica: &Replica, node: &str, after: Revision) -> Self {
        let mut watched = Self { streams: StreamMap::new(), node: Key::node(node) };
        let pods = Filter { resource: "pods".into(), node: Some(node.to_owned()), ..Filter::default() };
        watched.streams.insert(None, signals(replica, pods, after, Changed::Other));
        let own = Filter { resource: "nodes".into(), name: Some(node.to_owned()), ..Filter::default() };
        watched.streams.insert(Some(watched.node.clone()), signals(replica, own, after, Changed::Node));
        watched
    }

    /// Watches exactly these objects beside the pods and the Node.
    fn follow(&mut self, replica: &Replica, keys: BTreeSet<Key>, after: Revision) {
        let gone: Vec<_> = self
            .streams
            .keys()
            .filter(|key| key.as_ref().is_some_and(|key| *key != self.node && !keys.contains(key)))
            .cloned()
            .collect();
        for key in gone {
            self.streams.remove(&key);
        }
        for key in keys {
            if self.streams.contains_key(&Some(key.clone())) {
                continue;
            }
            let filter = Filter {
                group: key.group.clone(),
                resource: key.resource.clone(),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..Filter::default()
            };
            self.streams.insert(Some(key), signals(replica, filter, after, Changed::Other));
        }
    }

    async fn changed(&mut self) -> Changed {
        match self.streams.next().await {
            Some((_, changed)) => changed,
            // All watchers ended; the session's own channels end it.
            None => std::future::pending().await,
        }
    }
}

/// One signal per batch of events. A watcher that compaction overtook signals too and goes on from the newest root: the
/// session compares whole roots, so nothing is missed.
fn signals(
    replica: &Replica,
    filter: Filter,
    after: Revision,
    signal: Changed,
) -> futures::stream::BoxStream<'static, Changed> {
    let (watcher, replica) = (replica.watch(filter.clone(), after), replica.clone());
    futures::stream::unfold((watcher, replica, filter), move |(mut watcher, replica, filter)| async move {
        if watcher.next().await.is_err() {
            watcher = replica.watch(filter.clone(), replica.root().revision());
        }
        Some((signal, (watcher, replica, filter)))
    })
    .boxed()
}
