//! A member that does not run, worked on by hand: what its disk holds, and how it becomes the only member of a new epoch.
//!
//! ```text
//!   survey    log/ and state/ are read and checked                       changes nothing
//!   members   who took part, as noted beside them                        changes nothing
//!   found     state ─▶ state/<n+1>, then `current`; log/ begins behind it; older copies of the state go
//! ```
//!
//! A new epoch begins with the state at one log position, an empty log behind that, and a membership of one. It can be
//! interrupted anywhere and done again: the state is complete before anything names it, and the log is changed in one
//! write.
//!
//! Not here: epochs themselves, certificates, and who may do this; that is the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use state::{Command, EntryId, Revision, State};

use crate::Error;
use crate::log::{Owner, offline};
use crate::rows;
use crate::state_store::{self, META};
use crate::storage::{Durability, Purpose, Storage, Write, rocks::Rocks, rocks::corrupt};
use crate::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote, log_id};
use crate::wire;

/// Rows written in one batch.
const ROWS_BYTES: usize = 1 << 20;

/// Everything a stopped member knows: its state with every entry of its log applied, committed or not.
pub struct Survey {
    pub state: State,
    /// Before the entries behind the state were applied to it.
    pub applied_revision: Revision,
    pub last_term: u64,
    pub last_index: u64,
    /// Entries in the log that this member does not know to be committed. They may have been acknowledged all the same.
    pub unconfirmed: u64,
    pub members: Vec<Member>,
    pub voters: Vec<u64>,
    vote_term: u64,
}

/// Reads what a stopped member holds. Blocks. Nothing is changed, but for what opening a database after a crash repairs.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::Mismatch`] as at a start.
pub fn survey(data_dir: &Path, cluster_id: &str, member_id: u64) -> Result<Survey, Error> {
    survey_on(Rocks::new().as_ref(), data_dir, cluster_id, member_id).map_err(|error| match error {
        Error::Corrupt(why) => Error::Corrupt(format!(
            "{why}. Nothing can begin from this member: take another survivor, or the newest snapshot (`hactl cluster snapshot \
             restore`)"
        )),
        other => other,
    })
}

fn survey_on(storage: &dyn Storage, data_dir: &Path, cluster_id: &str, member_id: u64) -> Result<Survey, Error> {
    let owner = Owner { cluster_id: cluster_id.to_owned(), member_id };
    let log = offline::look(storage, data_dir, &owner)?;
    let dir = data_dir.join("state");
    let current = storage.read(&dir.join("current"))?;
    let current = current.ok_or_else(|| corrupt(&dir, "it names no database"))?;
    let dir = dir.join(String::from_utf8_lossy(&current).trim());
    let loaded = state_store::load(storage.database(&dir, Purpose::State)?.as_ref(), &dir, state::VERSION)?;
    if loaded.applied < log.purged {
        return Err(corrupt(data_dir, "the state ends before the log begins"));
    }
    let mut state = loaded.state;
    let applied_revision = state.revision();
    let (mut last, mut membership) = (loaded.applied, loaded.membership.membership().clone());
    offline::entries(storage, data_dir, loaded.applied, &mut |entry| {
        let at = EntryId { term: entry.log_id.leader_id.term, index: entry.log_id.index };
        state.skip(at);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(batch) => {
                for command in batch.commands() {
                    state.apply(at, &command);
                }
            }
            EntryPayload::Membership(changed) => membership = changed.clone(),
        }
        last = Some(entry.log_id);
        Ok(())
    })?;
    let confirmed = log.committed.max(loaded.applied);
    let next = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
    Ok(Survey {
        state,
        applied_revision,
        last_term: last.map_or(0, |id| id.leader_id.term),
        last_index: last.map_or(0, |id| id.index),
        unconfirmed: next(last).saturating_sub(next(confirmed)),
        members: membership.nodes().map(|(_, member)| member.clone()).collect(),
        voters: membership.voter_ids().collect(),
        vote_term: log.vote.map_or(0, |vote| vote.leader_id.term),
    })
}

