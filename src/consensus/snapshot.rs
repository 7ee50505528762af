//! Snapshots: flushed copies of `state/`, kept under `<data-dir>/snapshots/`, streamed in checksummed pieces.
//!
//! ```text
//!   snapshots/<name>/data/…   the files of the checkpoint (hard links)
//!   snapshots/<name>/meta     written last: a directory without it is unfinished and is removed at start
//! ```
//!
//! The vote, the log and the ids are never part of one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tonic::Status;

use crate::Error;
use crate::log::LogStore;
use crate::state_store::StateStore;
use crate::storage::Storage;
use crate::transport::Chunk;
use crate::types::{LogId, SnapshotMeta, Types, Vote};
use crate::wire;

/// Bytes of a file per chunk.
const CHUNK_BYTES: usize = 512 << 10;
/// A snapshot has some dozens of files; a name longer than this is none of RocksDB's.
const NAME_LEN_MAX: usize = 64;

/// One complete snapshot on disk. Goes away with its last user once another has replaced it.
pub struct SnapshotDir {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    pub meta: SnapshotMeta,
    replaced: AtomicBool,
}

pub type SnapshotData = Arc<SnapshotDir>;
pub type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;

impl SnapshotDir {
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl std::fmt::Debug for SnapshotDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.dir.display())
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::Relaxed)
            && let Err(error) = self.storage.remove_directory(&self.dir)
        {
            tracing::warn!("cannot remove the old snapshot {}: {error}", self.dir.display());
        }
    }
}

/// The snapshots of this member: at most one is current.
pub struct Snapshots {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    current: Mutex<Option<SnapshotData>>,
    /// Found so, and of no use.
    damaged: Mutex<Option<SnapshotData>>,
    /// Makes names of unfinished ones differ.
    counter: AtomicU64,
}

impl Snapshots {
    /// Finds the newest complete snapshot and removes all others. Blocks.
    pub fn open(storage: Arc<dyn Storage>, data_dir: &Path) -> Result<Self, Error> {
        let dir = data_dir.join("snapshots");
        let mut newest: Option<SnapshotData> = None;
        for name in storage.directories(&dir)? {
            let path = dir.join(&name);
            let meta = storage.read(&path.join("meta"))?;
            let meta = meta.and_then(|bytes| wire::decode_snapshot_meta(&bytes.into()).ok()).map(|(meta, _)| meta);
            match meta {
                Some(meta) if newest.as_ref().is_none_or(|known| known.meta.last_log_id < meta.last_log_id) => {
                    let found = SnapshotDir { storage: storage.clone(), dir: path, meta, replaced: false.into() };
                    if let Some(older) = newest.replace(Arc::new(found)) {
                        older.replaced.store(true, Ordering::Relaxed);
                    }
                }
                _ => storage.remove_directory(&path)?,
            }
        }
        Ok(Self { storage, dir, current: Mutex::new(newest), damaged: Mutex::default(), counter: AtomicU64::new(0) })
    }

