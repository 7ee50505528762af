//! Between the rows of [`state::codec`] and the database that holds them.

use std::path::Path;
use std::sync::mpsc;

use state::codec::{self, Row};
use state::{Applied, CorruptError, Restore, State};

use crate::Error;
use crate::storage::{Database, Write, rocks::corrupt};

fn write(row: Row) -> Write {
    match row {
        Row::Put(key, value) => Write::Put(key, value),
        Row::Delete(key) => Write::Delete(key),
    }
}

/// Adds what one applied command changes.
pub fn changed(applied: &Applied, out: &mut Vec<Write>) {
    codec::rows(applied, &mut |row| out.push(write(row)));
}

/// The row that goes with each written batch.
pub fn meta(state: &State) -> Write {
    write(codec::meta(state))
}

/// Rows read but not yet taken, in chunks of about so many bytes.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 8;

/// Rows as they were read: the ends of each key and value in the bytes.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Chunk {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((end, self.bytes.len()));
    }

    fn restore(&self, into: &mut Restore) -> Result<(), CorruptError> {
        let mut from = 0;
        for (key, value) in &self.ends {
            into.row(&self.bytes[from..*key], &self.bytes[*key..*value])?;
            from = *value;
        }
        Ok(())
    }
}

/// The state that a database holds. One thread reads and unpacks, another makes the state of it: with a large one a member's
/// start is mostly this.
pub fn load(db: &dyn Database, dir: &Path) -> Result<State, Error> {
    let (chunks, read) = mpsc::sync_channel::<Chunk>(CHUNKS);
    std::thread::scope(|scope| {
        let restored = scope.spawn(move || {
            let mut restore = Restore::new();
            read.into_iter().try_for_each(|chunk| chunk.restore(&mut restore))?;
            restore.finish()
        });
        let mut chunk = Chunk::default();
        // Whoever no longer takes chunks has found a row that is wrong, and says so in the end.
        let scanned = db.scan(codec::START, codec::END, &mut |key, value| {
            chunk.push(key, value);
            Ok(chunk.bytes.len() < CHUNK_BYTES || chunks.send(std::mem::take(&mut chunk)).is_ok())
        });
        let _ = chunks.send(chunk);
        drop(chunks);
        let restored = restored.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        scanned?;
        restored.map_err(|error| corrupt(dir, &error.to_string()))
    })
}
