//! The real disk: RocksDB for the databases, plain files for the rest.
//!
//! Sized for a master that shall stay below 60 MiB when idle: a small block cache, write buffers that only load fills, two
//! background threads for both databases together.
//!
//! `state/` is only ever written, and read once, from end to end, at start: rows are sorted when they are flushed, not when
//! they are written, and files are merged late (universal compaction), since their number slows nobody down. Most rows of
//! `log/` are purged before a merge would come to them, so that one waits for many files too.
//!
//! `log/` opens in the mode that tolerates a torn last record and refuses anything else. RocksDB cannot tell a last record
//! whose bytes never all reached the disk from one that rotted; [`wal`](super::wal) looks whether anything valid follows
//! it, and only if nothing does is the log opened up to that point. Whether what was dropped had been
//! acknowledged, the log's watermark decides.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBRecoveryMode, IteratorMode, MemtableFactory,
    Options, ReadOptions, UniversalCompactOptions, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};

use super::{Cell, Database, Durability, Purpose, Storage, Visit, Write, wal};
use crate::Error;

const BLOCK_CACHE_BYTES: usize = 8 << 20;
const LOG_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// So many rows in a row with so many deletions among them, or such a share of a file, make it due for a merge with all that
/// is older: much went at once. Under load every second row is a deletion, since an old version goes for each new one; merging
/// for these too would write the whole state anew with every file. What they free comes back when the newer tables together are
/// as large as the oldest ([`AMPLIFICATION_PERCENT`]).
const DELETIONS: (usize, usize, f64) = (4096, 2867, 0.7);
const AMPLIFICATION_PERCENT: i32 = 100;
const STATE_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Files of the newest level that a merge begins with.
const FILES_TO_MERGE: i32 = 8;
/// Likewise for `state/`, of which nothing is read while it is written, and with how many more writes wait.
const STATE_FILES_TO_MERGE: i32 = 12;
const STATE_FILES_SLOW: (i32, i32) = (36, 48);
/// Rows of `state/` are read one after the other or not at all: a large block packs well and needs a small index.
const STATE_BLOCK_BYTES: usize = 32 << 10;
const BACKGROUND_THREADS: i32 = 2;
/// A table is handed to the disk in pieces of this while it is written: at its end in one go, it would be waited for by every
/// sync of the log.
const SYNC_BYTES: u64 = 512 << 10;
/// RocksDB would keep every table file open.
const OPEN_FILES: i32 = 64;

/// One per process: databases share its cache.
pub struct Rocks {
    cache: Cache,
}

impl Default for Rocks {
    fn default() -> Self {
        Self { cache: Cache::new_lru_cache(BLOCK_CACHE_BYTES) }
    }
}

impl Rocks {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn options(&self, purpose: Purpose, recovery: DBRecoveryMode) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_format_version(5);
        if purpose == Purpose::State {
            table.set_block_size(STATE_BLOCK_BYTES);
        }
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_max_background_jobs(BACKGROUND_THREADS);
        options.set_max_open_files(OPEN_FILES);
        options.set_max_write_buffer_number(2);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_wal_recovery_mode(recovery);
        options.set_paranoid_checks(true);
        options.set_bytes_per_sync(SYNC_BYTES);
        options.set_level_zero_file_num_compaction_trigger(FILES_TO_MERGE);
        match purpose {
            Purpose::Log => options.set_write_buffer_size(LOG_WRITE_BUFFER_BYTES),
            Purpose::State => {
                options.set_atomic_flush(true);
                options.set_write_buffer_size(STATE_WRITE_BUFFER_BYTES);
                options.set_compaction_style(DBCompactionStyle::Universal);
                let mut universal = UniversalCompactOptions::default();
                universal.set_max_size_amplification_percent(AMPLIFICATION_PERCENT);
                options.set_universal_compaction_options(&universal);
                options.set_level_zero_file_num_compaction_trigger(STATE_FILES_TO_MERGE);
                options.set_level_zero_slowdown_writes_trigger(STATE_FILES_SLOW.0);
                options.set_level_zero_stop_writes_trigger(STATE_FILES_SLOW.1);
                options.set_memtable_factory(MemtableFactory::Vector);
                // One thread writes; this kind of buffer knows no other way.
                options.set_allow_concurrent_memtable_write(false);
                // History goes by deletions: what they free comes back soon, in the background.
                let (window, deletions, share) = DELETIONS;
                options.add_compact_on_deletion_collector_factory(window, deletions, share);
            }
        }
        options
    }

    fn open(&self, dir: &Path, purpose: Purpose, recovery: DBRecoveryMode) -> Result<DB, rocksdb::Error> {
        DB::open(&self.options(purpose, recovery), dir)
    }

    /// Opens a log whose last record is damaged, if it is the last.
    fn open_torn(&self, dir: &Path, error: rocksdb::Error) -> Result<DB, Error> {
        let cause = format!("{}: {error}", dir.display());
        match wal::first_damage(dir)? {
            Some(damage) if !damage.followed_by_valid => {
                tracing::warn!(file = %damage.file.display(), offset = damage.offset,
                    "the last record of the log was cut off before it was acknowledged; it is dropped");
                self.open(dir, Purpose::Log, DBRecoveryMode::PointInTime).map_err(|error| corrupt(dir, error.as_ref()))
            }
            Some(damage) => Err(corrupt(
                dir,
                &format!("{} at byte {} is damaged and valid records follow it", damage.file.display(), damage.offset),
            )),
            None => Err(corrupt(dir, &cause)),
        }
    }
}

