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
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::batcher::{Attempt, Batcher, COMMAND_BYTES, LIMIT, Parts};
use crate::disk::Disk;
use crate::kept::Kept;
use crate::leadership::{Contact, Watcher};
use crate::log::{LogStore, Owner};
use crate::members::{MemberState, Status};
use crate::network::Network;
use crate::peers::Peers;
use crate::quarantine;
use crate::reads::Reads;
use crate::refill;
use crate::room::Room;
use crate::runtime::Runtime;
use crate::snapshot::Snapshots;
use crate::state_machine::{Published, StateMachine};
use crate::state_store::{self, Loaded, Rebuild, StateStore};
use crate::storage::{Storage, rocks::Rocks};
use crate::supervisor::{Lasting, Slot};
use crate::ticks::Ticks;
use crate::transport::{Change, PeerTransport};
use crate::types::{Member, Raft};

/// Between two tries of a proposal or read while there is no leader, unless leadership changes before.
const RETRY: Duration = Duration::from_millis(20);

/// How long a read waits on a member whose disk is full.
const READ_FULL: Duration = Duration::from_secs(1);

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
    /// Entries kept behind a snapshot, for members that are a little late, as long as they are at most half of
    /// `snapshot_bytes`.
    pub keep_entries: u64,
    /// Commands that go into one log entry together; a single larger one has an entry of its own.
    pub batch_bytes: usize,
    /// For proposal ids: must differ at every start.
    pub seed: u64,
    /// The newest version of the state whose rules this member follows: a simulated member may be of an older build.
    pub newest_version: u32,
    /// Bytes free on the file system of `data_dir` below which this member takes nothing new; 0: it is not watched.
    pub disk_reserve: u64,
}

impl Config {
    pub fn new(data_dir: impl Into<PathBuf>, cluster_id: impl Into<String>, member: Member, seed: u64) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_id: cluster_id.into(),
            member,
            heartbeat_ms: 75,
            election_ms_min: 150,
            election_ms_max: 200,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 1_000,
            batch_bytes: 2 << 20,
            seed,
            newest_version: state::VERSION,
            disk_reserve: 0,
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
            // What goes is decided here, by bytes too: see `purge_behind_snapshots`.
            max_in_snapshot_log_to_keep: u64::MAX,
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

/// What all tasks and handles of one member share, from one opening of its disk to the next.
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
    pub disk: Arc<Disk>,
    room: Arc<Room>,
    random: Arc<Mutex<StdRng>>,
    member: Member,
    log: LogStore,
    store: StateStore,
}

/// A running member.
pub struct Consensus {
    slot: Arc<Slot>,
    /// `None` once stopped, and where it runs on that of its maker.
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
    let runtime = Runtime::start()?;
    let handle = runtime.handle().clone();
    let started = handle.spawn(Slot::open(lasting(config, transport, storage))).await;
    let outcome = started.map_err(|error| Error::Stopped(error.to_string())).and_then(|outcome| outcome);
    Ok(Consensus { slot: outcome?, runtime: Mutex::new(Some(runtime)), handle })
}

/// [`start_on`] among the tasks of the present runtime: a simulation has many members in one thread.
pub async fn start_here(
    config: Config,
    transport: Arc<dyn PeerTransport>,
    storage: Arc<dyn Storage>,
) -> Result<Consensus, Error> {
    let slot = Slot::open(lasting(config, transport, storage)).await?;
    Ok(Consensus { slot, runtime: Mutex::new(None), handle: Handle::current() })
}

fn lasting(config: Config, transport: Arc<dyn PeerTransport>, storage: Arc<dyn Storage>) -> Lasting {
    let disk = Disk::new(storage.clone(), &config.data_dir, config.disk_reserve);
    let leadership = Arc::new(watch::Sender::new(Leadership::default()));
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(config.seed)));
    Lasting { config, transport, storage, disk, leadership, random }
}

