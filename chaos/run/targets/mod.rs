//! Where a run takes place: a cluster behind one trait, made or found, whose machines can be told to do what their owner could
//! type. Everything else (what is done to them, and why) is a nemesis'.
//!
//! A target names its abilities; a nemesis names those that it needs. What does not fit is refused before anything starts.

mod compose;
mod engine;
mod exchanged;
mod hosts;
mod lab;
mod local;
mod shim;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio::process::Command;

pub use shim::{CLOCK_FILE, SYNC_FILE};

/// The longest that one command of a target may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// What can be done to a target's machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Each machine has an address of its own, and nftables.
    Partitions,
    /// A relay can be put between two of them.
    Relay,
    /// Files of a stopped machine can be changed.
    Files,
    /// Processes run with preloaded calls: slow syncs, wrong clocks.
    Shim,
    /// Data dirs lie on small file systems of their own.
    SmallDisks,
    /// Nodes have Docker engines that the target itself started.
    OwnEngines,
    /// Settings can be chosen before the start.
    Settings,
    /// Machines can be emptied and join anew; the recovery key is known.
    Join,
    /// Another program can be put in the place of hactl.
    Program,
    /// It has nodes, and an engine to look at.
    Nodes,
}

impl Ability {
    pub fn words(self) -> &'static str {
        match self {
            Self::Partitions => "machines with addresses of their own, and nftables on them",
            Self::Relay => "namespaces in which a relay can take traffic over",
            Self::Files => "access to the files of a stopped master",
            Self::Shim => "processes that were started with preloaded calls",
            Self::SmallDisks => "masters on small file systems of their own",
            Self::OwnEngines => "Docker engines of its own",
            Self::Settings => "a cluster whose settings it may choose",
            Self::Join => "machines that it may empty and let join anew",
            Self::Program => "a program that can be exchanged",
            Self::Nodes => "nodes that run pods",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    /// The API's URL; empty where it is no master.
    pub api: String,
    /// `host:port` that the other masters call; empty where it is no master.
    pub peer: String,
    /// Where others reach it.
    pub address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `kill -9`; returns when it is gone.
    Kill,
    /// SIGTERM; returns when it is gone.
    Terminate,
    Stop,
    Continue,
}

/// What a scenario wants of a cluster that is made for it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub masters: usize,
    pub nodes: usize,
    /// Settings of every machine, as flags without dashes.
    pub settings: Vec<(String, String)>,
    pub shim: bool,
    pub small_disks: bool,
    pub own_engines: bool,
}

#[async_trait]
pub trait Target: Send + Sync {
    fn name(&self) -> &'static str;

    fn abilities(&self) -> Vec<Ability>;

    /// Makes the cluster, or makes sure that it is there.
    async fn up(&self) -> Result<()>;

    /// Takes everything away that `up` made; with `keep`, all but the data.
    async fn down(&self, keep: bool) -> Result<()>;

    fn masters(&self) -> Vec<Machine>;

    fn nodes(&self) -> Vec<Machine>;

    fn kubeconfig(&self) -> PathBuf;

    /// The program as the machine calls it.
    fn program(&self, machine: &str) -> String;

    fn data_dir(&self, machine: &str) -> String;

    /// Signals the machine's `hactl run`.
    async fn signal(&self, machine: &str, signal: Signal) -> Result<()>;

    /// Starts what was killed or stopped.
    async fn start(&self, machine: &str) -> Result<()>;

    /// Runs a shell script on the machine, as its owner.
    async fn shell(&self, machine: &str, script: &str) -> Result<String>;

    /// A verb of hactl with the cluster's kubeconfig.
    async fn hactl(&self, arguments: &[&str]) -> Result<String>;

    /// From its next start on the machine runs this program.
    fn exchange(&self, _machine: &str, _program: &Path) -> Result<()> {
        bail!("the target {} cannot exchange the program", self.name())
    }

    /// Empties the machine of a master that was removed, and lets it join as a new one.
    async fn join_anew(&self, _machine: &str) -> Result<()> {
        bail!("the target {} lets no machine join", self.name())
    }

    /// All masters are gone: the first of these machines begins anew from a snapshot, the others are emptied and join it.
    async fn restore(&self, _file: &Path, _machines: &[String]) -> Result<()> {
        bail!("the target {} restores no snapshot", self.name())
    }

    /// `docker …` on the engine of each node, or of all; none where there is nothing to look at.
    async fn engines(&self, _arguments: &[&str]) -> Result<Option<String>> {
        Ok(None)
    }

