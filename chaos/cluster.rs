//! A local cluster, driven by the commands a user has.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tokio::process::Command;

/// The longest wait for a cluster to become whole.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest wait for a connection of a client.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// What `hactl local status -o json` prints.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub masters: Vec<Master>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Master {
    pub name: String,
    pub pid: Option<i32>,
    pub api: String,
    pub leader: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub name: String,
    pub pid: Option<i32>,
}

impl Status {
    pub fn leader(&self) -> Option<&str> {
        self.masters.iter().find(|master| master.leader).map(|master| master.name.as_str())
    }
}

pub struct Cluster {
    hactl: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    /// Starts a cluster, or continues the one in `dir`.
    pub async fn up(hactl: &Path, dir: &Path, masters: usize, nodes: usize) -> Result<Self> {
        let cluster = Self { hactl: hactl.to_owned(), dir: dir.to_owned() };
        let (masters, nodes) = (masters.to_string(), nodes.to_string());
        cluster.hactl(&["local", "up", "--masters", &masters, "--nodes", &nodes]).await?;
        Ok(cluster)
    }

    /// Stops it and removes its data.
    pub async fn down(&self) -> Result<()> {
        self.hactl(&["local", "down", "--delete"]).await.map(drop)
    }

    pub async fn kill(&self, name: &str) -> Result<()> {
        self.hactl(&["local", "kill", name]).await.map(drop)
    }

    pub async fn start(&self, name: &str) -> Result<()> {
        self.hactl(&["local", "start", name]).await.map(drop)
    }

    pub async fn status(&self) -> Result<Status> {
        let text = self.hactl(&["local", "status", "-o", "json"]).await?;
        serde_json::from_str(&text).context("`hactl local status -o json` prints something else")
    }

    /// Waits until there is a leader.
    pub async fn leader(&self) -> Result<String> {
        let since = Instant::now();
        loop {
            if let Some(name) = self.status().await?.leader() {
                return Ok(name.to_owned());
            }
            if since.elapsed() > WHOLE_WITHIN {
                bail!("nobody leads after {} s", WHOLE_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every master serves: answers `/readyz`.
    pub async fn whole(&self) -> Result<()> {
        let since = Instant::now();
        let mut clients = self.clients().await?;
        while let Some(client) = clients.last() {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match client.request_text(request).await {
                Ok(_) => drop(clients.pop()),
                Err(error) if since.elapsed() > WHOLE_WITHIN => {
                    return Err(error).context("a master that was started again does not serve");
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Ok(())
    }

    /// One client per master.
    pub async fn clients(&self) -> Result<Vec<kube::Client>> {
        let kubeconfig = Kubeconfig::read_from(self.dir.join("admin.kubeconfig"))?;
        let mut clients = Vec::new();
        for master in self.status().await?.masters {
            let options = KubeConfigOptions { context: Some(master.name), ..KubeConfigOptions::default() };
            let mut config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await?;
            config.connect_timeout = Some(CONNECT_LIMIT);
            config.default_retry = false;
            clients.push(kube::Client::try_from(config)?);
        }
        Ok(clients)
    }

    async fn hactl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.hactl)
            .args(arguments)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("cannot run {}; build it with `cargo build`", self.hactl.display()))?;
        if !output.status.success() {
            bail!("`hactl {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
