//! `log/`: entries, vote, committed id, and whose log it is. openraft's `RaftLogStorage`.
//!
//! ```text
//!   append ──▶ tail (in memory: readable at once) ──▶ queue ──▶ storage thread: one write and one sync for all that waits
//!                                                                └─▶ IOFlushed of each append, watermark
//! ```
//!
//! Writes of entries and votes go through one queue, so they reach the disk in the order openraft made them. Beside the
//! database lies `log.synced`, the watermark: the last index known to be synced. After a crash a log that ends below it
//! has lost acknowledged writes, and the member refuses to start.
//!
//! **Invariant:** an entry leaves the tail only after it was synced.

pub mod offline;
mod tail;
#[cfg(test)]
mod tests;
mod thread;
mod watermark;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, type_config::alias::LogIdOf};
use tokio::sync::oneshot;

use crate::Error;
use crate::disk::Disk;
use crate::storage::{Database, Durability, Place, Purpose, Storage, Write, rocks::corrupt};
use crate::types::{Entry, LogId, Membership, Types, Vote};
use crate::wire;
use tail::{Tail, next};
use thread::{Job, LogThread};
use watermark::Watermark;

/// Entries kept in memory for followers and `apply`; older ones are read from disk.
const TAIL_BYTES: usize = 4 << 20;
/// What one read for a follower or for `apply` returns at most (but at least one entry); below gRPC's limit.
const READ_BYTES: usize = 2 << 20;

const ENTRY: u8 = b'e';
const VOTE: &[u8] = b"m/vote";
const COMMITTED: &[u8] = b"m/committed";
const PURGED: &[u8] = b"m/purged";
const OWNER: &[u8] = b"m/owner";

/// Whose log this is. Written once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    pub cluster_id: String,
    pub member_id: u64,
}

fn entry_key(index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(ENTRY);
    key.extend(index.to_be_bytes());
    key
}

/// A cheaply cloned handle; also openraft's log reader.
#[derive(Clone)]
pub struct LogStore {
    /// `None` once closed: openraft's tasks keep their readers for a while after it has stopped.
    db: Arc<RwLock<Option<Arc<dyn Database>>>>,
    tail: Arc<Tail>,
    thread: Arc<LogThread>,
    place: Place,
    from_the_start: bool,
    /// Of the newest entry about it when it was opened.
    membership: Option<Membership>,
    /// Of the entries when it was opened, until they are asked for.
    sizes: Arc<Mutex<Sizes>>,
}

/// Index and bytes of entries, in order.
type Sizes = Vec<(u64, u64)>;

impl LogStore {
    /// Opens and checks the log. Blocks.
    pub fn open(storage: &dyn Storage, disk: Arc<Disk>, data_dir: &Path, owner: &Owner) -> Result<Self, Error> {
        let dir = data_dir.join("log");
        let db = storage.database(&dir, Purpose::Log)?;
        // What is read below counts as synced: after a failed sync it may be in the kernel's memory only.
        db.flush()?;
        check_owner(db.as_ref(), &dir, owner)?;
        let damaged = |what: &str, error: wire::Malformed| error.stored(&dir, &format!("the {what}"));
        let read_id = |key: &[u8], what: &str| {
            let id = db.get(key)?.map(|bytes| wire::decode_log_id(&bytes.into())).transpose();
            id.map_err(|error| damaged(what, error))
        };
        let vote = db.get(VOTE)?.map(|bytes| wire::decode_vote_only(&bytes.into())).transpose();
        let vote = vote.map_err(|error| damaged("vote", error))?;
        let purged = read_id(PURGED, "purged id")?;
        let committed = read_id(COMMITTED, "committed id")?;
        let Checked { first, last, membership, sizes } = check_entries(db.as_ref(), &dir, purged)?;
        let mut watermark = Watermark::open(storage, &data_dir.join("log.synced"))?;
        if next(last) < watermark.next() {
            let cause = format!("the log holds entries up to {}, but {} had been synced", next(last), watermark.next());
            return Err(corrupt(&dir, &cause));
        }
        watermark.set(next(last), Durability::Buffered)?;
        let tail = Arc::new(Tail::new(vote, committed, purged, last, TAIL_BYTES));
        let thread = Arc::new(LogThread::start(storage.place(), db.clone(), tail.clone(), watermark, disk)?);
        Ok(Self {
            db: Arc::new(RwLock::new(Some(db))),
            tail,
            thread,
            place: storage.place(),
            from_the_start: first.is_none_or(|first| first == 0),
            membership,
            sizes: Arc::new(Mutex::new(sizes)),
        })
    }

