//! Processes of this machine, by `hactl local`: each what a real machine runs, on ports of 127.0.0.1.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::Value;
use tokio::process::Command;

use super::engine::Engine;
use super::exchanged::Exchanged;
use super::{Ability, Machine, Plan, Signal, Target, restore_arguments, run, shim, verb};

/// Of a file system for one master.
const SMALL_DISK_MIB: u64 = 256;
const GONE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub struct Local {
    program: PathBuf,
    dir: PathBuf,
    /// The directory is the user's: it stays.
    kept: bool,
    plan: Plan,
    preload: Mutex<Option<PathBuf>>,
    exchanged: Exchanged,
    engine: tokio::sync::Mutex<Engine>,
}

impl Local {
    pub fn new(program: PathBuf, dir: PathBuf, kept: bool, plan: Plan) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        if dir.join("local.json").exists() && (plan.shim || plan.small_disks || plan.own_engines) {
            bail!("the cluster in {} was made without what this scenario needs; leave --dir out", dir.display());
        }
        let engine = tokio::sync::Mutex::new(Engine::new(&dir.join("engine"), None));
        Ok(Self { program, dir, kept, plan, preload: Mutex::default(), exchanged: Exchanged::default(), engine })
    }

    async fn local(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.arg("local").args(arguments).arg("--dir").arg(&self.dir);
        // What becomes of it is what the run finds out. By the environment, since older programs know no such flag.
        command.env("HACTL_LOCAL_NO_WAIT", "true");
        let preload = self.preload.lock().map(|path| path.clone()).unwrap_or_default();
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        run(&mut command).await
    }

    /// Makes whatever of the cluster is not there.
    async fn local_up(&self) -> Result<()> {
        let mut arguments: Vec<String> = vec!["up".into()];
        for (flag, value) in [("--masters", self.plan.masters), ("--nodes", self.plan.nodes)] {
            arguments.extend([flag.to_owned(), value.to_string()]);
        }
        for (name, value) in &self.plan.settings {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
        if self.plan.own_engines {
            arguments.extend(["--docker-host".to_owned(), self.engine.lock().await.host()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.local(&self.program, &arguments).await.map(drop)
    }

    fn layout(&self) -> Result<Value> {
        let text = std::fs::read(self.dir.join("local.json")).context("there is no local cluster")?;
        serde_json::from_slice(&text).context("local.json is no JSON")
    }

    fn names(&self, of: &str) -> Vec<Value> {
        let layout = self.layout().unwrap_or_default();
        layout[of].as_array().cloned().unwrap_or_default()
    }

    /// The pid while it lives, by what `hactl local` remembers.
    fn pid(&self, machine: &str) -> Option<u32> {
        let text = std::fs::read(self.dir.join(machine).join("process.json")).ok()?;
        let remembered: Value = serde_json::from_slice(&text).ok()?;
        let pid = u32::try_from(remembered["pid"].as_u64()?).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let living = !matches!(fields.next()?, "Z" | "X");
        let started: u64 = fields.nth(18)?.parse().ok()?;
        (living && remembered["started"].as_u64() == Some(started)).then_some(pid)
    }

    fn mount_small_disks(&self) -> Result<()> {
        for number in 1..=self.plan.masters {
            let dir = self.dir.join(format!("master-{number}"));
            std::fs::create_dir_all(&dir)?;
            let size = format!("size={SMALL_DISK_MIB}m");
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "hactl-chaos"])
                .arg(&dir)
                .output()
                .context("cannot run mount")?;
            if !mounted.status.success() {
                bail!("cannot mount a small file system, are you root? {}", String::from_utf8_lossy(&mounted.stderr));
            }
        }
        Ok(())
    }

    fn unmount(&self) {
        for number in (1..=self.plan.masters).filter(|_| self.plan.small_disks) {
            // Lazily, and what is not mounted need not be unmounted.
            let dir = self.dir.join(format!("master-{number}"));
            let _ = std::process::Command::new("umount").arg("-l").arg(dir).output();
        }
    }
}

/// Removes what is in a directory, which may be a file system of its own; the log of the process stays, for those who ask why.
pub fn empty(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "hactl.log") {
            continue;
        }
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Signals a process that this run is the owner of.
pub fn send(pid: u32, signal: i32) -> Result<()> {
    let pid = i32::try_from(pid).context("no pid")?;
    // SAFETY: kill(2) touches no memory.
    if unsafe { libc::kill(pid, signal) } != 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(error).context(format!("cannot signal process {pid}"));
        }
    }
    Ok(())
}

