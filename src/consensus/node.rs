//! One member: opens the disk, starts openraft and the tasks around it, and is the [`replica::Backend`] of this process.
//!
//! Consensus has a runtime of its own, so that nothing else in the process delays a heartbeat.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::SnapshotPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use replica::hub::Hub;
use replica::{Backend, Leadership, MemberId, Replica, Term};
use state::{Command, Outcome, Refusal, Revision, State};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::batcher::{Attempt, Batcher, COMMAND_BYTES, LIMIT, Parts};
use crate::leadership::{Contact, Watcher};
use crate::log::{LogStore, Owner};
use crate::members::{MemberState, Status};
use crate::network::Network;
use crate::peers::Peers;
use crate::reads::Reads;
use crate::snapshot::Snapshots;
use crate::state_machine::{Published, StateMachine};
use crate::state_store::StateStore;
use crate::storage::{Storage, rocks::Rocks};
use crate::transport::{Change, PeerTransport};
use crate::types::{Member, Raft};

/// Between two tries of a proposal or read while there is no leader, unless leadership changes before.
const RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `log/`, `log.synced`, `state/` and `snapshots/`.
    pub data_dir: PathBuf,
    pub cluster_id: String,
    pub member: Member,
    pub heartbeat_ms: u64,
    /// An election begins after the maximum plus a random part between the two; the maximum is also the leader's lease.
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// A snapshot is taken after so many entries, or so many bytes of them.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot, for members that are a little late.
    pub keep_entries: u64,
    /// For proposal ids: must differ at every start.
    pub seed: u64,
    /// Threads of the consensus runtime.
    pub workers: usize,
}

impl Config {
    pub fn new(data_dir: impl Into<PathBuf>, cluster_id: impl Into<String>, member: Member, seed: u64) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_id: cluster_id.into(),
            member,
            heartbeat_ms: 40,
            election_ms_min: 120,
            election_ms_max: 200,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 1_000,
            seed,
            workers: 1,
        }
    }

    fn raft(&self) -> Result<openraft::Config, Error> {
        let config = openraft::Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            enable_pre_vote: Some(true),
            // A leader that restarts within its term would read before it knows what it had committed.
            enable_leader_restore: Some(false),
            install_snapshot_timeout: 30 * 60 * 1000,
            max_payload_entries: 256,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            replication_lag_threshold: self.snapshot_entries.saturating_mul(2),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: 64.min(self.keep_entries.max(1)),
            // The defaults reserve room for tens of thousands of messages.
            api_channel_size: Some(4096),
            notification_channel_size: Some(4096),
            state_machine_channel_size: Some(256),
            backoff: "20ms 40ms 80ms ...500ms".into(),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| Error::Invalid(error.to_string()))
    }
}

/// What all tasks and handles of one member share.
pub(crate) struct Inner {
    pub id: MemberId,
    pub raft: Raft,
    pub transport: Arc<dyn PeerTransport>,
    pub storage: Arc<dyn Storage>,
    pub data_dir: PathBuf,
    pub published: Arc<Published>,
    pub snapshots: Arc<Snapshots>,
    pub contact: Arc<Contact>,
    pub batcher: Batcher,
    pub reads: Reads,
    leadership: watch::Receiver<Leadership>,
    random: Mutex<StdRng>,
    member: Member,
    log: LogStore,
    store: StateStore,
}

/// A running member.
pub struct Consensus {
    inner: Arc<Inner>,
    /// `None` once stopped.
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
}

/// Starts this member from its data directory, which a first start fills. It takes part once [`Consensus::initialize`]
/// made it the first member or a leader added it.
pub async fn start(config: Config, transport: Arc<dyn PeerTransport>) -> Result<Consensus, Error> {
    start_on(config, transport, Rocks::new()).await
}

