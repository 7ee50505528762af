//! A Docker engine of the run's own: in a directory, perhaps in a network namespace. It may be killed; the machine's may not.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub struct Engine {
    dir: PathBuf,
    namespace: Option<String>,
    child: Option<Child>,
}

impl Engine {
    pub fn new(dir: &Path, namespace: Option<String>) -> Self {
        Self { dir: dir.to_owned(), namespace, child: None }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let since = Instant::now();
        while let Err(error) = self.revive().await {
            if since.elapsed() > ANSWERS_WITHIN {
                return Err(error);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Starts it unless it runs; an error until it answers. On a busy machine dockerd gives its containerd up, and ends.
    pub async fn revive(&mut self) -> Result<()> {
        if !self.runs() {
            self.child = Some(self.spawn()?);
        }
        let answers = tokio::time::timeout(ANSWER_LIMIT, self.docker(&["version"])).await;
        if !answers.is_ok_and(|answer| answer.is_ok()) {
            bail!("the engine does not answer; see {}", self.dir.join("dockerd.log").display());
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        std::fs::create_dir_all(&self.dir)?;
        let at = |name: &str| self.dir.join(name);
        let log = std::fs::File::options().create(true).append(true).open(at("dockerd.log"))?;
        let mut command = placed(self.namespace.as_deref(), Path::new("dockerd"));
        command
            .arg("--data-root")
            .arg(at("docker"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("docker.pid"))
            .args([
                "-H",
                &self.host(),
                "--bridge=none",
                "--iptables=false",
                "--ip-masq=false",
                "--userland-proxy=false",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // What a killed engine left.
        let _ = std::fs::remove_file(at("docker.pid"));
        command.spawn().context("cannot start dockerd; install Docker")
    }

    /// Whether it was started and has not ended.
    fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    pub async fn docker(&self, arguments: &[&str]) -> Result<String> {
        super::run(Command::new("docker").args(["-H", &self.host()]).args(arguments)).await
    }

    /// Removes its containers and ends it.
    pub async fn clear(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        let ids = self.docker(&["ps", "-aq"]).await.unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-f"], ids.as_slice()].concat()).await?;
        }
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = child.id() {
                super::local::send(pid, libc::SIGTERM)?;
            }
            // It takes its containerd with it, which a kill would leave behind.
            if tokio::time::timeout(ANSWERS_WITHIN, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        Ok(())
    }
}

/// A command in a namespace, or here; it dies with this process.
pub fn placed(namespace: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(namespace) = namespace {
        command.arg("nsenter").arg(format!("--net=/var/run/netns/{namespace}"));
    }
    command.arg(program);
    command
}
