//! A disk in memory that can lose power: what was never synced is then gone.
//!
//! Stands in for [`rocks`](super::rocks) where a test or a simulation wants crashes at will. Clones share one disk, so it
//! outlives the member that used it, as a real one does.
//!
//! **Invariant:** handles opened before a crash write nothing afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Cell, Database, Durability, Purpose, Storage, Visit, Write};
use crate::Error;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The file that holds a checkpoint's rows.
const ROWS_FILE: &str = "rows";

#[derive(Clone, Default)]
pub struct Sim(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    /// Counts crashes.
    incarnation: u64,
    /// Every sync of such a database fails from now on.
    failing: Option<Purpose>,
    /// Every write fails from now on.
    stuffed: bool,
    /// Bytes that are said to be free; none: more than enough.
    free: Option<u64>,
    /// What a sync of a log takes.
    slow: Duration,
    syncs: u64,
    databases: BTreeMap<PathBuf, Table>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    cells: BTreeMap<PathBuf, CellContent>,
}

#[derive(Clone, Default)]
struct Table {
    durable: Rows,
    /// What readers see.
    current: Rows,
}

#[derive(Clone, Default)]
struct CellContent {
    durable: Option<Vec<u8>>,
    current: Option<Vec<u8>>,
}

impl Sim {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: unsynced writes are lost, and present handles are dead.
    pub fn crash(&self) {
        let mut disk = self.lock();
        disk.incarnation += 1;
        disk.failing = None;
        for table in disk.databases.values_mut() {
            table.current = table.durable.clone();
        }
        for cell in disk.cells.values_mut() {
            cell.current = cell.durable.clone();
        }
    }

    /// Makes every sync of such databases fail until it is called with none, or the next crash.
    pub fn fail_syncs(&self, of: impl Into<Option<Purpose>>) {
        self.lock().failing = of.into();
    }

    /// Makes every write to a database fail for want of space, or no longer.
    pub fn stuff(&self, stuffed: bool) {
        self.lock().stuffed = stuffed;
    }

    /// What is said to be free, in bytes.
    pub fn set_free(&self, bytes: u64) {
        self.lock().free = Some(bytes);
    }

    /// Makes every sync of a log take so long from now on.
    pub fn slow_syncs(&self, duration: Duration) {
        self.lock().slow = duration;
    }

