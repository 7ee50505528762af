//! `log.synced`: how many log entries are known to be synced, in a file of its own.
//!
//! It is written after each sync but not synced itself, so it costs one small write; what the kernel has not yet written
//! at a power cut only makes it older. It is lowered durably before the log is truncated.
//!
//! **Invariant:** what the file says is never more than what the log has synced.

use std::path::Path;

use crate::Error;
use crate::storage::{Cell, Durability, Storage};

const LEN: usize = 12;

pub struct Watermark {
    cell: Box<dyn Cell>,
    next: u64,
}

impl Watermark {
    pub fn open(storage: &dyn Storage, path: &Path) -> Result<Self, Error> {
        let cell = storage.cell(path)?;
        // A file torn by a power cut says nothing, which is the same as an old one.
        let next = cell.load()?.and_then(|bytes| decode(&bytes)).unwrap_or(0);
        Ok(Self { cell, next })
    }

    /// All entries below this index had been synced.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn set(&mut self, next: u64, durability: Durability) -> Result<(), Error> {
        self.cell.store(&encode(next), durability)?;
        self.next = next;
        Ok(())
    }
}

fn encode(next: u64) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..8].copy_from_slice(&next.to_le_bytes());
    let crc = crc32fast::hash(&out[..8]);
    out[8..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (next, crc) = bytes.get(..LEN)?.split_at(8);
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    (crc32fast::hash(next) == crc).then_some(())?;
    Some(u64::from_le_bytes(next.try_into().ok()?))
}
