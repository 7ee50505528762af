//! The storage thread of `log/`: takes all that waits, writes it in one batch, syncs once, then calls back. (On a simulated
//! disk it is a task.)
//!
//! **Invariant:** after the first failed write or sync nothing is ever written again: what a failed fsync left behind cannot
//! be known, so the disk is closed and opened again (`supervisor`).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::tail::{Tail, next};
use super::watermark::Watermark;
use super::{COMMITTED, ENTRY, PURGED, VOTE, entry_key};
use crate::Error;
use crate::disk::Disk;
use crate::storage::{self, Database, Durability, Place, Write};
use crate::types::{LogId, Types};
use crate::wire;

/// What one write may hold; more waits for the next.
const GROUP_BYTES: usize = 8 << 20;

type Done = oneshot::Sender<Result<(), io::Error>>;

pub enum Job {
    Append { writes: Vec<Write>, last: Option<LogId>, done: IOFlushed<Types> },
    Vote { bytes: Bytes, done: Done },
    Truncate { after: Option<LogId>, done: Done },
    Purge { upto: LogId, done: Done },
    Stop,
}

pub struct LogThread {
    jobs: mpsc::UnboundedSender<Job>,
    worker: Mutex<Option<storage::Worker>>,
}

impl LogThread {
    pub fn start(
        place: Place,
        db: Arc<dyn Database>,
        tail: Arc<Tail>,
        watermark: Watermark,
        disk: Arc<Disk>,
    ) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let worker = Worker { db, committed: tail.committed(), tail, watermark, disk, failed: None };
        let worker = place.start("hactl-log", worker.run(queue))?;
        Ok(Self { jobs, worker: Mutex::new(Some(worker)) })
    }

    /// Unbounded, but openraft itself bounds what is under way.
    pub fn send(&self, job: Job) -> Result<(), io::Error> {
        self.jobs.send(job).map_err(|_| io::Error::other("the log thread has stopped"))
    }

    pub async fn stop(&self) {
        let _ = self.jobs.send(Job::Stop);
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            worker.ended().await;
        }
    }
}

struct Worker {
    db: Arc<dyn Database>,
    tail: Arc<Tail>,
    watermark: Watermark,
    disk: Arc<Disk>,
    /// As it was written last.
    committed: Option<LogId>,
    failed: Option<String>,
}

/// What is written together.
#[derive(Default)]
struct Group {
    writes: Vec<Write>,
    bytes: usize,
    sync: bool,
    last: Option<LogId>,
    flushed: Vec<IOFlushed<Types>>,
    done: Vec<Done>,
    entries: usize,
    /// It is the last.
    stop: bool,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let mut held: Option<Job> = None;
        loop {
            let first = match held.take() {
                Some(job) => job,
                None => match queue.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            let takes = self.db.sync_takes() / 2;
            pause(takes).await;
            let mut group = Group::default();
            let mut waiting = Some(first);
            while let Some(job) = waiting {
                match job {
                    Job::Stop => {
                        group.stop = true;
                        break;
                    }
                    // The watermark is lowered between what came before and the truncation itself.
                    Job::Truncate { after, done } if group.writes.is_empty() => {
                        let outcome = self.truncate(after);
                        let _ = done.send(outcome.map_err(io::Error::other));
                        break;
                    }
                    Job::Truncate { .. } => {
                        held = Some(job);
                        break;
                    }
                    other => group.add(other),
                }
                if group.bytes >= GROUP_BYTES {
                    break;
                }
                waiting = queue.try_recv().ok();
            }
            let stop = group.stop;
            let written = self.write(group);
            pause(takes).await;
            if let Some(written) = written {
                written.answer();
            }
            if stop {
                return;
            }
        }
    }

    /// The committed id goes with the next append: it wakes nobody and costs no write of its own.
    fn add_committed(&mut self, group: &mut Group) {
        let committed = self.tail.committed();
        if let Some(id) = committed
            && committed != self.committed
        {
            group.writes.push(Write::Put(COMMITTED.to_vec(), wire::encode_log_id(&id).into()));
            self.committed = committed;
        }
    }

