//! A disk in memory that can lose power: what was never synced is then gone.
//!
//! Stands in for [`rocks`](super::rocks) where a test or a simulation wants crashes at will. Clones share one disk, so it
//! outlives the member that used it, as a real one does.
//!
//! ```text
//!   kill    the process ends: what a state database held in its own memory is gone, what the kernel has is not
//!   crash   the power fails: of what was not synced a part from the front may be left, in whole batches
//! ```
//!
//! A cut may also be aimed at the n-th [`Action`] of a kind, and a write may go astray: what a member then finds on its disk
//! is two rows that are not what they should be.
//!
//! **Invariant:** handles opened before a crash or kill write nothing afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Cell, Database, Durability, Place, Purpose, Storage, Visit, Write};
use crate::Error;

/// Bytes are shared between what is durable and what readers see.
type Rows = BTreeMap<Bytes, Bytes>;

/// Small facts have keys that begin so. Nothing goes astray there: only a second copy could tell.
const FACTS: &[u8] = b"m/";

/// The file that holds a checkpoint's rows.
const ROWS_FILE: &str = "rows";
/// A disk writes files in such pieces, in any order.
const PAGE: usize = 4096;
/// Rows that a scan takes at a time.
const SCAN_ROWS: usize = 64;

#[derive(Clone, Default)]
pub struct Sim {
    disk: Arc<Mutex<Disk>>,
    place: Place,
    /// The only incarnation of the disk that this handle works with; none: the present one, whichever it is.
    mounted: Option<u64>,
}

/// What a power cut can be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A batch is written to a database.
    Write(Purpose),
    /// A few bytes are overwritten and synced, as before the log is truncated.
    Cell,
    /// A small file is replaced, as when a snapshot is complete or another state is in use.
    Replace,
    /// A database is copied.
    Checkpoint,
    /// A piece of a received snapshot is written.
    Append,
}

/// A power cut to come.
struct Aimed {
    at: Action,
    /// So many actions of that kind are let pass before,
    pass: u64,
    /// and from the next of them on so many of any kind.
    then: u64,
    counting: bool,
}

#[derive(Default)]
struct Disk {
    /// Counts crashes and kills.
    incarnation: u64,
    aimed: Option<Aimed>,
    /// How many aimed cuts have hit.
    hits: watch::Sender<u64>,
    /// Every sync of such a database fails from now on.
    failing: Option<Purpose>,
    /// Every sync of such a database finds damage.
    damaged: Option<Purpose>,
    /// Every write fails from now on.
    stuffed: bool,
    /// Bytes that are said to be free; none: more than enough.
    free: Option<u64>,
    /// What a sync of a log takes.
    slow: Duration,
    syncs: u64,
    databases: BTreeMap<PathBuf, Table>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Files whose bytes a power cut may still take.
    unsynced: BTreeSet<PathBuf>,
    /// Those whose bytes the last power cut took.
    torn: Vec<PathBuf>,
    cells: BTreeMap<PathBuf, CellContent>,
}

struct Table {
    purpose: Purpose,
    durable: Rows,
    /// What was written since.
    unsynced: Vec<Vec<Change>>,
    /// Both, which is what readers see.
    current: Rows,
    /// Rows that cannot be read any more.
    damaged: BTreeSet<Bytes>,
    /// The next batch that becomes durable has a write that goes to the place of another row, which this number chooses.
    astray: Option<u64>,
}

fn is_content(key: &Bytes) -> bool {
    !key.starts_with(FACTS)
}

/// A [`Write`] whose bytes are shared.
#[derive(Clone)]
enum Change {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

impl From<Write> for Change {
    fn from(write: Write) -> Self {
        match write {
            Write::Put(key, value) => Self::Put(key.into(), value.into()),
            Write::Delete(key) => Self::Delete(key.into()),
            Write::DeleteRange(from, to) => Self::DeleteRange(from.into(), to.into()),
        }
    }
}

#[derive(Clone, Default)]
struct CellContent {
    durable: Option<Vec<u8>>,
    current: Option<Vec<u8>>,
}

impl Table {
    fn sync(&mut self) {
        for mut batch in std::mem::take(&mut self.unsynced) {
            self.misdirect(&mut batch);
            apply(&mut self.durable, batch);
        }
    }

