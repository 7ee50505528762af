//! The systemd unit that runs `hactl run` on a real machine, and what replaces it where systemd does not run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const TEMPLATE: &str = include_str!("../../../deploy/hactl.service");
const UNIT: &str = "/etc/systemd/system/hactl.service";
const PROGRAM: &str = "/usr/local/bin/hactl";

/// Whether systemd runs this machine.
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Installs the program and the unit, and starts it.
pub fn install(data_dir: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    if program != Path::new(PROGRAM) {
        // Written beside and renamed, so that a running one is not in the way.
        let draft = format!("{PROGRAM}.new");
        std::fs::copy(&program, &draft)
            .and_then(|_| std::fs::rename(&draft, PROGRAM))
            .with_context(|| format!("cannot install {PROGRAM}; are you root? (--foreground needs no installation)"))?;
    }
    let unit = TEMPLATE.replace("@program@", PROGRAM).replace("@data-dir@", &data_dir.display().to_string());
    std::fs::write(UNIT, unit).with_context(|| format!("cannot write {UNIT}; are you root?"))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", "hactl.service"])
}

/// Stops and removes the unit, where there is one.
pub fn remove() -> Result<()> {
    if !systemd_runs() || !Path::new(UNIT).exists() {
        return Ok(());
    }
    systemctl(&["disable", "--now", "hactl.service"])?;
    std::fs::remove_file(UNIT).with_context(|| format!("cannot remove {UNIT}"))?;
    systemctl(&["daemon-reload"])
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("systemctl").args(arguments).output().context("cannot run systemctl")?;
    if !output.status.success() {
        bail!(
            "`systemctl {}` failed: {}; look at `journalctl -u hactl`",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