    /// `None` if there was nothing to do.
    fn write(&mut self, mut group: Group) -> Option<Written> {
        if group.entries > 0 || group.stop {
            self.add_committed(&mut group);
        }
        if group.writes.is_empty() && group.flushed.is_empty() && group.done.is_empty() {
            return None;
        }
        let outcome = self.try_write(group.writes, group.sync, group.last);
        if group.entries > 0 {
            metrics::histogram!("hactl_raft_append_batch_entries").record(group.entries as f64);
        }
        Some(Written { outcome, flushed: group.flushed, done: group.done })
    }

    fn try_write(&mut self, writes: Vec<Write>, sync: bool, last: Option<LogId>) -> Result<(), String> {
        self.guarded(|worker| {
            let durability = if sync { Durability::Synced } else { Durability::Buffered };
            let durability = if state::mutants::is_chosen("unsynced-ack") { Durability::Buffered } else { durability };
            let started = Instant::now();
            if sync {
                worker.disk.syncs.begin();
            }
            worker.db.write(writes, durability)?;
            if sync {
                worker.disk.syncs.end();
                metrics::histogram!("hactl_raft_fsync_seconds").record(started.elapsed().as_secs_f64());
            }
            if let Some(last) = last {
                worker.watermark.set(last.index + 1, Durability::Buffered)?;
                worker.tail.synced(last.index);
            }
            Ok(())
        })
    }

    fn truncate(&mut self, after: Option<LogId>) -> Result<(), String> {
        self.guarded(|worker| {
            let from = next(after);
            if worker.watermark.next() > from {
                worker.watermark.set(from, Durability::Synced)?;
            }
            if state::mutants::is_chosen("kept-tail") {
                return Ok(());
            }
            worker.db.write(vec![Write::DeleteRange(entry_key(from), vec![ENTRY + 1])], Durability::Synced)
        })
    }

    fn guarded(&mut self, action: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), String> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        action(self).map_err(|error| {
            // A merge of tables reads what no start does: entries that were purged.
            if let Error::Corrupt(why) = &error {
                self.disk.note_damage(why);
            }
            let message = format!("{error}; nothing more is written until the log is opened again");
            tracing::error!("{message}");
            self.failed = Some(message.clone());
            message
        })
    }
}

/// What came of a group, and who is told.
struct Written {
    outcome: Result<(), String>,
    flushed: Vec<IOFlushed<Types>>,
    done: Vec<Done>,
}

impl Written {
    fn answer(self) {
        for flushed in self.flushed {
            flushed.io_completed(self.outcome.clone().map_err(io::Error::other));
        }
        for done in self.done {
            let _ = done.send(self.outcome.clone().map_err(io::Error::other));
        }
    }
}

/// A simulated disk is slow before and after it has written: power may fail in between.
async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

impl Group {
    fn add(&mut self, job: Job) {
        match job {
            Job::Append { writes, last, done } => {
                self.bytes += writes.iter().map(len).sum::<usize>();
                self.entries += writes.len();
                self.writes.extend(writes);
                self.last = last.or(self.last);
                self.flushed.push(done);
                self.sync = true;
            }
            Job::Vote { bytes, done } => {
                self.writes.push(Write::Put(VOTE.to_vec(), bytes.into()));
                self.done.push(done);
                self.sync = true;
            }
            Job::Purge { upto, done } => {
                self.writes.push(Write::Put(PURGED.to_vec(), wire::encode_log_id(&upto).into()));
                self.writes.push(Write::DeleteRange(entry_key(0), entry_key(upto.index + 1)));
                self.done.push(done);
            }
            Job::Truncate { .. } | Job::Stop => unreachable!("handled before"),
        }
    }
}

fn len(write: &Write) -> usize {
    match write {
        Write::Put(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
        Write::DeleteRange(from, to) => from.len() + to.len(),
    }
}