    /// Lets one write of the batch go astray, if one shall and can: readers see what they wrote until the next crash.
    fn misdirect(&mut self, batch: &mut [Change]) {
        let Some(number) = self.astray else { return };
        let puts = batch.iter_mut().filter_map(|change| match change {
            Change::Put(key, _) if is_content(key) => Some(key),
            _ => None,
        });
        let mut puts: Vec<&mut Bytes> = puts.collect();
        let others: Vec<&Bytes> = self.durable.keys().filter(|key| is_content(key)).collect();
        if puts.is_empty() || others.is_empty() {
            return;
        }
        let at = number as usize % puts.len();
        let other = others[(number >> 32) as usize % others.len()];
        if *puts[at] != *other {
            *puts[at] = other.clone();
            self.astray = None;
        }
    }

    /// Loses all that was not synced but so many batches.
    fn lose(&mut self, keep: usize) {
        self.unsynced.truncate(keep);
        self.sync();
        self.current = self.durable.clone();
    }
}

impl Sim {
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that never lets a thread wait: it is used among the tasks of one thread, in that thread's time.
    pub fn in_tasks() -> Self {
        Self { place: Place::Tasks, ..Self::default() }
    }

    /// The disk as one process has it: nothing of it works after the next crash or kill.
    pub fn mount(&self) -> Self {
        let mounted = Some(self.lock().incarnation);
        Self { mounted, ..self.clone() }
    }

    /// Whether this handle still works: nothing has crashed or been killed since it was mounted.
    pub fn is_mounted(&self) -> bool {
        self.present().is_ok()
    }

    /// Cuts the power: unsynced writes are lost, and present handles are dead.
    pub fn crash(&self) {
        self.crash_keeping(|_| 0);
    }

    /// As [`Self::crash`]; `keep` says how much is left of so many unsynced batches or bytes.
    pub fn crash_keeping(&self, mut keep: impl FnMut(usize) -> usize) {
        let mut disk = self.lock();
        disk.end();
        for table in disk.databases.values_mut() {
            let left = keep(table.unsynced.len());
            table.lose(left);
        }
        for cell in disk.cells.values_mut().filter(|cell| cell.current != cell.durable) {
            let new = cell.current.clone().unwrap_or_default();
            let mut torn = cell.durable.clone().unwrap_or_default();
            // The new bytes reached it in order, but perhaps not all of them.
            let written = keep(new.len()).min(new.len());
            torn.resize(torn.len().max(written), 0);
            torn[..written].copy_from_slice(&new[..written]);
            cell.durable = Some(torn);
            cell.current = cell.durable.clone();
        }
        disk.torn = std::mem::take(&mut disk.unsynced).into_iter().collect();
        for path in disk.torn.clone() {
            if let Some(bytes) = disk.files.get_mut(&path) {
                let length = keep(bytes.len());
                bytes.truncate(length);
                // Of what is left a page in the middle may be one that was never written.
                let last = length.div_ceil(PAGE).saturating_sub(1);
                let page = keep(last).min(last) * PAGE;
                let end = (page + PAGE).min(length);
                if keep(1) == 0 {
                    bytes[page..end].fill(0);
                }
            }
        }
    }

    /// The files that had not been synced when the power failed last.
    pub fn torn(&self) -> Vec<PathBuf> {
        self.lock().torn.clone()
    }

    /// Cuts the power at the action of this kind after so many of them and, from there on, so many of any kind: that one
    /// does not happen and present handles are dead. What was not synced is still to be taken, by [`Self::crash_keeping`].
    pub fn aim(&self, at: Action, pass: u64, then: u64) {
        self.lock().aimed = Some(Aimed { at, pass, then, counting: false });
    }

    /// Takes an aimed cut back; false if it has hit.
    pub fn aim_no_more(&self) -> bool {
        self.lock().aimed.take().is_some()
    }

    /// How many aimed cuts have hit.
    pub fn hits(&self) -> watch::Receiver<u64> {
        self.lock().hits.subscribe()
    }

    /// Lets one row's write go to the place of another row, as soon as there is one. After the next crash the row is as it
    /// was before, and the other one has its bytes.
    pub fn misdirect(&self, purpose: Purpose, number: u64) {
        let mut disk = self.lock();
        let tables = disk.databases.values_mut().filter(|table| table.purpose == purpose);
        if let Some(table) = tables.max_by_key(|table| table.durable.len()) {
            table.astray = Some(number);
        }
    }

    /// Ends the process; `keep` says how many of so many unflushed batches a state database had flushed by itself.
    pub fn kill(&self, mut keep: impl FnMut(usize) -> usize) {
        let mut disk = self.lock();
        disk.end();
        for table in disk.databases.values_mut().filter(|table| table.purpose == Purpose::State) {
            let left = keep(table.unsynced.len());
            table.lose(left);
        }
    }

