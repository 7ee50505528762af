//! The mark of a member whose data cannot be trusted: `<data-dir>/quarantine`, which holds the reason and the cure. Who
//! finds it does not start.
//!
//! Damage may show once and hide the next time (a bad sector that reads after all, a state that differed): the mark makes
//! the refusal last. It goes with the data directory, when the member is replaced.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::storage::Storage;

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

/// Marks the member, if the error says that its data cannot be trusted.
pub fn mark(storage: &dyn Storage, data_dir: &Path, error: &Error) {
    let Error::Corrupt(why) = error else { return };
    tracing::error!("{why}");
    if check(storage, data_dir).is_ok()
        && let Err(error) = storage.replace(&file(data_dir), format!("{why}\n").as_bytes())
    {
        tracing::error!("cannot mark {} as quarantined: {error}", data_dir.display());
    }
}