/// What cannot be trusted. The cure is another for each that may be damaged: whoever opens it names that.
pub fn corrupt(dir: &Path, cause: &str) -> Error {
    Error::Corrupt(format!("{}: {cause}", dir.display()))
}

struct RocksDatabase {
    db: DB,
    dir: PathBuf,
    purpose: Purpose,
}

impl RocksDatabase {
    fn failed(&self, error: rocksdb::Error) -> Error {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => corrupt(&self.dir, error.as_ref()),
            _ => Error::Storage(format!("{}: {error}", self.dir.display())),
        }
    }
}

impl Storage for Rocks {
    fn database(&self, dir: &Path, purpose: Purpose) -> Result<Arc<dyn Database>, Error> {
        fs::create_dir_all(dir)?;
        // RocksDB would begin anew.
        if !dir.join("CURRENT").exists() && self.files(dir)?.iter().any(|(name, _)| name.ends_with(".sst")) {
            return Err(corrupt(dir, "the file CURRENT is missing"));
        }
        let db = match self.open(dir, purpose, DBRecoveryMode::TolerateCorruptedTailRecords) {
            Ok(db) => db,
            Err(error) if error.kind() == rocksdb::ErrorKind::Corruption => match purpose {
                Purpose::Log => self.open_torn(dir, error)?,
                Purpose::State => return Err(corrupt(dir, error.as_ref())),
            },
            Err(error) => return Err(Error::Storage(format!("cannot open {}: {error}", dir.display()))),
        };
        Ok(Arc::new(RocksDatabase { db, dir: dir.to_path_buf(), purpose }))
    }

    fn cell(&self, path: &Path) -> Result<Box<dyn Cell>, Error> {
        let new = !path.exists();
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if new && let Some(dir) = path.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(Box::new(FileCell { file }))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let fresh = path.with_extension("new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    }

    fn files(&self, dir: &Path) -> Result<Vec<(String, u64)>, Error> {
        let mut files = Vec::new();
        for entry in entries(dir)? {
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn directories(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for entry in entries(dir)? {
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut file = fs::File::open(path)?;
        file.seek(std::io::SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(len);
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)?;
        Ok(())
    }

    fn sync_directory(&self, dir: &Path) -> Result<(), Error> {
        for (name, _) in self.files(dir)? {
            fs::File::open(dir.join(name))?.sync_all()?;
        }
        fs::File::open(dir)?.sync_all()?;
        if let Some(parent) = dir.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn link_directory(&self, from: &Path, to: &Path) -> Result<(), Error> {
        fs::create_dir_all(to)?;
        for (name, _) in self.files(from)? {
            // RocksDB never changes a table file in place; all others it may append to.
            if name.ends_with(".sst") {
                fs::hard_link(from.join(&name), to.join(&name))?;
            } else {
                fs::copy(from.join(&name), to.join(&name))?;
            }
        }
        self.sync_directory(to)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        fs::rename(from, to)?;
        if let Some(parent) = to.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn remove_directory(&self, dir: &Path) -> Result<(), Error> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn bytes(&self, dirs: &[PathBuf]) -> Result<Vec<u64>, Error> {
        let mut seen = HashSet::new();
        dirs.iter().map(|dir| bytes(dir, &mut seen)).collect()
    }

    fn free(&self, dir: &Path) -> Result<u64, Error> {
        let stat = nix::sys::statvfs::statvfs(dir).map_err(std::io::Error::from)?;
        Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    fn reserve(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            };
        }
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(bytes)?;
        let len = i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(nix::fcntl::posix_fallocate(&file, 0, len).map_err(std::io::Error::from)?)
    }
}

/// Not the lengths of files: RocksDB preallocates, and what is a hole takes nothing.
fn bytes(dir: &Path, seen: &mut HashSet<(u64, u64)>) -> Result<u64, Error> {
    let mut sum = 0;
    for entry in entries(dir)? {
        // Files come and go while RocksDB compacts.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            sum += bytes(&entry.path(), seen)?;
        } else if seen.insert((metadata.dev(), metadata.ino())) {
            sum += metadata.blocks() * 512;
        }
    }
    Ok(sum)
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

impl Database for RocksDatabase {
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for write in &writes {
            match write {
                Write::Put(key, value) => batch.put(key, value),
                Write::Delete(key) => batch.delete(key),
                Write::DeleteRange(from, to) => batch.delete_range(from.as_slice(), to.as_slice()),
            }
        }
        let mut options = WriteOptions::default();
        match self.purpose {
            Purpose::Log => options.set_sync(durability == Durability::Synced),
            Purpose::State => options.disable_wal(true),
        }
        self.db.write_opt(batch, &options).map_err(|error| self.failed(error))?;
        if self.purpose == Purpose::State && durability == Durability::Synced {
            self.flush()?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get(key).map_err(|error| self.failed(error))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_vec());
        options.fill_cache(false);
        let start = IteratorMode::From(from, rocksdb::Direction::Forward);
        for row in self.db.iterator_opt(start, options) {
            let (key, value) = row.map_err(|error| self.failed(error))?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        match self.purpose {
            Purpose::Log => self.db.flush_wal(true),
            Purpose::State => self.db.flush(),
        }
        .map_err(|error| self.failed(error))
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| self.failed(error))
    }
}

struct FileCell {
    file: fs::File,
}

impl Cell for FileCell {
    fn load(&self) -> Result<Option<Vec<u8>>, Error> {
        let len = self.file.metadata()?.len() as usize;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok((len > 0).then_some(bytes))
    }

    fn store(&mut self, bytes: &[u8], durability: Durability) -> Result<(), Error> {
        self.file.write_all_at(bytes, 0)?;
        if durability == Durability::Synced {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
