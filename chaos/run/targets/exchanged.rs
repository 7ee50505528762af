//! Which program each machine of a target runs: the run's own, until it was exchanged for another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

/// By machine, the programs that took the place of the run's own.
#[derive(Default)]
pub struct Exchanged(Mutex<BTreeMap<String, PathBuf>>);

impl Exchanged {
    /// The machine runs this program from its next start on.
    ///
    /// # Errors
    /// When the path cannot be made absolute.
    pub fn set(&self, machine: &str, program: &Path) -> Result<()> {
        let program = std::path::absolute(program)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.to_owned(), program);
        Ok(())
    }

    /// What the machine runs, where `own` is what it ran at first.
    pub fn of(&self, machine: &str, own: &Path) -> String {
        let exchanged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exchanged.get(machine).map_or(own, PathBuf::as_path).display().to_string()
    }
}