/// Opens the disk and starts openraft on it. `published` is what readers saw of an opening before.
pub(crate) async fn open(lasting: Lasting, published: Option<Arc<Published>>) -> Result<Arc<Inner>, Error> {
    let Lasting { config, transport, storage, disk, leadership: out, random } = lasting;
    let id = config.member.id;
    let owner = Owner { cluster_id: config.cluster_id.clone(), member_id: id };
    let (dir, files, watched) = (config.data_dir.clone(), storage.clone(), disk.clone());
    let place = storage.place();
    let opened = place.call(move || {
        watched.make_room();
        let log = LogStore::open(files.as_ref(), watched, &dir, &owner)?;
        Ok::<_, Error>((Snapshots::open(files, &dir), log))
    });
    let (snapshots, log) = opened.await??;
    let loaded = async {
        let snapshots = Arc::new(snapshots?);
        let (store, loaded) = load_state(&config, &storage, &transport, &log, &snapshots).await?;
        Ok::<_, Error>((store, loaded, snapshots))
    };
    let (store, loaded, snapshots) = match loaded.await {
        Ok(loaded) => loaded,
        Err(error) => {
            log.close().await;
            return Err(error);
        }
    };
    if let Err(error) = snapshots.cover(&log, &store, loaded.applied).await {
        store.close(false).await;
        log.close().await;
        return Err(error);
    }
    let published = published.unwrap_or_else(|| {
        let kept = Kept::new(config.keep_entries, config.snapshot_bytes / 2);
        Arc::new(Published::new(&loaded, config.snapshot_bytes, kept))
    });
    let covered = snapshots.current().and_then(|snapshot| snapshot.meta.last_log_id);
    published.count_log(&log.take_sizes(), covered, loaded.applied);
    let machine = StateMachine::new(loaded, published.clone(), store.clone(), snapshots.clone());
    let room = Arc::new(Room::default());
    let network = Network { transport: transport.clone(), room: room.clone() };
    let last_at_start = log.last().map(|id| id.index);
    let raft = Raft::new(id, Arc::new(config.raft()?), network, log.clone(), machine).await;
    let raft = match raft {
        Ok(raft) => raft,
        Err(error) => {
            store.close(false).await;
            log.close().await;
            return Err(Error::Storage(format!("cannot start from {}: {error}", config.data_dir.display())));
        }
    };
    // The metrics begin empty: whoever asks for the members right after the start must find those on disk.
    let stopped = |error: String| Error::Stopped(error);
    let members = raft.with_raft_state(|state| state.membership_state.effective().nodes().count()).await;
    let members = members.map_err(|error| stopped(error.to_string()))?;
    let known = raft.metrics().wait_until(|metrics| metrics.membership_config.nodes().count() >= members).await;
    known.map_err(|_| stopped("while starting".into()))?;

    let contact = Arc::new(Contact::new());
    let leadership = out.subscribe();
    let lease = Duration::from_millis(config.election_ms_max);
    if published.quarantined.get().is_some() {
        raft.runtime_config().elect(false);
    }
    let ticks = Ticks {
        raft: raft.clone(),
        contact: contact.clone(),
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        quiet: lease,
    };
    tokio::spawn(ticks.run());
    let watcher = Watcher {
        id,
        raft: raft.clone(),
        contact: contact.clone(),
        published: published.clone(),
        lease,
        last_at_start,
        out,
    };
    tokio::spawn(watcher.run());
    tokio::spawn(snapshot_by_bytes(raft.clone(), published.clone()));
    tokio::spawn(purge_behind_snapshots(raft.clone(), published.clone()));
    let parts = Parts {
        id,
        raft: raft.clone(),
        transport: transport.clone(),
        published: published.clone(),
        disk: disk.clone(),
        room: room.clone(),
        batch_bytes: config.batch_bytes,
    };
    let inner = Arc::new(Inner {
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
        disk,
        room,
        random,
        member: config.member,
        log,
        store,
    });
    tokio::spawn(finish_changes(Arc::downgrade(&inner), inner.leadership.clone()));
    Ok(inner)
}