#[async_trait]
impl Target for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn abilities(&self) -> Vec<Ability> {
        use Ability::{Files, Join, Nodes, OwnEngines, Program, Settings, Shim, SmallDisks};
        vec![Files, Join, Shim, SmallDisks, OwnEngines, Settings, Program, Nodes]
    }

    async fn up(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        if self.plan.shim {
            let library = shim::compile(&self.dir).await?;
            *self.preload.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(library);
        }
        if self.plan.small_disks {
            self.mount_small_disks()?;
        }
        if self.plan.own_engines {
            self.engine.lock().await.start().await?;
        }
        self.local_up().await
    }

    async fn down(&self, keep: bool) -> Result<()> {
        // A process that was stopped would not hear that it shall end.
        for machine in self.masters().into_iter().chain(self.nodes()) {
            if let Some(pid) = self.pid(&machine.name) {
                send(pid, libc::SIGCONT)?;
            }
        }
        self.local(&self.program, &["down"]).await?;
        self.engine.lock().await.clear().await?;
        if !keep && !self.kept {
            self.unmount();
            std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }

    fn masters(&self) -> Vec<Machine> {
        let address = |port: &Value| format!("127.0.0.1:{}", port.as_u64().unwrap_or_default());
        let masters = self.names("masters").into_iter();
        masters
            .map(|master| Machine {
                name: master["name"].as_str().unwrap_or_default().to_owned(),
                api: format!("https://{}", address(&master["api"])),
                peer: address(&master["peer"]),
                address: "127.0.0.1".to_owned(),
            })
            .collect()
    }

    fn nodes(&self) -> Vec<Machine> {
        let nodes = self.names("nodes").into_iter();
        nodes
            .map(|node| Machine {
                name: node["name"].as_str().unwrap_or_default().to_owned(),
                api: String::new(),
                peer: String::new(),
                address: "127.0.0.1".to_owned(),
            })
            .collect()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    fn program(&self, machine: &str) -> String {
        self.exchanged.of(machine, &self.program)
    }

    fn data_dir(&self, machine: &str) -> String {
        self.dir.join(machine).display().to_string()
    }

    async fn signal(&self, machine: &str, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid(machine) else { return Ok(()) };
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        send(pid, number)?;
        let since = Instant::now();
        while matches!(signal, Signal::Kill | Signal::Terminate) && self.pid(machine) == Some(pid) {
            if since.elapsed() > GONE_WITHIN {
                // As systemd and `hactl local` do; a process that lingers must not end after its own restart.
                send(pid, libc::SIGKILL)?;
            }
            if since.elapsed() > GONE_WITHIN * 2 {
                bail!("{machine} does not end within {} s", GONE_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn start(&self, machine: &str) -> Result<()> {
        let program = PathBuf::from(self.program(machine));
        self.local(&program, &["start", machine]).await.map(drop)
    }

    async fn shell(&self, _machine: &str, script: &str) -> Result<String> {
        run(Command::new("sh").args(["-c", script]).env_remove("KUBECONFIG")).await
    }

    async fn hactl(&self, arguments: &[&str]) -> Result<String> {
        verb(&self.program, &self.kubeconfig(), arguments).await
    }

    fn exchange(&self, machine: &str, program: &Path) -> Result<()> {
        self.exchanged.set(machine, program)
    }

    async fn join_anew(&self, machine: &str) -> Result<()> {
        self.signal(machine, Signal::Kill).await?;
        empty(&self.dir.join(machine))?;
        self.local_up().await
    }

    async fn restore(&self, file: &Path, machines: &[String]) -> Result<()> {
        for machine in machines {
            empty(&self.dir.join(machine))?;
        }
        let first = machines.first().context("there is no master")?;
        let masters = self.masters();
        let machine = masters.iter().find(|master| master.name == *first).context("there is no such master")?;
        let key = self.dir.join("recovery.key");
        let arguments = restore_arguments(file, &key, &self.data_dir(first), machine, &self.plan);
        run(Command::new(&self.program).args(&arguments)).await?;
        self.start(first).await?;
        self.local_up().await
    }

    async fn engines(&self, arguments: &[&str]) -> Result<Option<String>> {
        if self.plan.nodes == 0 {
            return Ok(None);
        }
        if self.plan.own_engines {
            return self.engine.lock().await.docker(arguments).await.map(Some);
        }
        run(Command::new("docker").args(arguments)).await.map(Some)
    }

    async fn engine(&self, _machine: &str, runs: bool) -> Result<()> {
        if !self.plan.own_engines {
            bail!("the engine is this machine's own and is left alone");
        }
        let mut engine = self.engine.lock().await;
        if runs { engine.revive().await } else { engine.kill().await }
    }

    async fn lose_node(&self, machine: &str) -> Result<()> {
        self.local(&self.program, &["kill", machine, "--with-pods"]).await.map(drop)
    }
}
