//! One background process: started in a session of its own, remembered with its start time, and signalled only while
//! that start time still holds, so that a reused pid never gets a signal meant for another.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Where a process's output goes.
pub const LOG: &str = "hactl.log";
const FILE: &str = "process.json";
/// How long a process may take to end after SIGTERM before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Of its output, what is looked at for an error message.
const TAIL_BYTES: u64 = 16 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to the process's start.
    started: u64,
}

/// The process whose files are in one directory.
pub struct Process {
    dir: PathBuf,
}

impl Process {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The pid while it lives.
    pub fn pid(&self) -> Option<i32> {
        let text = std::fs::read(self.dir.join(FILE)).ok()?;
        let remembered: Remembered = serde_json::from_slice(&text).ok()?;
        let (state, started) = stat(remembered.pid)?;
        (started == remembered.started && state != 'Z' && state != 'X').then_some(remembered.pid)
    }

    /// Starts this very program with `arguments`, unless it runs already.
    pub fn start(&self, arguments: &[&std::ffi::OsStr]) -> Result<i32> {
        if let Some(pid) = self.pid() {
            return Ok(pid);
        }
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let log = self.log_file()?;
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        let child = command.spawn().context("cannot start a background process")?;
        let pid = child.id() as i32;
        let (_, started) = stat(pid).with_context(|| format!("process {pid} ended at once"))?;
        let text = serde_json::to_vec(&Remembered { pid, started })?;
        std::fs::write(self.dir.join(FILE), text)?;
        // Reaps the child should it end while this program still runs, so that it does not stay as a zombie.
        std::thread::spawn(move || {
            let mut child = child;
            let _ = child.wait();
        });
        Ok(pid)
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// How much it has said so far; see [`Self::last_words`].
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |metadata| metadata.len())
    }

    /// Why it ended: the last error, or else the last line, of what it said since its log had this length.
    pub fn last_words(&self, since: u64) -> String {
        let said = tail_bytes(&self.log(), self.log_length().saturating_sub(since).min(TAIL_BYTES));
        let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
        let error = lines().filter_map(|line| line.strip_prefix("error: ")).next_back();
        error.or_else(|| lines().next_back()).unwrap_or("it said nothing").to_owned()
    }

    fn log_file(&self) -> Result<File> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// `kill -9` and wait until it is gone. False: it was dead already.
    pub fn kill(&self) -> Result<bool> {
        self.signal(Signal::SIGKILL)
    }

    /// SIGTERM, and SIGKILL should it not end in time.
    pub fn stop(&self) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        send(pid, Signal::SIGTERM)?;
        if !self.gone_within(STOP_WITHIN) {
            self.signal(Signal::SIGKILL)?;
        }
        Ok(true)
    }

    /// Sends SIGTERM without waiting; several processes then end side by side.
    pub fn ask_to_stop(&self) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        send(pid, Signal::SIGTERM)?;
        Ok(true)
    }

    fn signal(&self, signal: Signal) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        send(pid, signal)?;
        if !self.gone_within(STOP_WITHIN) {
            bail!("process {pid} does not end; look at `cat /proc/{pid}/stack`");
        }
        Ok(true)
    }

    fn gone_within(&self, limit: Duration) -> bool {
        let since = Instant::now();
        while self.pid().is_some() {
            if since.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The last lines of its output, for an error message.
    pub fn tail(&self, lines: usize) -> String {
        let path = self.dir.join(LOG);
        let text = tail_bytes(&path, TAIL_BYTES);
        let all: Vec<&str> = text.lines().collect();
        let tail = &all[all.len().saturating_sub(lines)..];
        format!("the end of {}:\n  {}", path.display(), tail.join("\n  "))
    }
}

fn tail_bytes(path: &Path, most: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map(|meta| meta.len()).unwrap_or(0);
        if file.seek(SeekFrom::Start(length.saturating_sub(most))).is_ok() {
            // A tail that cannot be read only makes the message shorter.
            let _ = file.read_to_end(&mut bytes);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}; it belongs to another user")),
    }
}

/// State and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold spaces; the rest begins behind the last of them.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_not_ours() {
        let dir = tempfile::tempdir().expect("dir");
        let me = std::process::id() as i32;
        let (_, started) = stat(me).expect("own stat");
        for (started, expected) in [(started, Some(me)), (started + 1, None)] {
            let text = serde_json::to_vec(&Remembered { pid: me, started }).expect("json");
            std::fs::write(dir.path().join(FILE), text).expect("write");
            assert_eq!(Process::at(dir.path()).pid(), expected);
        }
    }

    #[test]
    fn the_last_error_since_it_was_started_says_why_it_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let process = Process::at(dir.path());
        assert_eq!(process.last_words(0), "it said nothing");
        let before = "INFO started\nerror: of long ago\n";
        for (said, expected) in [
            ("INFO started\nerror: the port is taken\n", "the port is taken"),
            ("error: first\nerror: second\nWARN a task was left\n", "second"),
            ("INFO started\nINFO stopped\n\n", "INFO stopped"),
            ("", "it said nothing"),
        ] {
            std::fs::write(process.log(), format!("{before}{said}")).expect("write");
            assert_eq!(process.last_words(before.len() as u64), expected);
        }
    }
}
