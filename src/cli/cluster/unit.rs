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

/// Finds out what would stop `install`, before anything is made.
///
/// # Errors
/// When the user may not install, or the unit runs another data dir already.
pub fn check(data_dir: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "installing the systemd unit needs root: run this with sudo, or with --foreground and a --data-dir of yours"
        );
    }
    let wanted = rendered(data_dir)?;
    match std::fs::read_to_string(UNIT) {
        Ok(present) if exec_start(&present) != exec_start(&wanted) => bail!(
            "{UNIT} runs another data dir already ({}): `hactl cluster leave` there removes it, or use --foreground here",
            exec_start(&present)
        ),
        _ => Ok(()),
    }
}

fn exec_start(unit: &str) -> &str {
    unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap_or_default()
}

/// The unit's text for this data dir.
fn rendered(data_dir: &Path) -> Result<String> {
    let path = data_dir.to_str().filter(|path| !path.contains(char::is_control));
    let path = path.context("the path of the data dir must be plain text; choose another --data-dir")?;
    Ok(TEMPLATE.replace("@program@", PROGRAM).replace("@data-dir@", &quoted(path)))
}

/// One word of a command line in a unit: systemd.service(5), "Command lines", and systemd.unit(5), "Specifiers".
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '%' | '$' => text.extend([letter, letter]),
            _ => text.push(letter),
        }
    }
    text.push('"');
    text
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
    std::fs::write(UNIT, rendered(data_dir)?).with_context(|| format!("cannot write {UNIT}; are you root?"))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", "hactl.service"])
}

/// Whether there is a unit here that runs this data dir; one of another installation on this machine is not touched.
fn is_installed(data_dir: &Path) -> Result<bool> {
    if !systemd_runs() {
        return Ok(false);
    }
    match std::fs::read_to_string(UNIT) {
        Ok(present) => runs(&present, data_dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {UNIT}")),
    }
}

/// Whether the unit's text is of this data dir, an absolute path.
fn runs(unit: &str, data_dir: &Path) -> Result<bool> {
    Ok(exec_start(unit) == exec_start(&rendered(data_dir)?))
}

/// Stops the unit of this data dir, where there is one; it stays installed.
pub fn stop(data_dir: &Path) -> Result<()> {
    if is_installed(data_dir)? { systemctl(&["stop", "hactl.service"]) } else { Ok(()) }
}

/// Starts the unit of this data dir. False: there is none.
pub fn start(data_dir: &Path) -> Result<bool> {
    if !is_installed(data_dir)? {
        return Ok(false);
    }
    systemctl(&["start", "hactl.service"])?;
    Ok(true)
}

/// Stops and removes the unit of this data dir, where there is one.
pub fn remove(data_dir: &Path) -> Result<()> {
    if !is_installed(data_dir)? {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_program_and_data_dir() {
        for (dir, word) in [
            ("/var/lib/hactl", "\"/var/lib/hactl\""),
            ("/srv/my data/100%", "\"/srv/my data/100%%\""),
            ("/a\"b\\c$d", "\"/a\\\"b\\\\c$$d\""),
        ] {
            let unit = rendered(Path::new(dir)).expect(dir);
            assert_eq!(exec_start(&unit), format!("/usr/local/bin/hactl run --data-dir {word}"));
            assert!(!unit.contains('@'), "{unit}");
            assert!(runs(&unit, Path::new(dir)).expect(dir));
            assert!(!runs(&unit, Path::new("/var/lib/hactl-2")).expect("another"));
        }
        assert!(rendered(Path::new("/a\nb")).is_err());
    }

    /// systemd's own opinion, where its tools are installed.
    #[test]
    fn systemd_accepts_the_unit() {
        let dir = tempfile::tempdir().expect("dir");
        // The program need not be installed for this.
        let unit = rendered(Path::new("/srv/my data/100%")).expect("rendered").replace(PROGRAM, "/bin/sh");
        let path = dir.path().join("hactl.service");
        std::fs::write(&path, unit).expect("write");
        let verified = Command::new("systemd-analyze").arg("--man=no").arg("verify").arg(&path).output();
        let Ok(output) = verified else { return };
        // Units it names, such as docker.service, need not be there either.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about: Vec<&str> = said.lines().filter(|line| line.contains("hactl.service")).collect();
        assert_eq!(about, Vec::<&str>::new());
    }
}
