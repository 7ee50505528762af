//! The storage seam: what this crate needs of a disk, and no more. [`rocks`] is the real one; [`sim`] keeps everything
//! in memory and forgets on demand what was never synced.
//!
//! All calls block; they are made where the disk's [`Place`] says.
//!
//! **Invariant:** a write with [`Durability::Synced`] that returned survives a power cut, and so does all written before it
//! to the same database.

mod place;
pub mod rocks;
pub mod sim;
mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::Error;

pub use place::{Place, Worker};

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// All keys from the first up to but not including the second.
    DeleteRange(Vec<u8>, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a crash of the process.
    Buffered,
    /// Survives a power cut.
    Synced,
}

/// How a database is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Write-ahead logged; nothing acknowledged is ever lost.
    Log,
    /// Not logged: a crash loses what was not flushed, in whole batches from the end, never from the middle.
    State,
}

/// An ordered map of bytes.
pub trait Database: Send + Sync + 'static {
    /// Applies all writes or none.
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<(), Error>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// Visits all keys from `from` up to but not including `to`, in order, until `visit` says false.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error>;
    /// Makes all written so far survive a power cut.
    fn flush(&self) -> Result<(), Error>;
    /// What a sync is to take beyond the call itself. Only a simulated disk says more than nothing.
    fn sync_takes(&self) -> Duration {
        Duration::ZERO
    }
    /// Flushes, then makes a copy at `dir`, which must not exist; cheap, and unaffected by later writes.
    fn checkpoint(&self, dir: &Path) -> Result<(), Error>;
}

/// See [`Database::scan`].
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, Error> + 'a;

/// A few bytes in a file of their own, overwritten in place.
pub trait Cell: Send + 'static {
    fn load(&self) -> Result<Option<Vec<u8>>, Error>;
    fn store(&mut self, bytes: &[u8], durability: Durability) -> Result<(), Error>;
}

/// A disk: databases, cells and directories of plain files.
pub trait Storage: Send + Sync + 'static {
    fn place(&self) -> Place {
        Place::Threads
    }
    fn database(&self, dir: &Path, purpose: Purpose) -> Result<Arc<dyn Database>, Error>;
    fn cell(&self, path: &Path) -> Result<Box<dyn Cell>, Error>;
    /// A whole small file; `None` if there is none.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error>;
    /// Replaces a whole small file durably: afterwards it has the old or the new content, never a mixture.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error>;
    /// Names and lengths of the files in a directory, sorted; empty if there is none.
    fn files(&self, dir: &Path) -> Result<Vec<(String, u64)>, Error>;
    /// Names of the directories in a directory, sorted.
    fn directories(&self, dir: &Path) -> Result<Vec<String>, Error>;
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error>;
    /// Adds to the end of a file, which is created with its directory.
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), Error>;
    /// Makes a directory's files and the directory itself survive a power cut.
    fn sync_directory(&self, dir: &Path) -> Result<(), Error>;
    /// A copy of a directory's files that shares their bytes where it can; neither is written to afterwards, or the
    /// writer never changes a file in place.
    fn link_directory(&self, from: &Path, to: &Path) -> Result<(), Error>;
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error>;
    fn remove_directory(&self, dir: &Path) -> Result<(), Error>;
    /// Bytes on disk of all files below each directory. What several share by links counts for the first of them only.
    fn bytes(&self, dirs: &[PathBuf]) -> Result<Vec<u64>, Error>;
    /// Bytes that can still be written to the file system of a directory.
    fn free(&self, dir: &Path) -> Result<u64, Error>;
    /// Makes a file of so many bytes, which are really taken from the disk; 0: no file.
    fn reserve(&self, path: &Path, bytes: u64) -> Result<(), Error>;
}
