//! openraft's state machine: applies committed entries to the state in memory, publishes the root, answers the proposers,
//! and hands the rows to `state/`.
//!
//! **Invariant:** whoever is told an outcome finds it in the root: the root is published before answers, the applied index
//! and the hub's wake-ups.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{Stream, TryStreamExt as _};
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use replica::hub::Hub;
use state::{EntryId, Event, Outcome, Revision, State};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kept::Kept;
use crate::rows;
use crate::snapshot::{Snapshot, SnapshotData, Snapshots};
use crate::state_store::{Loaded, StateStore};
use crate::storage::Write;
use crate::types::{Answers, Batch, LogId, SnapshotMeta, StoredMembership, Types};
use crate::wire;

/// Rows gathered before they are handed on.
const ROWS_BYTES: usize = 1 << 20;

/// After so long `apply` lets others have the thread before the next command: an entry may hold thousands of changes, and
/// heartbeats wait for none of them.
const TURN: Duration = Duration::from_millis(2);

/// The applied part of the log, for those who wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index after the last applied entry.
    pub next: u64,
    /// The term of the last applied entry.
    pub term: u64,
}

impl Applied {
    fn of(id: Option<LogId>) -> Self {
        id.map_or(Self::default(), |id| Self { next: id.index + 1, term: id.leader_id.term })
    }
}

/// What the rest of this crate sees of the state machine.
pub struct Published {
    pub root: ArcSwap<State>,
    pub revision: watch::Sender<Revision>,
    pub applied: watch::Sender<Applied>,
    pub hub: Hub,
    /// Bytes of log applied since the last snapshot began.
    pub unsnapshotted: AtomicU64,
    /// Told when that passes the limit.
    pub snapshot_wanted: tokio::sync::Notify,
    pub snapshot_bytes: u64,
    /// What of the log stays behind a snapshot.
    kept: Mutex<Kept>,
    /// The last entry that the newest snapshot taken here covers, and who purges behind it is told.
    snapshot_upto: AtomicU64,
    snapshot_taken: tokio::sync::Notify,
    /// Why this build cannot go on with the log: its state follows rules of a newer one.
    pub beyond: OnceLock<String>,
    /// Why the state cannot be trusted, with the cure: it is not shown to anybody any more.
    pub quarantined: OnceLock<String>,
    /// The hash of the state at the latest revisions.
    hashes: Mutex<VecDeque<(Revision, u128)>>,
}

/// Revisions whose hash is remembered: more than are written while a question to another member is under way.
const HASHES: usize = 4096;

impl Published {
    pub fn new(loaded: &Loaded, snapshot_bytes: u64, kept: Kept) -> Self {
        let known = VecDeque::from([(loaded.state.revision(), loaded.state.hash())]);
        Self {
            root: ArcSwap::from_pointee(loaded.state.clone()),
            revision: watch::Sender::new(loaded.state.revision()),
            applied: watch::Sender::new(Applied::of(loaded.applied)),
            hub: Hub::default(),
            unsnapshotted: AtomicU64::new(0),
            snapshot_wanted: tokio::sync::Notify::new(),
            snapshot_bytes,
            kept: Mutex::new(kept),
            snapshot_upto: AtomicU64::new(0),
            snapshot_taken: tokio::sync::Notify::new(),
            beyond: OnceLock::new(),
            quarantined: OnceLock::new(),
            hashes: Mutex::new(known),
        }
    }

    /// After every entry on every member, so that all remember the same revisions.
    fn note_hash(&self, revision: Revision, hash: u128) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.back().is_some_and(|(last, _)| *last >= revision) {
            return;
        }
        if hashes.len() >= HASHES {
            hashes.pop_front();
        }
        hashes.push_back((revision, hash));
    }

    /// The hash of the state after the entry that made this revision the last one, if that was lately.
    pub fn hash_at(&self, revision: Revision) -> Option<u128> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = hashes.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        Some(hashes[at].1)
    }

    /// Begins with what the log holds, by index and size: its entries from `snapshot` to `applied` are in no snapshot yet.
    pub fn count_log(&self, sizes: &[(u64, u64)], snapshot: Option<LogId>, applied: Option<LogId>) {
        let mut unsnapshotted = 0;
        for (index, bytes) in sizes.iter().filter(|(index, _)| applied.is_some_and(|applied| *index <= applied.index)) {
            self.kept().note(*index, *bytes);
            if snapshot.is_none_or(|snapshot| *index > snapshot.index) {
                unsnapshotted += bytes;
            }
        }
        self.unsnapshotted.store(unsnapshotted, Ordering::Relaxed);
        self.ask_for_snapshot();
    }

    /// Has a snapshot taken if so much was applied since the last one began.
    pub fn ask_for_snapshot(&self) {
        let bytes = self.unsnapshotted.load(Ordering::Relaxed);
        if bytes > 0 && bytes >= self.snapshot_bytes {
            self.snapshot_wanted.notify_one();
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a snapshot that was taken here; the last entry in it.
    pub async fn snapshot_taken(&self) -> u64 {
        self.snapshot_taken.notified().await;
        self.snapshot_upto.load(Ordering::Relaxed)
    }

    /// The last entry that need not stay in the log behind a snapshot.
    pub fn beyond_kept(&self) -> Option<u64> {
        self.kept().beyond()
    }

    /// Waits until the entry at `index` is in the root.
    pub async fn wait_applied(&self, index: u64) {
        // The sender lives as long as `self`.
        let _ = self.applied.subscribe().wait_for(|applied| applied.next > index).await;
    }
}

pub struct StateMachine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: Arc<Published>,
    store: StateStore,
    snapshots: Arc<Snapshots>,
    rows: Vec<Write>,
    rows_bytes: usize,
}