/// [`start`] on another disk.
pub async fn start_on(
    config: Config,
    transport: Arc<dyn PeerTransport>,
    storage: Arc<dyn Storage>,
) -> Result<Consensus, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers.max(1))
        .max_blocking_threads(4)
        .thread_name("hactl-consensus")
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let started = handle.spawn(open(config, transport, storage)).await;
    let outcome = started.map_err(|error| Error::Stopped(error.to_string())).and_then(|outcome| outcome);
    match outcome {
        Ok(inner) => Ok(Consensus { inner, runtime: Mutex::new(Some(runtime)), handle }),
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

async fn open(
    config: Config,
    transport: Arc<dyn PeerTransport>,
    storage: Arc<dyn Storage>,
) -> Result<Arc<Inner>, Error> {
    let id = config.member.id;
    let owner = Owner { cluster_id: config.cluster_id.clone(), member_id: id };
    let (dir, disk) = (config.data_dir.clone(), storage.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let log = LogStore::open(disk.as_ref(), &dir, &owner)?;
        let (store, loaded) = StateStore::open(disk.clone(), &dir)?;
        Ok::<_, Error>((log, store, loaded, Snapshots::open(disk, &dir)?))
    });
    let (log, store, loaded, snapshots) = opened.await.map_err(|error| Error::Stopped(error.to_string()))??;
    let snapshots = Arc::new(snapshots);
    let published = Arc::new(Published::new(&loaded, config.snapshot_bytes));
    let machine = StateMachine::new(loaded, published.clone(), store.clone(), snapshots.clone());
    let network = Network { transport: transport.clone() };
    let last_at_start = log.last().map(|id| id.index);
    let raft = Raft::new(id, Arc::new(config.raft()?), network, log.clone(), machine).await;
    let raft =
        raft.map_err(|error| Error::Storage(format!("cannot start from {}: {error}", config.data_dir.display())))?;
    // The metrics begin empty: whoever asks for the members right after the start must find those on disk.
    let stopped = |error: String| Error::Stopped(error);
    let members = raft.with_raft_state(|state| state.membership_state.effective().nodes().count()).await;
    let members = members.map_err(|error| stopped(error.to_string()))?;
    let known = raft.metrics().wait_until(|metrics| metrics.membership_config.nodes().count() >= members).await;
    known.map_err(|_| stopped("while starting".into()))?;

    let contact = Arc::new(Contact::new());
    let (out, leadership) = watch::channel(Leadership::default());
    let lease = Duration::from_millis(config.election_ms_max);
    let watcher = Watcher { id, raft: raft.clone(), contact: contact.clone(), lease, last_at_start, out };
    tokio::spawn(watcher.run());
    tokio::spawn(snapshot_by_bytes(raft.clone(), published.clone()));
    let parts = Parts { id, raft: raft.clone(), transport: transport.clone(), published: published.clone() };
    Ok(Arc::new(Inner {
        id,
        batcher: Batcher::start(parts),
        reads: Reads::start(id, raft.clone(), transport.clone(), published.clone()),
        raft,
        transport,
        storage,
        data_dir: config.data_dir,
        published,
        snapshots,
        contact,
        leadership,
        random: Mutex::new(StdRng::seed_from_u64(config.seed)),
        member: config.member,
        log,
        store,
    }))
}

