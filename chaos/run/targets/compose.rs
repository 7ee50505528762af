//! The services of `docker-compose.yml`, which the user has started. They share one address, so there are no partitions.

use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::process::Command;

use super::{Ability, Machine, Signal, Target, run, verb};

/// As docker-compose.yml has them.
const MASTERS: [(&str, u16); 3] = [("master-1", 16443), ("master-2", 17443), ("master-3", 18443)];
const NODE: &str = "node-1";
const DATA_DIR: &str = "/var/lib/hactl";
const NODE_DATA_DIR: &str = "/var/lib/hactl-compose";

pub struct Compose {
    program: PathBuf,
    file: PathBuf,
    kubeconfig: tempfile::TempDir,
}

impl Compose {
    pub fn new(program: PathBuf, file: PathBuf) -> Result<Self> {
        let file = std::path::absolute(file)?;
        Ok(Self { program, file, kubeconfig: tempfile::tempdir()? })
    }

    async fn compose(&self, arguments: &[&str]) -> Result<String> {
        let file = self.file.display().to_string();
        // The plugin where it is there, else the program that came before it.
        let plugin = Command::new("docker").args(["compose", "version"]).output().await;
        let mut command = if plugin.is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("docker");
            command.arg("compose");
            command
        } else {
            Command::new("docker-compose")
        };
        run(command.args(words(&file, arguments))).await
    }
}

fn words<'a>(file: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["-f", file], arguments].concat()
}

/// What carries out a signal. SIGKILL by Docker's own hand counts as wanted, so the service is not started again by itself.
fn signal_words(service: &str, signal: Signal) -> Vec<&str> {
    match signal {
        Signal::Kill => vec!["kill", "-s", "SIGKILL", service],
        Signal::Terminate => vec!["stop", service],
        Signal::Stop => vec!["pause", service],
        Signal::Continue => vec!["unpause", service],
    }
}

#[async_trait]
impl Target for Compose {
    fn name(&self) -> &'static str {
        "compose"
    }

    fn abilities(&self) -> Vec<Ability> {
        vec![Ability::Nodes]
    }

    async fn up(&self) -> Result<()> {
        let read = ["exec", "-T", "master-1", "cat", "/var/lib/hactl/admin.kubeconfig"];
        let text = self.compose(&read).await.context("start the services first: docker compose up -d")?;
        std::fs::write(self.kubeconfig(), text)?;
        Ok(())
    }

    async fn down(&self, _keep: bool) -> Result<()> {
        Ok(())
    }

    fn masters(&self) -> Vec<Machine> {
        let machine = |(name, port): (&str, u16)| Machine {
            name: name.to_owned(),
            api: format!("https://127.0.0.1:{port}"),
            peer: format!("127.0.0.1:{}", port + 1),
            address: "127.0.0.1".to_owned(),
        };
        MASTERS.map(machine).to_vec()
    }

    fn nodes(&self) -> Vec<Machine> {
        let (api, peer) = (String::new(), String::new());
        vec![Machine { name: NODE.to_owned(), api, peer, address: "127.0.0.1".to_owned() }]
    }

    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.path().join("admin.kubeconfig")
    }

    fn program(&self, _machine: &str) -> String {
        "hactl".to_owned()
    }

    fn data_dir(&self, machine: &str) -> String {
        if machine == NODE { NODE_DATA_DIR.to_owned() } else { DATA_DIR.to_owned() }
    }

    async fn signal(&self, machine: &str, signal: Signal) -> Result<()> {
        self.compose(&signal_words(machine, signal)).await.map(drop)
    }

    async fn start(&self, machine: &str) -> Result<()> {
        self.compose(&["start", machine]).await.map(drop)
    }

    async fn shell(&self, machine: &str, script: &str) -> Result<String> {
        self.compose(&["exec", "-T", machine, "sh", "-c", script]).await
    }

    async fn hactl(&self, arguments: &[&str]) -> Result<String> {
        verb(&self.program, &self.kubeconfig(), arguments).await
    }

    async fn engines(&self, arguments: &[&str]) -> Result<Option<String>> {
        run(Command::new("docker").args(arguments)).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let killed = signal_words("master-2", Signal::Kill);
        assert_eq!(words("/c.yml", &killed), ["-f", "/c.yml", "kill", "-s", "SIGKILL", "master-2"]);
        assert_eq!(signal_words("master-2", Signal::Stop), ["pause", "master-2"]);
        assert_eq!(signal_words("master-2", Signal::Continue), ["unpause", "master-2"]);
    }
}
