//! The end of the log in memory, bounded in bytes, and the small facts about the log that are asked for often.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{Entry, LogId, Vote};
use crate::wire::entry_len;

pub struct Tail {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Consecutive, ending with `last`.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries from this index on are not on disk yet and stay.
    unsynced: u64,
}

/// What a read found in memory, and what must be read from disk before it.
pub struct Found {
    pub on_disk: Range<u64>,
    pub entries: Vec<Entry>,
}

impl Tail {
    pub fn new(
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        last: Option<LogId>,
        max_bytes: usize,
    ) -> Self {
        let inner = Inner { vote, committed, purged, last, entries: VecDeque::new(), bytes: 0, unsynced: next(last) };
        Self { inner: Mutex::new(inner), max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn vote(&self) -> Option<Vote> {
        self.lock().vote
    }

    pub fn set_vote(&self, vote: Vote) {
        self.lock().vote = Some(vote);
    }

    pub fn committed(&self) -> Option<LogId> {
        self.lock().committed
    }

    pub fn set_committed(&self, committed: LogId) {
        self.lock().committed = Some(committed);
    }

    pub fn purged(&self) -> Option<LogId> {
        self.lock().purged
    }

    pub fn last(&self) -> Option<LogId> {
        self.lock().last
    }

    pub fn push(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.last = Some(entry.log_id);
        inner.bytes += entry_len(&entry);
        inner.entries.push_back(entry);
    }

    /// Entries up to this index are on disk: the oldest of them may go.
    pub fn synced(&self, index: u64) {
        let mut inner = self.lock();
        inner.unsynced = inner.unsynced.max(index + 1);
        while inner.bytes > self.max_bytes {
            match inner.entries.front() {
                Some(entry) if entry.log_id.index < inner.unsynced => inner.drop_front(),
                _ => break,
            }
        }
    }

    pub fn truncate_after(&self, last: Option<LogId>) {
        let mut inner = self.lock();
        let keep = next(last);
        while let Some(entry) = inner.entries.pop_back_if(|entry| entry.log_id.index >= keep) {
            inner.bytes -= entry_len(&entry);
        }
        inner.last = inner.last.min(last);
        inner.unsynced = inner.unsynced.min(keep);
    }

    pub fn purge(&self, upto: LogId) {
        let mut inner = self.lock();
        while inner.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            inner.drop_front();
        }
        inner.purged = inner.purged.max(Some(upto));
        // After a snapshot the log may end before what it covers.
        inner.last = inner.last.max(Some(upto));
        if inner.entries.is_empty() {
            inner.unsynced = inner.unsynced.max(upto.index + 1);
        }
    }

    /// Entries of `[from, to)` in memory, and the part of the range before them that only the disk has.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Found {
        let inner = self.lock();
        let from = from.max(next(inner.purged));
        let to = to.min(next(inner.last));
        if from >= to {
            return Found { on_disk: 0..0, entries: Vec::new() };
        }
        let first = inner.entries.front().map_or(u64::MAX, |entry| entry.log_id.index);
        let mut entries = Vec::new();
        let mut sum = 0;
        let skip = from.saturating_sub(first) as usize;
        if first < to {
            for entry in inner.entries.iter().skip(skip).take_while(|entry| entry.log_id.index < to) {
                sum += entry_len(entry);
                entries.push(entry.clone());
                if sum >= max_bytes {
                    break;
                }
            }
        }
        Found { on_disk: from..to.min(first).max(from), entries }
    }
}

/// The index after an id; indexes begin at 0.
pub fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl Inner {
    fn drop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_len(&entry);
        }
    }
}
