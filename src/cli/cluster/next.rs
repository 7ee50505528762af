//! What comes after a restore or a recovery, for a real machine and for one of a local cluster: starting the master, and the
//! commands for the others.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::super::local::{self, Layout};
use super::super::progress::note;
use super::unit;

/// The local cluster that a data dir belongs to, and its name there.
pub fn local(data_dir: &Path) -> Option<(PathBuf, String)> {
    let (dir, name) = (data_dir.parent()?, data_dir.file_name()?.to_str()?);
    let layout = Layout::load(dir).ok()?;
    layout.check_name(name).ok()?;
    Some((dir.to_owned(), name.to_owned()))
}

/// The master of a local cluster that a data dir is of, with its ports.
pub fn local_master(data_dir: &Path) -> Option<local::Master> {
    let (dir, name) = local(data_dir)?;
    Layout::load(&dir).ok()?.plan.masters.into_iter().find(|master| master.name == name)
}

/// Starts this master where something keeps its process: the local cluster, or the unit if there is one. False: neither does.
///
/// # Errors
/// When it cannot be started.
pub async fn start_now(data_dir: &Path) -> Result<bool> {
    if let Some((dir, name)) = local(data_dir) {
        local::start_and_wait(&Layout::load(&dir)?, &name).await?;
        note(format!("{name} started"));
        return Ok(true);
    }
    let started = unit::start(data_dir)?;
    if started {
        note("hactl.service started");
    }
    Ok(started)
}

/// An error after a master that ran was stopped, and before anything was changed: it is started again.
pub async fn start_again(data_dir: &Path, error: anyhow::Error) -> anyhow::Error {
    match start_now(data_dir).await {
        Ok(true) => error,
        Ok(false) => error.context(format!(
            "the master that ran here is stopped; start it again with `hactl run --data-dir {}`",
            data_dir.display()
        )),
        Err(start) => error.context(format!("the master that ran here is stopped: {start:#}")),
    }
}

/// How this master is started.
pub fn start(data_dir: &Path) {
    println!("\nNext, start this master:");
    match local(data_dir) {
        Some((dir, name)) => println!("  hactl local start {name} --dir {}", dir.display()),
        None if unit::systemd_runs() => {
            println!("  systemctl restart hactl      # or: hactl run --data-dir {}", data_dir.display())
        }
        None => println!("  hactl run --data-dir {}", data_dir.display()),
    }
}

/// How the others come back.
pub fn others(data_dir: &Path, api: &str) {
    match local(data_dir) {
        Some((dir, _)) => {
            println!("Then empty the data dirs of the other masters (in {}) and let them join:", dir.display());
            println!("  hactl local up --dir {}", dir.display());
        }
        None => {
            println!("Then, for every further master, here and there:");
            println!("  hactl cluster token create --master");
            println!("  hactl cluster leave --force     # empties the data dir of a master of before");
            println!("  hactl cluster join {api} --master --token …");
        }
    }
}