/// Opens `state/`; one that is damaged is built again, from another member where this one's disk does not suffice.
async fn load_state(
    config: &Config,
    storage: &Arc<dyn Storage>,
    transport: &Arc<dyn PeerTransport>,
    log: &LogStore,
    snapshots: &Arc<Snapshots>,
) -> Result<(StateStore, Loaded), Error> {
    let (id, data_dir, newest) = (config.member.id, config.data_dir.as_path(), config.newest_version);
    // Read before it is written anew.
    let (files, dir) = (storage.clone(), data_dir.to_owned());
    let noted = storage.place().call(move || state_store::members(files.as_ref(), &dir)).await?;
    let others = refill::others(id, log, noted, snapshots);
    let open = || {
        let (storage, dir, log, snapshots) = (storage.clone(), data_dir.to_owned(), log.clone(), snapshots.clone());
        let open = storage.place().call(move || {
            let from_the_start = log.is_from_the_start();
            let rebuild = Rebuild { from_the_start, purged: log.purged(), snapshots: &snapshots };
            StateStore::open(storage, &dir, &rebuild, newest)
        });
        async move { open.await? }
    };
    let why = match open().await {
        Err(Error::Corrupt(why)) => why,
        outcome => return outcome,
    };
    let Some(purged) = log.purged().filter(|_| !others.is_empty()) else { return Err(Error::Corrupt(why)) };
    tracing::error!("{why}");
    tracing::warn!(
        "the log of this member is whole: its state is fetched from another member. Check the disk all the same"
    );
    let last = refill::fetch(transport.as_ref(), &others, snapshots, purged).await?;
    log.clone().drop_conflicting(last).await?;
    open().await
}

