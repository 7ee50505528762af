//! `log/` of a member that does not run: looked at, and begun anew behind a state that holds all of it.

use std::path::Path;

use super::{
    COMMITTED, ENTRY, Owner, PURGED, VOTE, check_entries, check_owner, corrupt, entry_key, next, watermark::Watermark,
};
use crate::Error;
use crate::storage::{Durability, Purpose, Storage, Write};
use crate::types::{Entry, LogId, Vote};
use crate::wire;

/// What the log of a stopped member holds.
pub struct Stopped {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
}

/// Looks at a log and checks every entry. Blocks.
pub fn look(storage: &dyn Storage, data_dir: &Path, owner: &Owner) -> Result<Stopped, Error> {
    let dir = data_dir.join("log");
    let db = storage.database(&dir, Purpose::Log)?;
    check_owner(db.as_ref(), &dir, owner)?;
    let damaged = |error: wire::Malformed| error.stored(&dir, "a stored id");
    let id = |key: &[u8]| match db.get(key)? {
        Some(bytes) => wire::decode_log_id(&bytes.into()).map(Some).map_err(damaged),
        None => Ok(None),
    };
    let vote = match db.get(VOTE)? {
        Some(bytes) => Some(wire::decode_vote_only(&bytes.into()).map_err(damaged)?),
        None => None,
    };
    let (committed, purged) = (id(COMMITTED)?, id(PURGED)?);
    let last = check_entries(db.as_ref(), &dir, purged)?.last;
    let synced = Watermark::open(storage, &data_dir.join("log.synced"))?.next();
    if next(last) < synced {
        let cause = format!("the log holds entries up to {}, but {synced} had been synced", next(last));
        return Err(corrupt(&dir, &cause));
    }
    Ok(Stopped { vote, committed, purged })
}

/// Visits the entries behind `after` in order. Blocks.
pub fn entries(
    storage: &dyn Storage,
    data_dir: &Path,
    after: Option<LogId>,
    visit: &mut dyn FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let dir = data_dir.join("log");
    let db = storage.database(&dir, Purpose::Log)?;
    db.scan(&entry_key(next(after)), &[ENTRY + 1], &mut |_, value| {
        let entry = wire::decode_entry(&bytes::Bytes::copy_from_slice(value))
            .map_err(|error| error.stored(&dir, "an entry"))?;
        visit(entry).map(|()| true)
    })
}

/// Makes the log empty behind `at`, in one synced write: whatever it held is in the state that goes with it. Blocks.
pub fn begin_behind(
    storage: &dyn Storage,
    data_dir: &Path,
    owner: &Owner,
    at: LogId,
    vote: &Vote,
) -> Result<(), Error> {
    let dir = data_dir.join("log");
    let db = storage.database(&dir, Purpose::Log)?;
    check_owner(db.as_ref(), &dir, owner)?;
    let writes = vec![
        Write::DeleteRange(vec![ENTRY], vec![ENTRY + 1]),
        Write::Put(PURGED.to_vec(), wire::encode_log_id(&at).into()),
        Write::Put(COMMITTED.to_vec(), wire::encode_log_id(&at).into()),
        Write::Put(VOTE.to_vec(), wire::encode_vote_only(vote).into()),
    ];
    db.write(writes, Durability::Synced)
}