    /// Ends the process and throws the disk away with all that is on it.
    pub fn discard(&self) {
        let mut disk = self.lock();
        disk.end();
        disk.databases.clear();
        disk.files.clear();
        disk.unsynced.clear();
        disk.cells.clear();
    }

    /// Makes every sync of such databases fail until it is called with none, or the next crash.
    pub fn fail_syncs(&self, of: impl Into<Option<Purpose>>) {
        self.lock().failing = of.into();
    }

    /// Makes every sync of such databases find what was written before damaged, as a merge of tables does.
    pub fn find_damage(&self, of: Purpose) {
        self.lock().damaged = Some(of);
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
                if let Some(value) = rows.get_mut(key) {
                    let mut bytes = value.to_vec();
                    bytes.last_mut().into_iter().for_each(|last| *last ^= 1);
                    *value = bytes.into();
                }
            }
        }
    }

    /// Makes one stored row unreadable, as a bad sector does; `pick` chooses among so many. False if there is none.
    pub fn damage(&self, purpose: Purpose, pick: impl FnOnce(usize) -> usize) -> bool {
        let mut disk = self.lock();
        let tables = disk.databases.values_mut();
        let Some(table) = tables.filter(|table| table.purpose == purpose).max_by_key(|table| table.durable.len())
        else {
            return false;
        };
        let at = pick(table.durable.len().max(1));
        let Some(key) = table.durable.keys().nth(at).cloned() else { return false };
        table.damaged.insert(key);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, for as long as this handle works.
    fn present(&self) -> Result<MutexGuard<'_, Disk>, Error> {
        let disk = self.lock();
        match self.mounted {
            Some(mounted) if mounted != disk.incarnation => Err(power_cut()),
            _ => Ok(disk),
        }
    }
}

impl Disk {
    /// All present handles are dead.
    fn end(&mut self) {
        self.incarnation += 1;
        self.failing = None;
        self.aimed = None;
    }

    /// Whether power lasts for this action.
    fn act(&mut self, action: Action) -> Result<(), Error> {
        let Some(aimed) = &mut self.aimed else { return Ok(()) };
        if !aimed.counting {
            if aimed.at != action {
                return Ok(());
            }
            if aimed.pass > 0 {
                aimed.pass -= 1;
                return Ok(());
            }
            aimed.counting = true;
        }
        if aimed.then > 0 {
            aimed.then -= 1;
            return Ok(());
        }
        self.end();
        self.hits.send_modify(|hits| *hits += 1);
        Err(power_cut())
    }
}

fn power_cut() -> Error {
    Error::Storage("the power was cut".into())
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
            return Err(power_cut());
        }
        action(&mut disk)
    }

    fn table<'a>(&self, disk: &'a mut Disk) -> Result<&'a mut Table, Error> {
        let gone = || Error::Storage(format!("{} was removed", self.dir.display()));
        disk.databases.get_mut(&self.dir).ok_or_else(gone)
    }

    fn sync(&self, disk: &mut Disk) -> Result<(), Error> {
        if disk.failing == Some(self.purpose) {
            return Err(Error::Storage("the disk fails".into()));
        }
        if disk.damaged == Some(self.purpose) {
            return Err(super::rocks::corrupt(&self.dir, "block checksum mismatch"));
        }
        disk.syncs += 1;
        self.table(disk)?.sync();
        Ok(())
    }
}

fn apply(rows: &mut Rows, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                rows.insert(key, value);
            }
            Change::Delete(key) => {
                rows.remove(&key);
            }
            Change::DeleteRange(from, to) if from < to => {
                let gone: Vec<Bytes> = rows.range(from..to).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
            Change::DeleteRange(..) => {}
        }
    }
}

fn unreadable(dir: &Path) -> Error {
    super::rocks::corrupt(dir, "a block does not have its checksum")
}