    pub fn current(&self) -> Option<Snapshot> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Snapshot { meta: current.meta.clone(), snapshot: current })
    }

    /// The current one is damaged: it is none any more. It stays on disk until there is another, for what it says of the
    /// members.
    pub fn discard(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(damaged) = current.take() {
            *self.damaged.lock().unwrap_or_else(PoisonError::into_inner) = Some(damaged);
        }
    }

    /// Makes `snapshot` the current one, unless a newer one is.
    pub fn set_current(&self, snapshot: SnapshotData) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = current.as_ref().is_some_and(|known| known.meta.last_log_id > snapshot.meta.last_log_id);
        let old = if newer {
            Some(snapshot)
        } else {
            current.replace(snapshot.clone()).filter(|old| !Arc::ptr_eq(old, &snapshot))
        };
        drop(current);
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).take();
        for old in old.into_iter().chain(damaged) {
            old.replaced.store(true, Ordering::Relaxed);
        }
    }

    fn fresh_dir(&self, last: Option<LogId>) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
        // The directory of a former run with the same name was complete, or was removed at start.
        let mut dir = self.dir.join(format!("{term}-{index}-{number}"));
        while self.storage.files(&dir).is_ok_and(|files| !files.is_empty()) {
            let number = self.counter.fetch_add(1, Ordering::Relaxed);
            dir = self.dir.join(format!("{term}-{index}-{number}"));
        }
        dir
    }

    fn finish(&self, dir: PathBuf, meta: SnapshotMeta) -> Result<SnapshotData, Error> {
        if !state::mutants::is_chosen("torn-snapshot") {
            self.storage.sync_directory(&dir.join("data"))?;
        }
        self.storage.replace(&dir.join("meta"), &wire::encode_snapshot_meta(&meta, None))?;
        Ok(Arc::new(SnapshotDir { storage: self.storage.clone(), dir, meta, replaced: false.into() }))
    }

    /// Copies the present state.
    pub async fn build(self: &Arc<Self>, store: &StateStore) -> Result<Snapshot, Error> {
        let dir = self.fresh_dir(None);
        let meta = store.checkpoint(dir.join("data")).await?;
        let this = self.clone();
        let snapshot = self.blocking(move || this.finish(dir, meta)).await?;
        self.set_current(snapshot.clone());
        Ok(Snapshot { meta: snapshot.meta.clone(), snapshot })
    }

    /// Takes a snapshot at start where the state is ahead of the log, which a power cut makes so: `apply` does not wait for
    /// this member's own disk, and the log loses what was not synced. openraft then counts the log as purged up to the
    /// state, and what is purged must be in a snapshot, or this member could as the leader bring nobody up to date.
    pub async fn cover(
        self: &Arc<Self>,
        log: &LogStore,
        store: &StateStore,
        applied: Option<LogId>,
    ) -> Result<(), Error> {
        let covered = self.current().and_then(|snapshot| snapshot.meta.last_log_id);
        if covered < applied && (log.last() < applied || covered < log.purged()) {
            tracing::warn!(?applied, log = ?log.last(), ?covered, "the state is ahead of the log: taking a snapshot of it");
            self.build(store).await?;
        }
        Ok(())
    }

    /// Receives a snapshot from a leader: its vote, and the snapshot ready to be installed.
    pub async fn receive(
        self: &Arc<Self>,
        mut chunks: BoxStream<'static, Result<Chunk, Status>>,
    ) -> Result<(Vote, Snapshot), Status> {
        let first = chunks.next().await.ok_or_else(|| Status::invalid_argument("an empty snapshot"))??;
        let (meta, vote) =
            wire::decode_snapshot_meta(&first.header).map_err(|error| Status::invalid_argument(error.0))?;
        let vote = vote.ok_or_else(|| Status::invalid_argument("a snapshot without a vote"))?;
        let dir = self.fresh_dir(meta.last_log_id);
        let received = self.receive_files(&dir, first, chunks).await;
        if let Err(status) = received {
            let (storage, dir) = (self.storage.clone(), dir.clone());
            let _ = self.blocking(move || storage.remove_directory(&dir)).await;
            return Err(status);
        }
        let this = self.clone();
        let snapshot = self.blocking(move || this.finish(dir, meta)).await;
        let snapshot = snapshot.map_err(|error| Status::internal(error.to_string()))?;
        // If it is never installed it goes away again.
        snapshot.replaced.store(true, Ordering::Relaxed);
        Ok((vote, Snapshot { meta: snapshot.meta.clone(), snapshot }))
    }

    async fn receive_files(
        &self,
        dir: &Path,
        first: Chunk,
        mut chunks: BoxStream<'static, Result<Chunk, Status>>,
    ) -> Result<(), Status> {
        let mut chunk = first;
        let mut file = (String::new(), 0);
        loop {
            if chunk.file != file.0 {
                file = (chunk.file.clone(), 0);
            }
            check(&chunk, file.1)?;
            file.1 += chunk.data.len() as u64;
            let last = chunk.last;
            let (storage, path) = (self.storage.clone(), dir.join("data").join(&chunk.file));
            let data = std::mem::take(&mut chunk.data);
            let appended = self.blocking(move || storage.append(&path, &data)).await;
            appended.map_err(|error| Status::internal(error.to_string()))?;
            if last {
                return Ok(());
            }
            chunk =
                chunks.next().await.ok_or_else(|| Status::aborted("the snapshot ended before its last chunk"))??;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.storage.place().call(action).await?
    }

    /// Marks a received snapshot as kept.
    pub fn keep(&self, snapshot: SnapshotData) {
        snapshot.replaced.store(false, Ordering::Relaxed);
        self.set_current(snapshot);
    }
}

fn check(chunk: &Chunk, expected_offset: u64) -> Result<(), Status> {
    let name = &chunk.file;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Status::invalid_argument(format!("a snapshot has no file {name:?}")));
    }
    if chunk.offset != expected_offset {
        return Err(Status::invalid_argument(format!("{name}: a chunk is missing before byte {}", chunk.offset)));
    }
    if crc32fast::hash(&chunk.data) != chunk.crc32 {
        return Err(Status::data_loss(format!("{name}: the chunk at byte {} is damaged", chunk.offset)));
    }
    Ok(())
}

/// The chunks of a snapshot, read as they are asked for. A read error ends the stream before the last chunk, which the
/// receiver notices.
pub fn chunks(snapshot: SnapshotData, vote: Vote) -> impl Stream<Item = Chunk> + Send + 'static {
    let header = wire::encode_snapshot_meta(&snapshot.meta, Some(&vote));
    let state = Cursor { snapshot, header, files: None, at: 0, offset: 0 };
    futures::stream::unfold(Some(state), |state| async move {
        let cursor = state?;
        let place = cursor.snapshot.storage.place();
        match place.call(move || cursor.next()).await {
            Ok(Ok(Some((chunk, cursor)))) => {
                let rest = (!chunk.last).then_some(cursor);
                Some((chunk, rest))
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::error!("cannot read a snapshot: {error}");
                None
            }
            Err(_) => None,
        }
    })
}

struct Cursor {
    snapshot: SnapshotData,
    header: Bytes,
    files: Option<Vec<(String, u64)>>,
    at: usize,
    offset: u64,
}

impl Cursor {
    fn next(mut self) -> Result<Option<(Chunk, Self)>, Error> {
        let dir = self.snapshot.data();
        let storage = self.snapshot.storage.clone();
        let files = match self.files.take() {
            Some(files) => files,
            None => storage.files(&dir)?,
        };
        let Some((name, len)) = files.get(self.at).cloned() else { return Ok(None) };
        let data: Bytes = storage.read_at(&dir.join(&name), self.offset, CHUNK_BYTES)?.into();
        let offset = self.offset;
        self.offset += data.len() as u64;
        if data.is_empty() && offset < len {
            return Err(Error::Storage(format!("{name} is shorter than it was")));
        }
        let end = self.offset >= len;
        let last = end && self.at + 1 == files.len();
        let chunk = Chunk {
            header: std::mem::take(&mut self.header),
            file: name,
            offset,
            crc32: crc32fast::hash(&data),
            data,
            last,
        };
        if end {
            self.at += 1;
            self.offset = 0;
        }
        self.files = Some(files);
        Ok(Some((chunk, self)))
    }
}