/// openraft takes snapshots by entries; large entries make one due earlier.
async fn snapshot_by_bytes(raft: Raft, published: Arc<Published>) {
    loop {
        published.snapshot_wanted.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

impl Consensus {
    /// The handle for everything above.
    pub fn replica(&self) -> Replica {
        Replica::new(self.inner.clone())
    }

    /// What other members call.
    pub fn peers(&self) -> Peers {
        Peers(self.inner.clone())
    }

    /// The runtime on which the peer port should be served too, so that nothing else delays its heartbeats.
    pub fn runtime(&self) -> &Handle {
        &self.handle
    }

    pub fn id(&self) -> MemberId {
        self.inner.id
    }

    /// Makes this the first and only member of a new cluster. Nothing if it is a member already.
    pub async fn initialize(&self) -> Result<(), Error> {
        let stopped = |error: String| Error::Stopped(error);
        if self.inner.raft.is_initialized().await.map_err(|error| stopped(error.to_string()))? {
            return Ok(());
        }
        let members = std::collections::BTreeMap::from([(self.inner.id, self.inner.member.clone())]);
        self.inner.raft.initialize(members).await.map_err(|error| Error::Invalid(error.to_string()))?;
        let mut leadership = self.inner.leadership.clone();
        leadership
            .wait_for(|leadership| leadership.leading.is_some())
            .await
            .map_err(|_| stopped("while starting".into()))?;
        Ok(())
    }

    /// Adds a member that receives everything and votes on nothing, or changes a member's addresses. Asks the leader.
    pub async fn add_learner(&self, member: Member) -> Result<(), Error> {
        self.inner.change(Change::AddLearner(member)).await
    }

    /// Makes a learner a voter as soon as it has caught up. Asks the leader.
    pub async fn promote(&self, id: MemberId) -> Result<(), Error> {
        self.inner.change(Change::Promote(id)).await
    }

    /// Removes a member; a leader hands over first. Asks the leader. Its id is never used again.
    pub async fn remove(&self, id: MemberId) -> Result<(), Error> {
        self.inner.change(Change::Remove(id)).await
    }

    /// Hands leadership to a voter, or (0) to the one that is furthest. Only the leader can.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), Error> {
        if to == 0 { self.inner.transfer_away().await } else { self.inner.transfer_to(to).await }
    }

    pub fn members(&self) -> Vec<MemberState> {
        self.inner.members()
    }

    pub async fn status(&self) -> Result<Status, Error> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.status()).await.map_err(|error| Error::Stopped(error.to_string()))
    }

    /// Waits until consensus has stopped by itself, because the disk failed, and says why. The process must be started
    /// again: what a failed sync left behind is only known from disk.
    pub async fn failed(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        // On consensus' own runtime: the metrics change with every heartbeat, which must wake no other thread.
        let failure = self.handle.spawn(async move {
            match metrics.wait_until(|metrics| metrics.running_state.is_err()).await {
                Ok(metrics) => metrics.running_state.err().map(|error| error.to_string()).unwrap_or_default(),
                Err(_) => "stopped".into(),
            }
        });
        failure.await.unwrap_or_else(|_| "stopped".into())
    }

    /// Takes a snapshot now, in the background.
    pub async fn snapshot(&self) -> Result<(), Error> {
        self.inner.raft.trigger().snapshot().await.map_err(|error| Error::Stopped(error.to_string()))
    }

    /// A planned stop: hands leadership over if it can, then stops and leaves everything on disk.
    pub async fn shutdown(&self) {
        let lonely = self.inner.members().iter().filter(|member| member.voter).count() < 2;
        if !lonely
            && self.inner.leadership.borrow().leading.is_some()
            && let Err(error) = self.inner.transfer_away().await
        {
            tracing::warn!("stopping as the leader: {error}");
        }
        self.stop(true).await;
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Stops at once, as a crash of the process would.
    #[cfg(test)]
    pub(crate) async fn kill(&self) {
        self.stop(false).await;
    }

    async fn stop(&self, flush: bool) {
        let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let _ = self.inner.raft.shutdown().await;
        let (log, store) = (self.inner.log.clone(), self.inner.store.clone());
        let closed = tokio::task::spawn_blocking(move || {
            store.close(flush);
            log.close();
        });
        let _ = closed.await;
        runtime.shutdown_background();
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        // A runtime must not be dropped within another one's task.
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    fn fresh_proposal(&self) -> Bytes {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.random::<u128>().to_be_bytes().to_vec().into()
    }

    fn encode(&self, mut command: Command) -> Result<Bytes, replica::Error> {
        if command.proposal.is_empty() {
            command.proposal = self.fresh_proposal();
        }
        let bytes = command.encode_to_vec();
        if bytes.len() > COMMAND_BYTES {
            return Err(replica::Error::TooLarge(format!(
                "a command of {} bytes, at most {COMMAND_BYTES}",
                bytes.len()
            )));
        }
        Ok(bytes.into())
    }

    /// Until leadership changes, or a little while.
    async fn before_retry(&self, leadership: &mut watch::Receiver<Leadership>, deadline: Instant) {
        let until = deadline.min(Instant::now() + RETRY);
        let _ = tokio::time::timeout_at(until, leadership.changed()).await;
    }
}

#[async_trait::async_trait]
impl Backend for Inner {
    async fn propose(&self, command: Command) -> Result<Outcome, replica::Error> {
        let bytes = self.encode(command)?;
        let deadline = Instant::now() + LIMIT;
        let mut unknown = None;
        loop {
            let mut leadership = self.leadership.clone();
            leadership.mark_unchanged();
            let why = match self.batcher.attempt(vec![bytes.clone()], deadline).await {
                Attempt::Applied { outcomes, .. } => return Ok(outcomes.into_iter().next().unwrap_or_default()),
                Attempt::Refused(why) => why,
                Attempt::Unknown(why) => unknown.insert(why).clone(),
            };
            if Instant::now() >= deadline || leadership.has_changed().is_err() {
                return Err(unknown.map_or(replica::Error::Unavailable(why), replica::Error::Unknown));
            }
            self.before_retry(&mut leadership, deadline).await;
        }
    }

    async fn propose_as_leader(&self, term: Term, mut command: Command) -> Result<Outcome, replica::Error> {
        let leads = || self.leadership.borrow().leading == Some(term);
        if !leads() {
            return Err(replica::Error::Deposed(term));
        }
        command.term = term;
        let bytes = self.encode(command)?;
        match self.batcher.attempt_here(vec![bytes], Instant::now() + LIMIT).await {
            Attempt::Applied { outcomes, .. } => {
                let outcome = outcomes.into_iter().next().unwrap_or_default();
                match outcome.refusal {
                    Some(Refusal::Deposed(_)) => Err(replica::Error::Deposed(term)),
                    _ => Ok(outcome),
                }
            }
            Attempt::Refused(why) if leads() => Err(replica::Error::Unavailable(why)),
            Attempt::Refused(_) => Err(replica::Error::Deposed(term)),
            Attempt::Unknown(why) => Err(replica::Error::Unknown(why)),
        }
    }

    async fn read(&self) -> Result<Arc<State>, replica::Error> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut leadership = self.leadership.clone();
            leadership.mark_unchanged();
            let why = match tokio::time::timeout_at(deadline, self.reads.read()).await {
                Ok(Ok(root)) => return Ok(root),
                Ok(Err(why)) => why,
                Err(_) => "no leader confirmed the read in time".to_string(),
            };
            if Instant::now() >= deadline || leadership.has_changed().is_err() {
                return Err(replica::Error::Unavailable(why));
            }
            self.before_retry(&mut leadership, deadline).await;
        }
    }

    fn root(&self) -> Arc<State> {
        self.published.root.load_full()
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.published.revision.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn hub(&self) -> &Hub {
        &self.published.hub
    }
}