impl Database for SimDatabase {
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<(), Error> {
        let slow = self.with(|disk| {
            if disk.stuffed {
                return Err(Error::Storage("no space left on device".into()));
            }
            disk.act(Action::Write(self.purpose))?;
            let slow = disk.slow;
            let table = self.table(disk)?;
            let changes: Vec<Change> = writes.into_iter().map(Change::from).collect();
            for change in &changes {
                if let Change::Put(key, _) | Change::Delete(key) = change {
                    table.damaged.remove(key);
                }
            }
            apply(&mut table.current, changes.clone());
            table.unsynced.push(changes);
            Ok(slow)
        })?;
        if durability == Durability::Buffered {
            return Ok(());
        }
        if self.purpose == Purpose::Log && self.sim.place == Place::Threads && !slow.is_zero() {
            std::thread::sleep(slow);
        }
        self.with(|disk| self.sync(disk))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(|disk| {
            let table = self.table(disk)?;
            if table.damaged.contains(key) {
                return Err(unreadable(&self.dir));
            }
            Ok(table.current.get(key).map(|value| value.to_vec()))
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut from = from.to_vec();
        while from.as_slice() < to {
            let rows: Vec<(Bytes, Bytes)> = self.with(|disk| {
                let table = self.table(disk)?;
                let range = (Bound::Included(from.as_slice()), Bound::Excluded(to));
                let range = table.current.range::<[u8], _>(range).take(SCAN_ROWS);
                let rows =
                    range.map(|(key, value)| (!table.damaged.contains(key)).then(|| (key.clone(), value.clone())));
                rows.collect::<Option<_>>().ok_or_else(|| unreadable(&self.dir))
            })?;
            match rows.last() {
                Some((last, _)) => from = [last.as_ref(), &[0]].concat(),
                None => return Ok(()),
            }
            for (key, value) in rows {
                if !visit(&key, &value)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        self.with(|disk| self.sync(disk))
    }

    fn sync_takes(&self) -> Duration {
        match self.sim.place {
            Place::Threads => Duration::ZERO,
            Place::Tasks => self.sim.lock().slow,
        }
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.with(|disk| {
            disk.act(Action::Checkpoint)?;
            self.sync(disk)?;
            let rows = encode(&self.table(disk)?.current);
            let path = dir.join(ROWS_FILE);
            disk.unsynced.insert(path.clone());
            disk.files.insert(path, rows);
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
    fn take(bytes: &mut &[u8]) -> Option<Bytes> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *bytes = rest;
        Some(Bytes::copy_from_slice(value))
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
        Ok(self.sim.present()?.cells.get(&self.path).and_then(|cell| cell.current.clone()))
    }

    fn store(&mut self, bytes: &[u8], durability: Durability) -> Result<(), Error> {
        let mut disk = self.sim.lock();
        if disk.incarnation != self.incarnation {
            return Err(power_cut());
        }
        if durability == Durability::Synced {
            disk.act(Action::Cell)?;
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
    fn place(&self) -> Place {
        self.place
    }

    fn database(&self, dir: &Path, purpose: Purpose) -> Result<Arc<dyn Database>, Error> {
        let mut disk = self.present()?;
        if !disk.databases.contains_key(dir) {
            let durable = disk.files.get(&dir.join(ROWS_FILE)).map(|bytes| decode(bytes)).unwrap_or_default();
            let current = durable.clone();
            let table =
                Table { purpose, durable, unsynced: Vec::new(), current, damaged: BTreeSet::new(), astray: None };
            disk.databases.insert(dir.to_path_buf(), table);
        }
        let incarnation = disk.incarnation;
        drop(disk);
        Ok(Arc::new(SimDatabase { sim: self.clone(), dir: dir.to_path_buf(), incarnation, purpose }))
    }

    fn cell(&self, path: &Path) -> Result<Box<dyn Cell>, Error> {
        let incarnation = self.present()?.incarnation;
        Ok(Box::new(SimCell { sim: self.clone(), path: path.to_path_buf(), incarnation }))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.present()?.files.get(path).cloned())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut disk = self.present()?;
        disk.act(Action::Replace)?;
        disk.files.insert(path.to_path_buf(), bytes.to_vec());
        Ok(())
    }

    fn files(&self, dir: &Path) -> Result<Vec<(String, u64)>, Error> {
        let disk = self.present()?;
        let inside = disk.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|(path, bytes)| Some((path.file_name()?.to_string_lossy().into_owned(), bytes.len() as u64)))
            .collect())
    }

    fn directories(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let disk = self.present()?;
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
        let disk = self.present()?;
        let bytes = disk.files.get(path).ok_or_else(|| Error::Storage(format!("no file {}", path.display())))?;
        let from = (offset as usize).min(bytes.len());
        Ok(bytes[from..(from + len).min(bytes.len())].to_vec())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut disk = self.present()?;
        disk.act(Action::Append)?;
        disk.files.entry(path.to_path_buf()).or_default().extend(bytes);
        disk.unsynced.insert(path.to_path_buf());
        Ok(())
    }

    fn sync_directory(&self, dir: &Path) -> Result<(), Error> {
        self.present()?.unsynced.retain(|path| path.parent() != Some(dir));
        Ok(())
    }

    fn link_directory(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut disk = self.present()?;
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
        let mut disk = self.present()?;
        let moved: Vec<PathBuf> = disk.files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(bytes), Ok(rest)) = (disk.files.remove(&path), path.strip_prefix(from)) {
                disk.files.insert(to.join(rest), bytes);
            }
        }
        Ok(())
    }

    fn remove_directory(&self, dir: &Path) -> Result<(), Error> {
        let mut disk = self.present()?;
        disk.files.retain(|path, _| !path.starts_with(dir));
        disk.databases.retain(|path, _| !path.starts_with(dir));
        disk.unsynced.retain(|path| !path.starts_with(dir));
        Ok(())
    }

    fn bytes(&self, dirs: &[PathBuf]) -> Result<Vec<u64>, Error> {
        let disk = self.present()?;
        let below = |dir: &PathBuf| {
            let files = disk.files.iter().filter(|(path, _)| path.starts_with(dir)).map(|(_, bytes)| bytes.len());
            let rows = disk.databases.iter().filter(|(path, _)| path.starts_with(dir));
            let rows = rows.flat_map(|(_, table)| table.current.iter()).map(|(key, value)| key.len() + value.len());
            files.chain(rows).sum::<usize>() as u64
        };
        Ok(dirs.iter().map(below).collect())
    }

    fn free(&self, _dir: &Path) -> Result<u64, Error> {
        Ok(self.present()?.free.unwrap_or(u64::MAX))
    }

    fn reserve(&self, _path: &Path, _bytes: u64) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8) -> Vec<Write> {
        vec![Write::Put(vec![number], vec![number])]
    }

    fn keys(db: &dyn Database) -> Vec<u8> {
        let mut keys = Vec::new();
        db.scan(&[], &[255], &mut |key, _| {
            keys.extend(key);
            Ok(true)
        })
        .expect("a scan");
        keys
    }

    #[test]
    fn a_cut_comes_at_the_action_it_is_aimed_at() {
        let sim = Sim::in_tasks();
        let dir = Path::new("/d");
        let open = |sim: &Sim| sim.mount().database(dir, Purpose::Log).expect("a database");
        let (db, mounted) = (open(&sim), sim.mount());
        sim.aim(Action::Write(Purpose::Log), 1, 1);
        let hits = sim.hits();
        sim.replace(Path::new("/f"), b"not aimed at").expect("replaced");
        for number in [1, 2] {
            db.write(row(number), Durability::Synced).expect("written");
        }
        assert!(db.write(row(3), Durability::Synced).is_err() && *hits.borrow() == 1);
        assert!(db.get(&[1]).is_err() && !mounted.is_mounted() && sim.mount().is_mounted(), "the power is off");
        assert!(!sim.aim_no_more(), "it has hit");
        sim.crash();
        assert_eq!(keys(open(&sim).as_ref()), [1, 2]);
        sim.aim(Action::Cell, 0, 0);
        assert!(sim.aim_no_more());
        open(&sim).write(row(4), Durability::Synced).expect("written");
    }

    #[test]
    fn what_was_not_synced_is_torn() {
        let sim = Sim::in_tasks();
        let mut cell = sim.cell(Path::new("/c")).expect("a cell");
        cell.store(b"old bytes", Durability::Synced).expect("stored");
        cell.store(b"NEW", Durability::Buffered).expect("stored");
        sim.append(Path::new("/s/f"), &[7; 3 * PAGE]).expect("written");
        sim.crash_keeping(|most| most.min(2 * PAGE + 1).saturating_sub(1));
        let torn = sim.cell(Path::new("/c")).expect("a cell").load().expect("loaded");
        assert_eq!(torn.as_deref(), Some(b"NEd bytes".as_slice()));
        let file = sim.read(Path::new("/s/f")).expect("read").expect("a file");
        assert!(file.len() == 2 * PAGE && file.contains(&0) && file.contains(&7), "{} bytes", file.len());
    }

    #[test]
    fn a_row_goes_astray_and_is_read_right_until_the_next_crash() {
        let sim = Sim::in_tasks();
        let db = sim.database(Path::new("/d"), Purpose::State).expect("a database");
        db.write([row(1), row(2)].concat(), Durability::Synced).expect("written");
        sim.misdirect(Purpose::State, 1 << 32);
        db.write(row(3), Durability::Synced).expect("written");
        assert_eq!(db.get(&[3]).expect("read"), Some(vec![3]));
        sim.crash();
        let db = sim.database(Path::new("/d"), Purpose::State).expect("a database");
        assert_eq!((db.get(&[2]).expect("read"), db.get(&[3]).expect("read")), (Some(vec![3]), None));
    }
}