    /// The engine of a node: gone at once, or there again.
    async fn engine(&self, _machine: &str, _runs: bool) -> Result<()> {
        bail!("the target {} started no engine", self.name())
    }

    /// A node's machine dies with all its containers.
    async fn lose_node(&self, machine: &str) -> Result<()> {
        self.signal(machine, Signal::Kill).await
    }
}

/// How the user names a target, and what it is made of.
#[derive(Clone, Debug, clap::Args)]
pub struct Choice {
    /// `local`: processes of this machine; `lab`: network namespaces of this machine; `compose`: docker-compose.yml; `ssh`: your hosts
    #[arg(long, value_name = "TARGET", default_value = "local", value_parser = ["local", "lab", "compose", "ssh"])]
    pub target: String,
    /// The cluster's directory (local, lab); on local one that exists is used and kept [default: a new one, removed after success]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The program [default: the one built beside this]
    #[arg(long, value_name = "FILE", env = "HACTL_PROGRAM")]
    pub hactl: Option<PathBuf>,
    /// Of ssh: a file with a machine per line, `NAME [USER@]HOST master|node`
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// Of ssh: an administrator's kubeconfig of that cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Of compose: the file
    #[arg(long, value_name = "FILE", default_value = "docker-compose.yml")]
    pub compose_file: PathBuf,
    /// A setting of every machine, `name=value`, as in docs/settings.md (local, lab)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
}

impl Choice {
    pub fn program(&self) -> Result<PathBuf> {
        let path = match &self.hactl {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("hactl"),
        };
        if !path.exists() {
            bail!("there is no {}; build it with `cargo build`, or give --hactl", path.display());
        }
        Ok(std::path::absolute(path)?)
    }

    /// The target; nothing is started yet.
    ///
    /// # Errors
    /// When it lacks what it is made of.
    pub fn make(&self, mut plan: Plan, seed: u64) -> Result<Arc<dyn Target>> {
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').context("--set wants NAME=VALUE")?;
            plan.settings.push((name.to_owned(), value.to_owned()));
        }
        let dir = || {
            self.dir
                .clone()
                .unwrap_or_else(|| std::env::temp_dir().join(format!("hactl-chaos-{seed}-{}", std::process::id())))
        };
        Ok(match self.target.as_str() {
            "local" => Arc::new(local::Local::new(self.program()?, dir(), self.dir.is_some(), plan)?),
            "lab" => Arc::new(lab::Lab::new(self.program()?, dir(), plan)?),
            "compose" => Arc::new(compose::Compose::new(self.program()?, self.compose_file.clone())?),
            _ => {
                // Said before anything else is looked for.
                let hosts = self.hosts.as_ref().context("the target ssh needs --hosts FILE")?;
                let kubeconfig = self.kubeconfig.clone().context("the target ssh needs --kubeconfig FILE")?;
                Arc::new(ssh::Ssh::new(self.program()?, hosts, kubeconfig)?)
            }
        })
    }
}

/// Runs a command to its end; its output.
async fn run(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(COMMAND_LIMIT, command.output())
        .await
        .with_context(|| format!("{what} takes longer than {} s", COMMAND_LIMIT.as_secs()))?
        .with_context(|| format!("cannot run {what}"))?;
    if !output.status.success() {
        let words = [output.stderr, output.stdout].concat();
        bail!("{what} failed: {}", String::from_utf8_lossy(&words).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A verb of hactl from this machine, with this kubeconfig.
async fn verb(program: &Path, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
    run(Command::new(program).args(arguments).env("KUBECONFIG", kubeconfig)).await
}

/// The arguments that restore a snapshot as this master.
fn restore_arguments(file: &Path, key: &Path, data_dir: &str, machine: &Machine, plan: &Plan) -> Vec<String> {
    let mut arguments: Vec<String> = ["cluster", "snapshot", "restore"].map(str::to_owned).to_vec();
    arguments.push(file.display().to_string());
    let options = [
        ("recovery-key-file", key.display().to_string()),
        ("data-dir", data_dir.to_owned()),
        ("node-name", machine.name.clone()),
        ("advertise", machine.address.clone()),
        ("listen-api", machine.api.trim_start_matches("https://").to_owned()),
        ("listen-peer", machine.peer.clone()),
    ];
    for (name, value) in options.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(plan.settings.clone())
    {
        arguments.extend([format!("--{name}"), value]);
    }
    arguments
}

/// A word for a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
