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

/// So many outcomes that have left the state may stay in the database while it is in use.
const OUTCOMES_BEHIND: usize = 8192;

/// The outcomes that have left the state, in the order in which they came, but not yet the database: [`state::Restore`] passes
/// over them. They go many at once, as one range. A row for each would make every file that RocksDB flushes due for a merge, and
/// ranges are dear too: with each one a flush reads the index of every table that it covers.
///
/// **Invariant:** no snapshot has any of them, nor has a database that was closed in order.
pub struct Evicted {
    behind: usize,
    /// The first key after them; none while none has left.
    end: Option<Vec<u8>>,
}

impl Evicted {
    /// Of a database that holds this state. A process before may have left some there.
    pub fn from(state: &State) -> Self {
        Self { behind: OUTCOMES_BEHIND, end: codec::first_outcome(state) }
    }

    /// Takes the deletions of outcomes out of `rows`, and puts one of all that left so far there when it is time.
    pub fn gather(&mut self, rows: &mut Vec<Write>) {
        let mut left = 0;
        rows.retain(|row| {
            let Write::Delete(key) = row else { return true };
            if !codec::is_outcome(key) {
                return true;
            }
            left += 1;
            if self.end.as_ref().is_none_or(|end| end <= key) {
                // The next key after it.
                self.end = Some([key.as_slice(), &[0]].concat());
            }
            false
        });
        self.behind += left;
        if left > 0 && self.behind >= OUTCOMES_BEHIND {
            rows.extend(self.take());
        }
    }

    /// What removes all that left so far; none if none did.
    pub fn take(&mut self) -> Option<Write> {
        let behind = std::mem::take(&mut self.behind);
        let end = self.end.as_ref().filter(|_| behind > 0)?;
        Some(Write::DeleteRange(codec::FIRST_OUTCOME.to_vec(), end.clone()))
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
    fn outcomes_leave_the_database_many_at_once() {
        let mut state = State::default();
        let mut stored = std::collections::BTreeMap::new();
        let mut ranges = 0;
        let mut write = |rows: Vec<Write>, stored: &mut std::collections::BTreeMap<_, _>| {
            for row in rows {
                match row {
                    Write::Put(key, value) => drop(stored.insert(key, value)),
                    Write::Delete(key) => assert!(!codec::is_outcome(&key)),
                    Write::DeleteRange(from, to) => {
                        ranges += 1;
                        stored.retain(|key, _| *key < from || *key >= to);
                    }
                }
            }
            ranges
        };
        let mut evicted = Evicted::from(&state);
        let mut number = 0u128;
        let mut apply = |count: usize, evicted: &mut Evicted, state: &mut State, stored: &mut _| {
            let mut ranges = 0;
            for _ in 0..count {
                number += 1;
                let proposal = number.to_be_bytes().to_vec().into();
                let command = state::Command { proposal, ..state::Command::default() };
                let applied = state.apply(state::EntryId { term: 1, index: 1 }, &command);
                let mut rows = Vec::new();
                changed(&applied, &mut rows);
                rows.push(Write::Delete(b"another".to_vec()));
                evicted.gather(&mut rows);
                assert!(rows.iter().any(|row| matches!(row, Write::Delete(key) if key == b"another")), "{rows:?}");
                ranges = write(rows, stored);
            }
            ranges
        };
        let restored = |stored: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>, state: &State| {
            let Write::Put(key, value) = meta(state) else { panic!("the row goes with every batch") };
            let mut restore = Restore::new();
            for (key, value) in [(&key, &value)].into_iter().chain(stored) {
                restore.row(key, value).expect("a row of a state");
            }
            restore.finish()
        };
        let whole = state::OUTCOMES_MAX;
        // The first ever that leaves goes by itself, since it is the first of this process.
        assert_eq!(apply(whole + 1 + OUTCOMES_BEHIND + 3, &mut evicted, &mut state, &mut stored), 2);
        assert_eq!(stored.len(), whole + 3, "those that left since the last range stay");
        assert_eq!(restored(&stored, &state), Ok(state.clone()));

        // A process that ended hard leaves them to the next one, whose first range has them all.
        let mut evicted = Evicted::from(&state);
        assert_eq!(apply(1, &mut evicted, &mut state, &mut stored), 3);
        assert_eq!(stored.len(), whole);

        // Before a snapshot all go.
        assert_eq!(apply(5, &mut evicted, &mut state, &mut stored), 3);
        assert_eq!(stored.len(), whole + 5);
        let Some(Write::DeleteRange(from, to)) = evicted.take() else { panic!("five have left") };
        stored.retain(|key, _| *key < from || *key >= to);
        assert_eq!(stored.len(), whole);
        assert_eq!(evicted.take(), None);
        assert_eq!(restored(&stored, &state), Ok(state));
    }
}
