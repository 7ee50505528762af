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

/// Makes one deletion of those of outcomes, which leave in the order in which they came: only numbers up to the last one are
/// gone. As a row each they would make every file that RocksDB flushes due for a merge.
pub fn gather_deleted_outcomes(rows: &mut Vec<Write>) {
    let mut deleted: Option<(Vec<u8>, Vec<u8>)> = None;
    rows.retain(|row| {
        let Write::Delete(key) = row else { return true };
        if !codec::is_outcome(key) {
            return true;
        }
        let (first, last) = deleted.get_or_insert_with(|| (key.clone(), key.clone()));
        *first = std::mem::take(first).min(key.clone());
        *last = std::mem::take(last).max(key.clone());
        false
    });
    if let Some((first, mut behind)) = deleted {
        // The next key after it.
        behind.push(0);
        rows.push(Write::DeleteRange(first, behind));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_outcomes_are_one_range() {
        let mut state = State::default();
        let mut rows = Vec::new();
        for number in 0..state::OUTCOMES_MAX as u128 + 3 {
            let command =
                state::Command { proposal: number.to_be_bytes().to_vec().into(), ..state::Command::default() };
            let applied = state.apply(state::EntryId { term: 1, index: 1 }, &command);
            changed(&applied, &mut rows);
        }
        rows.push(Write::Delete(b"another".to_vec()));
        let gone: Vec<Vec<u8>> = rows
            .iter()
            .filter_map(|row| match row {
                Write::Delete(key) if codec::is_outcome(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(gone.len(), 3);
        gather_deleted_outcomes(&mut rows);
        let deletions: Vec<&Write> = rows.iter().filter(|row| !matches!(row, Write::Put(..))).collect();
        let [Write::Delete(other), Write::DeleteRange(from, to)] = deletions[..] else { panic!("{deletions:?}") };
        assert_eq!(other, b"another");
        let kept = |key: &Vec<u8>| key < from || key >= to;
        assert!(gone.iter().all(|key| !kept(key)));
        let puts = rows.iter().filter_map(|row| match row {
            Write::Put(key, _) if codec::is_outcome(key) => Some(key),
            _ => None,
        });
        assert_eq!(puts.filter(|key| kept(key)).count(), state::OUTCOMES_MAX);
    }
}