impl StateMachine {
    pub fn new(loaded: Loaded, published: Arc<Published>, store: StateStore, snapshots: Arc<Snapshots>) -> Self {
        Self {
            state: loaded.state,
            applied: loaded.applied,
            membership: loaded.membership,
            published,
            store,
            snapshots,
            rows: Vec::new(),
            rows_bytes: 0,
        }
    }

    async fn apply_batch(&mut self, entry: EntryId, batch: &Batch) -> (Vec<Outcome>, Vec<Arc<Event>>) {
        let mut outcomes = Vec::new();
        let mut events = Vec::new();
        let mut began = Instant::now();
        for command in batch.commands() {
            if began.elapsed() > TURN {
                tokio::task::yield_now().await;
                began = Instant::now();
            }
            let applied = self.state.apply(entry, &command);
            rows::changed(&applied, &mut self.rows);
            outcomes.push(applied.outcome);
            events.extend(applied.events);
        }
        (outcomes, events)
    }

    fn publish(&self, events: &[Arc<Event>]) {
        let published = &self.published;
        // Applied again after the disk was opened again: readers have seen more already.
        if self.state.applied() < published.root.load().applied() {
            return;
        }
        published.root.store(Arc::new(self.state.clone()));
        let now = self.state.revision();
        published.note_hash(now, self.state.hash());
        published.revision.send_if_modified(|revision| std::mem::replace(revision, now) != now);
        if !events.is_empty() {
            published.hub.publish(events);
        }
        published.applied.send_replace(Applied::of(self.applied));
    }

    async fn hand_on_rows(&mut self) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.push(rows::meta(&self.state));
        self.rows_bytes = 0;
        Ok(self.store.write(rows, self.applied, self.membership.clone()).await?)
    }

    fn count_for_snapshot(&self, bytes: u64) {
        let before = self.published.unsnapshotted.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.published.snapshot_bytes;
        if before < limit && before + bytes >= limit {
            self.published.snapshot_wanted.notify_one();
        }
    }
}

/// Whether a member that knows the rules up to `newest` knows those of a state.
pub fn known(version: u32, newest: u32) -> Result<(), crate::Error> {
    if version <= newest {
        return Ok(());
    }
    Err(crate::Error::Mismatch(format!(
        "the cluster's state follows the rules of version {version}, this hactl knows those up to {newest}: install the newer \
         hactl that the other masters run; nothing here was changed"
    )))
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let bytes = wire::entry_len(&entry);
            let at = EntryId { term: entry.log_id.leader_id.term, index: entry.log_id.index };
            self.state.skip(at);
            let mut answers = Answers::default();
            let mut events = Vec::new();
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => {
                    let started = Instant::now();
                    (answers.outcomes, events) = self.apply_batch(at, batch).await;
                    metrics::histogram!("hactl_apply_seconds").record(started.elapsed().as_secs_f64());
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
            }
            // Before anything of it is shown or stored: what follows is a newer hactl's to apply.
            if let Err(error) = known(self.state.version(), self.store.newest()) {
                let _ = self.published.beyond.set(error.to_string());
                return Err(io::Error::other(error));
            }
            self.applied = Some(entry.log_id);
            self.publish(&events);
            if let Some(responder) = responder {
                responder.send(answers);
            }
            self.published.kept().note(at.index, bytes as u64);
            self.count_for_snapshot(bytes as u64);
            self.rows_bytes += bytes;
            if self.rows_bytes >= ROWS_BYTES {
                self.hand_on_rows().await?;
            }
        }
        self.hand_on_rows().await?;
        metrics::gauge!("hactl_raft_applied_index").set(self.applied.map_or(0, |id| id.index) as f64);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.published.unsnapshotted.store(0, Ordering::Relaxed);
        Builder { store: self.store.clone(), snapshots: self.snapshots.clone(), published: self.published.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.rows.clear();
        self.rows_bytes = 0;
        let loaded = self.store.install(snapshot.data()).await.inspect_err(|error| {
            if let crate::Error::Mismatch(why) = error {
                let _ = self.published.beyond.set(why.clone());
            }
        })?;
        if loaded.applied != meta.last_log_id {
            return Err(io::Error::other("the snapshot's content is not what its header says"));
        }
        self.snapshots.keep(snapshot);
        self.state = loaded.state;
        self.applied = loaded.applied;
        self.membership = loaded.membership;
        let events: Vec<Arc<Event>> = self
            .state
            .events_after(self.published.root.load().revision().max(self.state.compacted()))
            .map(|events| events.cloned().collect())
            .unwrap_or_default();
        self.publish(&events);
        self.published.hub.publish_all();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current())
    }
}

/// Takes a snapshot beside the state machine; the store's queue puts it between two applied batches.
pub struct Builder {
    store: StateStore,
    snapshots: Arc<Snapshots>,
    published: Arc<Published>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let snapshot = self.snapshots.build(&self.store).await?;
        let upto = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        self.published.snapshot_upto.store(upto, Ordering::Relaxed);
        self.published.snapshot_taken.notify_one();
        Ok(snapshot)
    }
}