/// Whoever begins to lead ends what the leader before left half made.
async fn finish_changes(inner: std::sync::Weak<Inner>, mut leadership: watch::Receiver<Leadership>) {
    let mut finished = None;
    loop {
        let leading = leadership.borrow_and_update().leading;
        if leading.is_some() && leading != finished {
            let Some(inner) = inner.upgrade() else { return };
            match inner.finish_change().await {
                Ok(()) => finished = leading,
                Err(error) => {
                    tracing::warn!(%error, "a change of members stays half made; trying again");
                    drop(inner);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// openraft takes snapshots by entries; large entries make one due earlier.
async fn snapshot_by_bytes(raft: Raft, published: Arc<Published>) {
    loop {
        published.snapshot_wanted.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            // Perhaps the next opening of the disk listens already.
            published.snapshot_wanted.notify_one();
            return;
        }
    }
}

/// Drops from the log what a snapshot covers, but for what is kept; takes the next one where it is due already.
async fn purge_behind_snapshots(raft: Raft, published: Arc<Published>) {
    let mut metrics = raft.metrics();
    loop {
        let upto = published.snapshot_taken().await;
        // Until openraft has taken note of it, nothing can go.
        let noted = metrics.wait_until(|metrics| metrics.snapshot.is_some_and(|id| id.index >= upto)).await;
        if noted.is_err() {
            return;
        }
        // openraft does not take one while it takes another.
        published.ask_for_snapshot();
        if let Some(beyond) = published.beyond_kept()
            && raft.trigger().purge_log(beyond.min(upto)).await.is_err()
        {
            return;
        }
    }
}

impl Consensus {
    /// The handle for everything above.
    pub fn replica(&self) -> Replica {
        Replica::new(self.slot.clone())
    }

    /// What other members call.
    pub fn peers(&self) -> Peers {
        Peers(self.slot.clone())
    }

    /// The runtime on which the peer port should be served too, so that nothing else delays its heartbeats.
    pub fn runtime(&self) -> &Handle {
        &self.handle
    }

    pub fn id(&self) -> MemberId {
        self.slot.now().id
    }

    /// Makes this the first and only member of a new cluster. Nothing if it is a member already.
    pub async fn initialize(&self) -> Result<(), Error> {
        let stopped = |error: String| Error::Stopped(error);
        let inner = self.slot.now();
        if inner.raft.is_initialized().await.map_err(|error| stopped(error.to_string()))? {
            return Ok(());
        }
        let members = std::collections::BTreeMap::from([(inner.id, inner.member.clone())]);
        inner.raft.initialize(members).await.map_err(|error| Error::Invalid(error.to_string()))?;
        let mut leadership = inner.leadership.clone();
        leadership
            .wait_for(|leadership| leadership.leading.is_some())
            .await
            .map_err(|_| stopped("while starting".into()))?;
        Ok(())
    }

    /// Adds a member that receives everything and votes on nothing, or changes a member's addresses. Asks the leader.
    pub async fn add_learner(&self, member: Member) -> Result<(), Error> {
        self.slot.now().change(Change::AddLearner(member)).await
    }

    /// Makes a learner a voter as soon as it has caught up. Asks the leader.
    pub async fn promote(&self, id: MemberId) -> Result<(), Error> {
        self.slot.now().change(Change::Promote(id)).await
    }

    /// Removes a member; a leader hands over first. Asks the leader. Its id is never used again.
    pub async fn remove(&self, id: MemberId) -> Result<(), Error> {
        self.slot.now().change(Change::Remove(id)).await
    }

    /// Hands leadership to a voter, or (0) to the one that is furthest. Only the leader can.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), Error> {
        if to == 0 { self.slot.now().transfer_away().await } else { self.slot.now().transfer_to(to).await }
    }

    /// As [`Self::transfer_leader`], asking the leader.
    pub async fn ask_to_transfer(&self, to: MemberId) -> Result<(), Error> {
        self.slot.now().change(Change::Transfer(to)).await
    }

    pub fn members(&self) -> Vec<MemberState> {
        self.slot.now().members()
    }

    pub async fn status(&self) -> Result<Status, Error> {
        let slot = self.slot.clone();
        let place = slot.now().storage.place();
        let status = place.call(move || {
            let mut status = slot.now().status();
            status.problem = slot.trouble().or(slot.quarantined()).or(status.problem);
            status
        });
        status.await
    }

    /// Why this member takes nothing new: its disk is full, or it failed and is not open again yet.
    pub fn disk_problem(&self) -> Option<String> {
        self.slot.trouble().or_else(|| self.slot.disk.full())
    }

    pub fn is_disk_full(&self) -> bool {
        self.slot.disk.is_full()
    }

    /// Waits until this member cannot go on, because what is on its disk cannot be trusted, and says why.
    pub async fn failed(&self) -> String {
        self.slot.over().await
    }

    /// The hash of this member's state at a revision, if that was lately.
    pub fn hash_at(&self, revision: Revision) -> Option<u128> {
        self.slot.published.hash_at(revision)
    }

    /// Why this member's state is shown to nobody any more, with the cure.
    pub fn quarantined(&self) -> Option<String> {
        self.slot.quarantined()
    }

    /// This member's state cannot be trusted: it marks itself, hands leadership over and serves nobody, now and after
    /// every start, until it is replaced. Its log and vote are right, so it goes on following. Can be repeated.
    pub async fn quarantine(&self, why: &str) {
        let inner = self.slot.now();
        if self.slot.quarantined().is_none() {
            let (marked, why) = (inner.clone(), why.to_owned());
            let place = marked.storage.place();
            let marked =
                place.call(move || quarantine::mark(marked.storage.as_ref(), &marked.data_dir, &marked.member, &why));
            let Ok(why) = marked.await else { return };
            // Told twice at once: the first one stays.
            let _ = self.slot.published.quarantined.set(format!("is quarantined: {why}"));
            metrics::gauge!("hactl_state_quarantined").set(1.0);
        }
        inner.raft.runtime_config().elect(false);
        inner.contact.look_again();
        let leads = inner.raft.metrics().borrow_watched().current_leader == Some(inner.id);
        if leads && let Err(error) = self.slot.now().transfer_away().await {
            tracing::error!("this member is quarantined, and leadership could not be handed over: {error}");
        }
    }

    /// Takes a snapshot now, in the background.
    pub async fn snapshot(&self) -> Result<(), Error> {
        self.slot.now().raft.trigger().snapshot().await.map_err(|error| Error::Stopped(error.to_string()))
    }

    /// A planned stop: hands leadership over if it can, then stops and leaves everything on disk.
    pub async fn shutdown(&self) {
        let inner = self.slot.now();
        let lonely = inner.members().iter().filter(|member| member.voter).count() < 2;
        if !lonely
            && inner.leadership.borrow().leading.is_some()
            && let Err(error) = inner.transfer_away().await
        {
            tracing::warn!("stopping as the leader: {error}");
        }
        self.stop(true).await;
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.slot.now()
    }

    /// Stops at once, as a crash of the process would. For tests and simulations.
    pub async fn kill(&self) {
        self.stop(false).await;
    }

    async fn stop(&self, flush: bool) {
        self.slot.begin_to_stop();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        // On its own runtime: the state of openraft's tasks is there.
        let slot = self.slot.clone();
        let _ = self.handle.spawn(async move { slot.stop(flush).await }).await;
        if let Some(runtime) = runtime {
            runtime.end().await;
        }
    }
}

impl Inner {
    /// Waits until the log or the state cannot be written any more, and says why.
    pub(crate) async fn failure(&self) -> String {
        let mut metrics = self.raft.metrics();
        tokio::select! {
            stopped = metrics.wait_until(|metrics| metrics.running_state.is_err()) => match stopped {
                Ok(metrics) => metrics.running_state.err().map(|error| error.to_string()).unwrap_or_default(),
                Err(_) => "consensus has stopped".into(),
            },
            why = self.store.failure() => why,
        }
    }

    /// Stops, and closes the databases.
    pub(crate) async fn close(&self, flush: bool) {
        let _ = self.raft.shutdown().await;
        self.store.close(flush).await;
        self.log.close().await;
    }

    fn is_over(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_err()
    }

    /// Why this member takes no proposals.
    pub(crate) fn refusal(&self) -> Option<String> {
        let why = self.published.quarantined.get().cloned().or_else(|| self.disk.full())?;
        Some(format!("member {} {why}", self.id))
    }

    /// Why this member as the leader can write nothing, if too few of the others have room.
    pub(crate) fn lacks_room(&self) -> Option<String> {
        self.room.lacks(&self.raft.metrics().borrow_watched(), self.disk.full())
    }

    fn check_able(&self) -> Result<(), replica::Error> {
        self.lacks_room().or_else(|| self.refusal()).map_or(Ok(()), |why| Err(replica::Error::Unavailable(why)))
    }

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

    /// Why a read is not answered here although somebody may lead.
    fn behind(&self) -> Option<String> {
        let why = self.disk.full()?;
        Some(format!("member {} {why}. What was written meanwhile only the other masters have", self.id))
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
        self.check_able()?;
        let bytes = self.encode(command)?;
        let deadline = Instant::now() + LIMIT;
        let mut unknown = None;
        let mut refused: Option<String> = None;
        loop {
            let mut leadership = self.leadership.clone();
            leadership.mark_unchanged();
            let bytes = if state::mutants::is_chosen("fresh-proposal") {
                let again = Command::decode(bytes.clone()).unwrap_or_default();
                self.encode(Command { proposal: Bytes::new(), ..again })?
            } else {
                bytes.clone()
            };
            let why = match self.batcher.attempt(vec![bytes], deadline).await {
                Attempt::Applied { outcomes, .. } => return Ok(outcomes.into_iter().next().unwrap_or_default()),
                // A try that the deadline ended says less than the one before.
                Attempt::Refused(why) if Instant::now() >= deadline => refused.take().unwrap_or(why),
                Attempt::Refused(why) => refused.insert(why).clone(),
                Attempt::Unknown(why) => unknown.insert(why).clone(),
                Attempt::NoRoom(why) => {
                    return Err(unknown.map_or(replica::Error::Unavailable(why), replica::Error::Unknown));
                }
            };
            if Instant::now() >= deadline || self.is_over() || self.lacks_room().is_some() {
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
        self.check_able()?;
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
            Attempt::NoRoom(why) => Err(replica::Error::Unavailable(why)),
            Attempt::Refused(why) if leads() => Err(replica::Error::Unavailable(why)),
            Attempt::Refused(_) => Err(replica::Error::Deposed(term)),
            Attempt::Unknown(why) => Err(replica::Error::Unknown(why)),
        }
    }

    async fn read(&self) -> Result<Arc<State>, replica::Error> {
        if let Some(why) = self.published.quarantined.get() {
            return Err(replica::Error::Unavailable(format!("member {} {why}", self.id)));
        }
        // A full member gets nothing new: whatever it does not have soon it will not have.
        let limit = if self.disk.is_full() { READ_FULL } else { LIMIT };
        let deadline = Instant::now() + limit;
        loop {
            let mut leadership = self.leadership.clone();
            leadership.mark_unchanged();
            let why = match tokio::time::timeout_at(deadline, self.reads.read()).await {
                Ok(Ok(root)) => return Ok(root),
                Ok(Err(why)) => why,
                Err(_) => self.behind().unwrap_or_else(|| "no leader confirmed the read in time".to_string()),
            };
            if Instant::now() >= deadline || self.is_over() {
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