impl Survey {
    /// A place in the log behind everything this member ever saw.
    pub fn next_position(&self) -> EntryId {
        EntryId { term: self.last_term.max(self.vote_term) + 1, index: self.last_index + 1 }
    }
}

/// The members as a stopped or damaged one noted them last, beside its databases; none where that is lost too. Blocks.
pub fn members(data_dir: &Path) -> Vec<Member> {
    let noted = state_store::members(Rocks::new().as_ref(), data_dir);
    noted.map(|noted| noted.membership().nodes().map(|(_, member)| member.clone()).collect()).unwrap_or_default()
}

/// Where a new epoch begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// In the log: behind everything the state has seen.
    pub at: EntryId,
    /// How far the revision moves; at least [`state::EPOCH_AHEAD`].
    pub ahead: Revision,
}

/// Makes the data dir that of the only member of a new epoch, whose state is `state` with `commands` applied, all history
/// forgotten and the revision moved ahead. Blocks.
///
/// # Errors
/// [`Error::Invalid`] when a command is refused; nothing is changed then.
pub fn found(
    data_dir: &Path,
    cluster_id: &str,
    member: Member,
    state: State,
    beginning: Beginning,
    commands: &[Command],
) -> Result<State, Error> {
    found_on(Rocks::new(), data_dir, cluster_id, member, state, beginning, commands)
}

fn found_on(
    storage: Arc<dyn Storage>,
    data_dir: &Path,
    cluster_id: &str,
    member: Member,
    mut state: State,
    Beginning { at, ahead }: Beginning,
    commands: &[Command],
) -> Result<State, Error> {
    state.skip(at);
    for command in commands {
        if let Some(refusal) = state.apply(at, command).outcome.refusal {
            return Err(Error::Invalid(format!("the state does not allow a new epoch: {refusal:?}")));
        }
    }
    state.forget_history(ahead);
    let owner = Owner { cluster_id: cluster_id.to_owned(), member_id: member.id };
    let position = log_id(at.term, at.index);
    let nodes = BTreeMap::from([(member.id, member.clone())]);
    let membership =
        Membership::new(vec![BTreeSet::from([member.id])], nodes).map_err(|error| Error::Invalid(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(position),
        last_membership: StoredMembership::new(Some(position), membership),
    };
    write_state(storage.as_ref(), data_dir, &state, &meta)?;
    // Not committed: it votes for itself once more when it starts.
    offline::begin_behind(storage.as_ref(), data_dir, &owner, position, &Vote::new(at.term, member.id))?;
    storage.remove_directory(&data_dir.join("snapshots"))?;
    Ok(state)
}

/// Writes a whole state beside the present one and then makes it the present one.
fn write_state(storage: &dyn Storage, data_dir: &Path, state: &State, meta: &SnapshotMeta) -> Result<(), Error> {
    let dir = data_dir.join("state");
    let current = storage.read(&dir.join("current"))?.unwrap_or_default();
    let number: u64 = String::from_utf8_lossy(&current).trim().parse().unwrap_or(0);
    let name = (number + 1).to_string();
    let fresh = dir.join(&name);
    storage.remove_directory(&fresh)?;
    let db = storage.database(&fresh, Purpose::State)?;
    let mut batch = vec![Write::Put(META.to_vec(), wire::encode_snapshot_meta(meta, None).into())];
    let mut bytes = 0;
    for (key, value) in state.present_rows() {
        bytes += key.len() + value.len();
        batch.push(Write::Put(key, value));
        if bytes >= ROWS_BYTES {
            db.write(std::mem::take(&mut batch), Durability::Buffered)?;
            bytes = 0;
        }
    }
    db.write(batch, Durability::Buffered)?;
    db.flush()?;
    // What was written is read once more before anything depends on it.
    if rows::load(db.as_ref(), &fresh)?.hash() != state.hash() {
        return Err(corrupt(&fresh, "what was just written reads differently: the disk is failing"));
    }
    drop(db);
    storage.sync_directory(&fresh)?;
    storage.replace(&dir.join("current"), name.as_bytes())?;
    if number > 0 {
        storage.remove_directory(&dir.join(number.to_string()))?;
    }
    Ok(())
}
