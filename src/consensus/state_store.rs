//! `state/`: every row of the state, written behind `apply` by a thread of its own, without a write-ahead log.
//!
//! ```text
//!   <data-dir>/state/current      names the directory in use
//!   <data-dir>/state/<n>/         the database; a snapshot is installed as <n+1>, then `current` is replaced
//! ```
//!
//! After a crash the database is at its last flush, and the log replays the rest. A full queue holds `apply` back.
//!
//! **Invariant:** rows, applied id and membership of one applied batch are written together or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use state::State;
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::rows;
use crate::storage::{Database, Durability, Purpose, Storage, Write, rocks::corrupt};
use crate::types::{LogId, SnapshotMeta, StoredMembership};
use crate::wire;

/// Applied batches that may wait to be written; each is at most a few MiB.
const QUEUE: usize = 16;

const META: &[u8] = b"m/applied";

/// What a database holds.
pub struct Loaded {
    pub state: State,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

enum Job {
    Write { writes: Vec<Write>, applied: Option<LogId>, membership: StoredMembership },
    Checkpoint { dir: PathBuf, done: oneshot::Sender<Result<SnapshotMeta, Error>> },
    Install { from: PathBuf, done: oneshot::Sender<Result<Loaded, Error>> },
    Stop { flush: bool },
}

/// A cheaply cloned handle to the thread.
#[derive(Clone)]
pub struct StateStore {
    jobs: mpsc::Sender<Job>,
    handle: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl StateStore {
    /// Opens the database and loads what it holds. Blocks.
    pub fn open(storage: Arc<dyn Storage>, data_dir: &Path) -> Result<(Self, Loaded), Error> {
        let dir = data_dir.join("state");
        let current = match storage.read(&dir.join("current"))? {
            Some(name) => String::from_utf8_lossy(&name).trim().to_string(),
            None => {
                storage.replace(&dir.join("current"), b"1")?;
                "1".to_string()
            }
        };
        // An installation that a crash interrupted leaves a directory that nothing names.
        for name in storage.directories(&dir)? {
            if name != current {
                storage.remove_directory(&dir.join(name))?;
            }
        }
        let db = storage.database(&dir.join(&current), Purpose::State)?;
        let loaded = load(db.as_ref(), &dir.join(&current))?;
        let meta = SnapshotMeta { last_log_id: loaded.applied, last_membership: loaded.membership.clone() };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let worker = Worker { storage, dir, current, db, meta, failed: None };
        let handle = std::thread::Builder::new().name("hactl-state".into()).spawn(move || worker.run(queue))?;
        Ok((Self { jobs, handle: Arc::new(Mutex::new(Some(handle))) }, loaded))
    }

    /// Queues the rows of an applied batch; waits while the queue is full.
    pub async fn write(
        &self,
        writes: Vec<Write>,
        applied: Option<LogId>,
        membership: StoredMembership,
    ) -> Result<(), Error> {
        self.send(Job::Write { writes, applied, membership }).await
    }

    /// A flushed copy of all that was queued so far.
    pub async fn checkpoint(&self, dir: PathBuf) -> Result<SnapshotMeta, Error> {
        let (done, outcome) = oneshot::channel();
        self.send(Job::Checkpoint { dir, done }).await?;
        outcome.await.map_err(|_| stopped())?
    }

    /// Replaces the database by a copy of the one in `from`.
    pub async fn install(&self, from: PathBuf) -> Result<Loaded, Error> {
        let (done, outcome) = oneshot::channel();
        self.send(Job::Install { from, done }).await?;
        outcome.await.map_err(|_| stopped())?
    }

    async fn send(&self, job: Job) -> Result<(), Error> {
        self.jobs.send(job).await.map_err(|_| stopped())
    }

    /// Stops the thread when all that is queued is written. Without `flush` the database is left as a crash would. Blocks.
    pub fn close(&self, flush: bool) {
        let _ = self.jobs.blocking_send(Job::Stop { flush });
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            let _ = handle.join();
        }
    }
}

fn stopped() -> Error {
    Error::Storage("the state thread has stopped".into())
}

fn load(db: &dyn Database, dir: &Path) -> Result<Loaded, Error> {
    let meta = match db.get(META)? {
        Some(bytes) => {
            let decoded = wire::decode_snapshot_meta(&bytes.into());
            decoded.map_err(|error| corrupt(dir, &format!("the applied id is damaged: {error}")))?.0
        }
        None => SnapshotMeta::default(),
    };
    let state = rows::load(db, dir)?;
    Ok(Loaded { state, applied: meta.last_log_id, membership: meta.last_membership })
}

struct Worker {
    storage: Arc<dyn Storage>,
    /// `<data-dir>/state`
    dir: PathBuf,
    current: String,
    db: Arc<dyn Database>,
    /// Of the rows written last.
    meta: SnapshotMeta,
    failed: Option<String>,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            match job {
                Job::Write { writes, applied, membership } => {
                    let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
                    // The log still has it all: a member whose state/ fails goes on until its next snapshot fails too.
                    if let Err(error) = self.write(writes, meta) {
                        self.fail(&error);
                    }
                }
                Job::Checkpoint { dir, done } => {
                    let outcome = self.checkpoint(&dir);
                    if let Err(error) = &outcome {
                        self.fail(error);
                    }
                    let _ = done.send(outcome);
                }
                Job::Install { from, done } => {
                    let _ = done.send(self.install(&from));
                }
                Job::Stop { flush } => {
                    if flush
                        && self.failed.is_none()
                        && let Err(error) = self.db.flush()
                    {
                        self.fail(&error);
                    }
                    return;
                }
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        tracing::error!(
            "{}: {error}; nothing more is written there until this member is started again",
            self.dir.display()
        );
        self.failed = Some(error.to_string());
    }

    fn healthy(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(Error::Storage(error.clone())),
            None => Ok(()),
        }
    }

    fn write(&mut self, mut writes: Vec<Write>, meta: SnapshotMeta) -> Result<(), Error> {
        self.healthy()?;
        writes.push(Write::Put(META.to_vec(), wire::encode_snapshot_meta(&meta, None).into()));
        self.db.write(writes, Durability::Buffered)?;
        self.meta = meta;
        Ok(())
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotMeta, Error> {
        self.healthy()?;
        self.db.checkpoint(dir)?;
        Ok(self.meta.clone())
    }

    fn install(&mut self, from: &Path) -> Result<Loaded, Error> {
        let number: u64 = self.current.parse().unwrap_or(0);
        let name = (number + 1).to_string();
        let dir = self.dir.join(&name);
        self.storage.remove_directory(&dir)?;
        self.storage.link_directory(from, &dir)?;
        let db = self.storage.database(&dir, Purpose::State)?;
        let loaded = load(db.as_ref(), &dir)?;
        self.storage.replace(&self.dir.join("current"), name.as_bytes())?;
        let old = self.dir.join(std::mem::replace(&mut self.current, name));
        self.db = db;
        self.meta = SnapshotMeta { last_log_id: loaded.applied, last_membership: loaded.membership.clone() };
        self.failed = None;
        self.storage.remove_directory(&old)?;
        Ok(loaded)
    }
}