    /// Index and bytes of the entries that it held when it was opened; once.
    pub fn take_sizes(&self) -> Sizes {
        std::mem::take(&mut self.sizes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest membership that it held when it was opened, committed or not.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Drops the entries that cannot be committed any more, since `committed` is another entry than the one in its place.
    pub async fn drop_conflicting(&mut self, committed: LogId) -> Result<(), Error> {
        let Some(own) = self.read(committed.index, committed.index + 1, 1).await?.pop() else { return Ok(()) };
        if own.log_id == committed {
            return Ok(());
        }
        let before = match committed.index.checked_sub(1) {
            Some(index) => self.read(index, index + 1, 1).await?.pop().map(|entry| entry.log_id).or(self.purged()),
            None => None,
        };
        Ok(self.truncate_after(before).await?)
    }

    /// Whether it began with the first entry of all when it was opened.
    pub fn is_from_the_start(&self) -> bool {
        self.from_the_start && self.purged().is_none()
    }

    /// The last entry that is gone because a snapshot covers it.
    pub fn purged(&self) -> Option<LogId> {
        self.tail.purged()
    }

    pub fn last(&self) -> Option<LogId> {
        self.tail.last()
    }

    /// Waits until all that was queued is written, and closes the database.
    pub async fn close(&self) {
        self.thread.stop().await;
        self.db.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The entries, and whether they are all that the range holds on disk.
    async fn read_from_disk(&self, range: Range<u64>, max_bytes: usize) -> Result<(Vec<Entry>, bool), io::Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner).clone();
        let db = db.ok_or_else(|| io::Error::other("the log is closed"))?;
        let read = move || {
            let mut entries = Vec::new();
            let mut sum = 0;
            db.scan(&entry_key(range.start), &entry_key(range.end), &mut |key, value| {
                let damaged = |what: &str| Error::Corrupt(format!("log entry {} is damaged: {what}", index_of(key)));
                let entry = wire::decode_entry(&Bytes::copy_from_slice(value)).map_err(|error| damaged(error.0))?;
                if entry.log_id.index != index_of(key) {
                    return Err(damaged("it is another entry"));
                }
                sum += value.len();
                entries.push(entry);
                Ok(sum < max_bytes)
            })?;
            Ok::<_, Error>((entries, sum < max_bytes))
        };
        self.place.call(read).await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Entries of `[from, to)` that exist, at least one if any does, stopping after about `max_bytes`.
    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, io::Error> {
        let found = self.tail.read(from, to, max_bytes);
        if found.on_disk.is_empty() {
            return Ok(found.entries);
        }
        let (mut entries, all) = self.read_from_disk(found.on_disk, max_bytes).await?;
        if all {
            entries.extend(found.entries);
        }
        Ok(entries)
    }
}

fn index_of(key: &[u8]) -> u64 {
    key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn check_owner(db: &dyn Database, dir: &Path, owner: &Owner) -> Result<(), Error> {
    let Some(bytes) = db.get(OWNER)? else {
        let json = serde_json::to_vec(owner).map_err(|error| Error::Storage(error.to_string()))?;
        return db.write(vec![Write::Put(OWNER.to_vec(), json)], Durability::Synced);
    };
    let found: Owner =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(dir, &format!("the owner is damaged: {error}")))?;
    if &found != owner {
        return Err(Error::Mismatch(format!(
            "{} belongs to member {} of cluster {}, but this is member {} of cluster {}. Start the member that owns the \
             directory, or give this one a directory of its own",
            dir.display(),
            found.member_id,
            found.cluster_id,
            owner.member_id,
            owner.cluster_id
        )));
    }
    Ok(())
}

/// What a log was found to hold.
struct Checked {
    /// Index of the first entry.
    first: Option<u64>,
    last: Option<LogId>,
    membership: Option<Membership>,
    sizes: Sizes,
}

/// Reads every entry once: all whole, none missing, their terms in order.
fn check_entries(db: &dyn Database, dir: &Path, purged: Option<LogId>) -> Result<Checked, Error> {
    let mut first = None;
    let mut last = purged;
    let mut membership = None;
    let mut sizes = Vec::new();
    db.scan(&entry_key(next(purged)), &[ENTRY + 1], &mut |key, value| {
        let index = index_of(key);
        let entry = wire::decode_entry(&Bytes::copy_from_slice(value))
            .map_err(|error| error.stored(dir, &format!("entry {index}")))?;
        if entry.log_id.index != index || last.is_some_and(|last: LogId| last.index + 1 != index) {
            return Err(corrupt(dir, &format!("entry {} stands where {} should", entry.log_id.index, next(last))));
        }
        // No leader writes one behind a later leader's: what a later one replaced was not removed.
        if let Some(last) = last.filter(|last| last.leader_id.term > entry.log_id.leader_id.term) {
            let terms = (entry.log_id.leader_id.term, last.leader_id.term);
            return Err(corrupt(dir, &format!("entry {index} is of term {}, behind one of term {}", terms.0, terms.1)));
        }
        first = first.or(Some(index));
        last = Some(entry.log_id);
        sizes.push((index, value.len() as u64));
        if let EntryPayload::Membership(newer) = entry.payload {
            membership = Some(newer);
        }
        Ok(true)
    })?;
    Ok(Checked { first, last, membership, sizes })
}

impl RaftLogReader<Types> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Read in pieces: after a long absence the range may be far larger than memory should hold.
        let (from, to) = bounds(&range);
        let state = (self.clone(), from, to, VecDeque::new());
        Box::pin(futures::stream::try_unfold(state, |(store, mut from, to, mut ready)| async move {
            if ready.is_empty() && from < to {
                ready = store.read(from, to, READ_BYTES).await?.into();
                from += ready.len() as u64;
            }
            Ok(ready.pop_front().map(|entry| (entry, (store, from, to, ready))))
        }))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start, end, READ_BYTES).await?;
        // Purged meanwhile: what is left does not follow what the asker has, who must not see a hole.
        let follows = entries.first().is_none_or(|first| first.log_id.index == start);
        Ok(if follows { entries } else { Vec::new() })
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState { last_purged_log_id: self.tail.purged(), last_log_id: self.tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if state::mutants::is_chosen("forgotten-vote") {
            self.tail.set_vote(*vote);
            return Ok(());
        }
        let bytes = wire::encode_vote_only(vote);
        self.write_and_wait(|done| Job::Vote { bytes, done }).await?;
        self.tail.set_vote(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with the next append: after a crash an older one only means that less is applied before the leader is
        // heard.
        if let Some(committed) = committed {
            self.tail.set_committed(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = Vec::new();
        let mut last = None;
        for entry in entries {
            writes.push(Write::Put(entry_key(entry.log_id.index), wire::encode_entry(&entry).into()));
            last = Some(entry.log_id);
            self.tail.push(entry);
        }
        self.thread.send(Job::Append { writes, last, done: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        self.tail.truncate_after(last_log_id);
        self.write_and_wait(|done| Job::Truncate { after: last_log_id, done }).await?;
        // An append queued before may have counted what is gone as synced meanwhile.
        self.tail.truncate_after(last_log_id);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogIdOf<Types>) -> Result<(), io::Error> {
        self.tail.purge(log_id);
        self.write_and_wait(|done| Job::Purge { upto: log_id, done }).await
    }
}

impl LogStore {
    async fn write_and_wait(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), io::Error>>) -> Job,
    ) -> Result<(), io::Error> {
        let (done, outcome) = oneshot::channel();
        self.thread.send(job(done))?;
        outcome.await.map_err(|_| io::Error::other("the log thread has stopped"))?
    }
}