    /// How many times a database was synced.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Changes one stored byte of a database behind its owner's back; for tests of damage.
    pub fn flip(&self, dir: &Path, key: &[u8]) {
        let mut disk = self.lock();
        if let Some(table) = disk.databases.get_mut(dir) {
            for rows in [&mut table.durable, &mut table.current] {
                if let Some(last) = rows.get_mut(key).and_then(|value| value.last_mut()) {
                    *last ^= 1;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SimDatabase {
    sim: Sim,
    dir: PathBuf,
    incarnation: u64,
    purpose: Purpose,
}

impl SimDatabase {
    fn with<T>(&self, action: impl FnOnce(&mut Disk) -> Result<T, Error>) -> Result<T, Error> {
        let mut disk = self.sim.lock();
        if disk.incarnation != self.incarnation {
            return Err(Error::Storage("the power was cut".into()));
        }
        action(&mut disk)
    }
}

fn apply(rows: &mut Rows, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            Write::Delete(key) => {
                rows.remove(key);
            }
            Write::DeleteRange(from, to) => rows.retain(|key, _| key < from || key >= to),
        }
    }
}

fn sync(disk: &mut Disk, dir: &Path, purpose: Purpose) -> Result<(), Error> {
    if disk.failing == Some(purpose) {
        return Err(Error::Storage("the disk fails".into()));
    }
    disk.syncs += 1;
    let table = disk.databases.entry(dir.to_path_buf()).or_default();
    table.durable = table.current.clone();
    Ok(())
}

impl Database for SimDatabase {
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<(), Error> {
        let slow = self.with(|disk| {
            if disk.stuffed {
                return Err(Error::Storage("no space left on device".into()));
            }
            apply(&mut disk.databases.entry(self.dir.clone()).or_default().current, &writes);
            Ok(disk.slow)
        })?;
        if durability == Durability::Buffered {
            return Ok(());
        }
        if self.purpose == Purpose::Log && !slow.is_zero() {
            std::thread::sleep(slow);
        }
        self.with(|disk| sync(disk, &self.dir, self.purpose))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(|disk| Ok(disk.databases.get(&self.dir).and_then(|table| table.current.get(key).cloned())))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self.with(|disk| {
            let table = disk.databases.entry(self.dir.clone()).or_default();
            let range = table.current.range(from.to_vec()..to.to_vec());
            Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
        })?;
        for (key, value) in rows {
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        self.with(|disk| sync(disk, &self.dir, self.purpose))
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.with(|disk| {
            sync(disk, &self.dir, self.purpose)?;
            let rows = disk.databases.get(&self.dir).map(|table| table.current.clone()).unwrap_or_default();
            disk.files.insert(dir.join(ROWS_FILE), encode(&rows));
            Ok(())
        })
    }
}

fn encode(rows: &Rows) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in rows {
        out.extend((key.len() as u32).to_le_bytes());
        out.extend(key);
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(value);
    }
    out
}

fn decode(mut bytes: &[u8]) -> Rows {
    fn take(bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *bytes = rest;
        Some(value.to_vec())
    }
    let mut rows = Rows::new();
    while let (Some(key), Some(value)) = (take(&mut bytes), take(&mut bytes)) {
        rows.insert(key, value);
    }
    rows
}

struct SimCell {
    sim: Sim,
    path: PathBuf,
    incarnation: u64,
}

impl Cell for SimCell {
    fn load(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.sim.lock().cells.get(&self.path).and_then(|cell| cell.current.clone()))
    }

    fn store(&mut self, bytes: &[u8], durability: Durability) -> Result<(), Error> {
        let mut disk = self.sim.lock();
        if disk.incarnation != self.incarnation {
            return Err(Error::Storage("the power was cut".into()));
        }
        let cell = disk.cells.entry(self.path.clone()).or_default();
        cell.current = Some(bytes.to_vec());
        if durability == Durability::Synced {
            cell.durable.clone_from(&cell.current);
        }
        Ok(())
    }
}

impl Storage for Sim {
    fn database(&self, dir: &Path, purpose: Purpose) -> Result<Arc<dyn Database>, Error> {
        let mut disk = self.lock();
        if !disk.databases.contains_key(dir) {
            let rows = disk.files.get(&dir.join(ROWS_FILE)).map(|bytes| decode(bytes)).unwrap_or_default();
            disk.databases.insert(dir.to_path_buf(), Table { durable: rows.clone(), current: rows });
        }
        let incarnation = disk.incarnation;
        drop(disk);
        Ok(Arc::new(SimDatabase { sim: self.clone(), dir: dir.to_path_buf(), incarnation, purpose }))
    }

    fn cell(&self, path: &Path) -> Result<Box<dyn Cell>, Error> {
        let incarnation = self.lock().incarnation;
        Ok(Box::new(SimCell { sim: self.clone(), path: path.to_path_buf(), incarnation }))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.lock().files.get(path).cloned())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.lock().files.insert(path.to_path_buf(), bytes.to_vec());
        Ok(())
    }

    fn files(&self, dir: &Path) -> Result<Vec<(String, u64)>, Error> {
        let disk = self.lock();
        let inside = disk.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|(path, bytes)| Some((path.file_name()?.to_string_lossy().into_owned(), bytes.len() as u64)))
            .collect())
    }

    fn directories(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let disk = self.lock();
        let mut names: Vec<String> = disk
            .files
            .keys()
            .chain(disk.databases.keys())
            .filter_map(|path| path.strip_prefix(dir).ok())
            .filter(|rest| rest.components().count() > 1 || disk.databases.contains_key(&dir.join(rest)))
            .filter_map(|rest| rest.components().next().map(|name| name.as_os_str().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let disk = self.lock();
        let bytes = disk.files.get(path).ok_or_else(|| Error::Storage(format!("no file {}", path.display())))?;
        let from = (offset as usize).min(bytes.len());
        Ok(bytes[from..(from + len).min(bytes.len())].to_vec())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.lock().files.entry(path.to_path_buf()).or_default().extend(bytes);
        Ok(())
    }

    fn sync_directory(&self, _dir: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn link_directory(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut disk = self.lock();
        let copies: Vec<(PathBuf, Vec<u8>)> = disk
            .files
            .iter()
            .filter(|(path, _)| path.parent() == Some(from))
            .filter_map(|(path, bytes)| Some((to.join(path.file_name()?), bytes.clone())))
            .collect();
        disk.files.extend(copies);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut disk = self.lock();
        let moved: Vec<PathBuf> = disk.files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(bytes), Ok(rest)) = (disk.files.remove(&path), path.strip_prefix(from)) {
                disk.files.insert(to.join(rest), bytes);
            }
        }
        Ok(())
    }

    fn remove_directory(&self, dir: &Path) -> Result<(), Error> {
        let mut disk = self.lock();
        disk.files.retain(|path, _| !path.starts_with(dir));
        disk.databases.retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn bytes(&self, dirs: &[PathBuf]) -> Result<Vec<u64>, Error> {
        let disk = self.lock();
        let below = |dir: &PathBuf| {
            let files = disk.files.iter().filter(|(path, _)| path.starts_with(dir)).map(|(_, bytes)| bytes.len());
            let rows = disk.databases.iter().filter(|(path, _)| path.starts_with(dir));
            let rows = rows.flat_map(|(_, table)| table.current.iter()).map(|(key, value)| key.len() + value.len());
            files.chain(rows).sum::<usize>() as u64
        };
        Ok(dirs.iter().map(below).collect())
    }

    fn free(&self, _dir: &Path) -> Result<u64, Error> {
        Ok(self.lock().free.unwrap_or(u64::MAX))
    }

    fn reserve(&self, _path: &Path, _bytes: u64) -> Result<(), Error> {
        Ok(())
    }
}
