//! Between the rows of [`state::codec`] and the database that holds them.

use std::path::Path;

use state::codec::{self, Row};
use state::{Applied, Restore, State};

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

/// The state that a database holds.
pub fn load(db: &dyn Database, dir: &Path) -> Result<State, Error> {
    let mut restore = Restore::new();
    db.scan(codec::START, codec::END, &mut |key, value| {
        restore.row(key, value).map_err(|error| corrupt(dir, &error.to_string()))?;
        Ok(true)
    })?;
    restore.finish().map_err(|error| corrupt(dir, &error.to_string()))
}
