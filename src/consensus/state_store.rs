//! `state/`: every row of the state, written behind `apply` by a thread of its own, without a write-ahead log.
//!
//! ```text
//!   <data-dir>/state/current      names the directory in use
//!   <data-dir>/state/<n>/         the database; a snapshot is installed as <n+1>, then `current` is replaced
//!   <data-dir>/members            the members as of it, for when it is lost
//! ```
//!
//! After a crash the database is at its last flush, and the log replays the rest. A full queue holds `apply` back. After the
//! first write that fails nothing is written any more: [`StateStore::failure`] says so, and all is opened again.
//!
//! A damaged database is built again from the snapshot beside it, or from nothing, where the log holds all that follows;
//! else [`crate::refill`] gets a snapshot from another member. Vote and log are what the other members count on, and they
//! have their own checks.
//!
//! **Invariant:** rows, applied id and membership of one applied batch are written together or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use state::State;
use tokio::sync::{mpsc, oneshot, watch};

use crate::Error;
use crate::rows;
use crate::snapshot::{Snapshot, Snapshots};
use crate::storage::{self, Database, Durability, Purpose, Storage, Write, rocks::corrupt};
use crate::types::{LogId, SnapshotMeta, StoredMembership};
use crate::wire;

/// Applied batches that may wait to be written; each is at most a few MiB.
const QUEUE: usize = 16;

pub(crate) const META: &[u8] = b"m/applied";
const MEMBERS: &str = "members";

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
    worker: Arc<Mutex<Option<storage::Worker>>>,
    failure: watch::Receiver<Option<String>>,
    newest: u32,
}

/// What a damaged `state/` can be built again from, if its log is whole.
pub struct Rebuild<'a> {
    /// The log begins with the first entry of all.
    pub from_the_start: bool,
    /// The log holds all entries after this one.
    pub purged: Option<LogId>,
    pub snapshots: &'a Snapshots,
}

impl StateStore {
    /// Opens the database and loads what it holds, which must follow the rules of no newer version than `newest`. Blocks.
    pub fn open(
        storage: Arc<dyn Storage>,
        data_dir: &Path,
        rebuild: &Rebuild<'_>,
        newest: u32,
    ) -> Result<(Self, Loaded), Error> {
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
        let path = dir.join(&current);
        let opened = storage.database(&path, Purpose::State).and_then(|db| Ok((load(db.as_ref(), &path, newest)?, db)));
        let opened = opened.and_then(|(loaded, db)| match loaded.applied < rebuild.purged {
            true => Err(corrupt(&path, "it ends before the log begins")),
            false => Ok((loaded, db)),
        });
        let (current, loaded, db) = match opened {
            Ok((loaded, db)) => (current, loaded, db),
            Err(Error::Corrupt(why)) => rebuild.run(storage.as_ref(), &dir, &current, why, newest)?,
            Err(error) => return Err(error),
        };
        let meta = SnapshotMeta { last_log_id: loaded.applied, last_membership: loaded.membership.clone() };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (failed, failure) = watch::channel(None);
        let place = storage.place();
        let members = data_dir.join(MEMBERS);
        let mut worker = Worker {
            storage,
            dir,
            current,
            db,
            meta,
            members,
            noted: StoredMembership::default(),
            failed,
            newest,
            evicted: rows::Evicted::from(&loaded.state),
        };
        worker.note_members();
        let worker = place.start("hactl-state", worker.run(queue))?;
        Ok((Self { jobs, worker: Arc::new(Mutex::new(Some(worker))), failure, newest }, loaded))
    }

    /// The newest version of the state whose rules this member knows.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Waits until a write has failed, and says why.
    pub async fn failure(&self) -> String {
        let mut failure = self.failure.clone();
        let why = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // Closed in order.
            None => std::future::pending().await,
        }
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

    /// Stops the thread when all that is queued is written. Without `flush` the database is left as a crash would.
    pub async fn close(&self, flush: bool) {
        let _ = self.jobs.send(Job::Stop { flush }).await;
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            worker.ended().await;
        }
    }
}

fn stopped() -> Error {
    Error::Storage("the state thread has stopped".into())
}

/// The members as they were noted last. Blocks.
pub fn members(storage: &dyn Storage, data_dir: &Path) -> Option<StoredMembership> {
    let bytes = storage.read(&data_dir.join(MEMBERS)).ok()??;
    // Damaged as well: the snapshot may say it.
    let (meta, _) = wire::decode_snapshot_meta(&bytes.into()).ok()?;
    Some(meta.last_membership)
}

pub(crate) fn load(db: &dyn Database, dir: &Path, newest: u32) -> Result<Loaded, Error> {
    let meta = match db.get(META)? {
        Some(bytes) => {
            let decoded = wire::decode_snapshot_meta(&bytes.into());
            decoded.map_err(|error| error.stored(dir, "the applied id"))?.0
        }
        None => SnapshotMeta::default(),
    };
    let state = rows::load(db, dir)?;
    crate::state_machine::known(state.version(), newest)?;
    Ok(Loaded { state, applied: meta.last_log_id, membership: meta.last_membership })
}

