//! The mark of a member whose data cannot be trusted: `<data-dir>/quarantine`, which holds the reason and the cure. Who
//! finds it does not start.
//!
//! Damage may show once and hide the next time (a bad sector that reads after all, a state that differed): the mark makes
//! the refusal last. It goes with the database, when the member is replaced.

use std::path::{Path, PathBuf};

use crate::storage::Storage;
use crate::{Error, Member};

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("quarantine")
}

/// Why this member must not start, if it must not.
pub fn check(storage: &dyn Storage, data_dir: &Path) -> Result<(), Error> {
    match storage.read(&file(data_dir))? {
        None => Ok(()),
        Some(why) => {
            Err(Error::Corrupt(format!("this member is quarantined: {}", String::from_utf8_lossy(&why).trim())))
        }
    }
}

/// Marks the member, and says why with the cure.
pub fn mark(storage: &dyn Storage, data_dir: &Path, member: &Member, why: &str) -> String {
    let why = format!("{why}. {}", cure(data_dir, member));
    tracing::error!("this member is quarantined: {why}");
    if check(storage, data_dir).is_ok()
        && let Err(error) = storage.replace(&file(data_dir), format!("{why}\n").as_bytes())
    {
        tracing::error!("cannot mark {} as quarantined: {error}", data_dir.display());
    }
    why
}

/// What the user types.
fn cure(data_dir: &Path, member: &Member) -> String {
    let (name, dir) = (&member.name, data_dir.display());
    format!(
        "What it acknowledged may be lost, so it takes no part any more, and a new member takes its place: `hactl cluster replace \
         {name} --data-dir {dir}` on this machine, or `hactl cluster replace {name} --from <host:port of a healthy master> --token \
         <from hactl cluster token create --master>` on another one. Where it was the only master: `hactl cluster snapshot restore` \
         into an empty data dir. Check the disk first"
    )
}
