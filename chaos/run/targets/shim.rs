//! The library that is preloaded into hactl for slow disks and wrong clocks; compiled where it is used.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

const SOURCE: &str = include_str!("shim.c");

/// What the library reads in a data dir.
pub const SYNC_FILE: &str = "chaos-sync-ms";
pub const CLOCK_FILE: &str = "chaos-clock-ms";

/// Compiles it into `dir`.
pub async fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("chaos-shim.c"), dir.join("chaos-shim.so"));
    std::fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
    super::run(&mut cc).await.context("slow disks and wrong clocks need a C compiler")?;
    Ok(library)
}