impl Rebuild<'_> {
    /// Puts a new database in place of the damaged one.
    fn run(
        &self,
        storage: &dyn Storage,
        dir: &Path,
        damaged: &str,
        why: String,
        newest: u32,
    ) -> Result<(String, Loaded, Arc<dyn Database>), Error> {
        let name = next_name(damaged);
        let path = dir.join(&name);
        let open = || {
            let db = storage.database(&path, Purpose::State)?;
            Ok::<_, Error>((load(db.as_ref(), &path, newest)?, db))
        };
        let reaches = |snapshot: &Snapshot| snapshot.meta.last_log_id >= self.purged;
        let of_snapshot = match self.snapshots.current().filter(reaches) {
            None => None,
            Some(snapshot) => {
                storage.remove_directory(&path)?;
                storage.link_directory(&snapshot.snapshot.data(), &path)?;
                match open() {
                    Ok(opened) => Some(opened),
                    // Tables are shared with the snapshot: damage to one of them is damage to both.
                    Err(Error::Corrupt(_)) => {
                        drop(snapshot);
                        self.snapshots.discard();
                        storage.remove_directory(&path)?;
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let ((loaded, db), source) = match of_snapshot {
            Some(opened) => (opened, "a snapshot"),
            None if self.from_the_start && self.purged.is_none() => (open()?, "nothing"),
            None => return Err(Error::Corrupt(why)),
        };
        storage.replace(&dir.join("current"), name.as_bytes())?;
        storage.remove_directory(&dir.join(damaged))?;
        tracing::error!("{why}");
        tracing::warn!(
            "the log of this member is whole, so none of that is needed: the state is built again from {source} and the log. \
             Check the disk all the same"
        );
        Ok((name, loaded, db))
    }
}

fn next_name(name: &str) -> String {
    (name.parse::<u64>().unwrap_or(0) + 1).to_string()
}

struct Worker {
    storage: Arc<dyn Storage>,
    /// `<data-dir>/state`
    dir: PathBuf,
    current: String,
    db: Arc<dyn Database>,
    /// Of the rows written last.
    meta: SnapshotMeta,
    /// The file that names the members, and those it names.
    members: PathBuf,
    noted: StoredMembership,
    failed: watch::Sender<Option<String>>,
    newest: u32,
    evicted: rows::Evicted,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.recv().await {
            match job {
                Job::Write { writes, applied, membership } => {
                    let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
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
                    let outcome = self.install(&from);
                    if let Err(error) = &outcome {
                        self.fail(error);
                    }
                    let _ = done.send(outcome);
                }
                Job::Stop { flush } => {
                    if flush
                        && self.failed.borrow().is_none()
                        && let Err(error) = self.clear().and_then(|()| self.db.flush())
                    {
                        self.fail(&error);
                    }
                    return;
                }
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        // Whoever wrote later failed because of the first.
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(
                    "{}: {error}; nothing more is written there until it is opened again",
                    self.dir.display()
                );
                *failed = Some(error.to_string());
            }
            first
        });
    }

    fn healthy(&self) -> Result<(), Error> {
        match &*self.failed.borrow() {
            Some(error) => Err(Error::Storage(error.clone())),
            None => Ok(()),
        }
    }

    fn write(&mut self, mut writes: Vec<Write>, meta: SnapshotMeta) -> Result<(), Error> {
        self.healthy()?;
        self.evicted.gather(&mut writes);
        writes.push(Write::Put(META.to_vec(), wire::encode_snapshot_meta(&meta, None).into()));
        self.db.write(writes, Durability::Buffered)?;
        self.meta = meta;
        self.note_members();
        Ok(())
    }

    /// Writes the members down beside the database whenever they change, which is rare.
    fn note_members(&mut self) {
        let now = &self.meta.last_membership;
        if *now == self.noted {
            return;
        }
        match self.storage.replace(&self.members, &wire::encode_snapshot_meta(&self.meta, None)) {
            Ok(()) => self.noted = now.clone(),
            // It is read only when the state is lost, and written again with the next batch.
            Err(error) => tracing::warn!("cannot write {}: {error}", self.members.display()),
        }
    }

    /// Removes what is no row of the state any more.
    fn clear(&mut self) -> Result<(), Error> {
        match self.evicted.take() {
            Some(gone) => self.db.write(vec![gone], Durability::Buffered),
            None => Ok(()),
        }
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<SnapshotMeta, Error> {
        self.healthy()?;
        self.clear()?;
        self.db.checkpoint(dir)?;
        Ok(self.meta.clone())
    }

    fn install(&mut self, from: &Path) -> Result<Loaded, Error> {
        let name = next_name(&self.current);
        let dir = self.dir.join(&name);
        self.storage.remove_directory(&dir)?;
        self.storage.link_directory(from, &dir)?;
        let db = self.storage.database(&dir, Purpose::State)?;
        let loaded = load(db.as_ref(), &dir, self.newest)?;
        self.storage.replace(&self.dir.join("current"), name.as_bytes())?;
        let old = self.dir.join(std::mem::replace(&mut self.current, name));
        self.db = db;
        self.meta = SnapshotMeta { last_log_id: loaded.applied, last_membership: loaded.membership.clone() };
        self.evicted = rows::Evicted::from(&loaded.state);
        self.note_members();
        self.storage.remove_directory(&old)?;
        Ok(loaded)
    }
}
