//! A local cluster of the built program for tests: made in a temporary directory, removed when the test ends, however it ends.

#![allow(dead_code)] // Each test binary uses its part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const HACTL: &str = env!("CARGO_BIN_EXE_hactl");
/// The longest any condition may take on a loaded machine; conditions are polled, so a quick machine does not wait.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a program that must succeed; its stdout.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}; `make setup` installs it"));
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

pub struct Local {
    dir: tempfile::TempDir,
    /// Of every process.
    environment: Vec<(String, String)>,
}

impl Local {
    /// `hactl local up`, ready when it returns.
    pub fn up(masters: usize, nodes: usize) -> Self {
        Self::up_with(masters, nodes, &[])
    }

    /// With nodes that may be silent for longer than by default before their pods go elsewhere: on a machine that many
    /// builds and clusters share, a kubelet that gets no turn for some seconds is not what these tests are about.
    pub fn calm(masters: usize, nodes: usize) -> Self {
        Self::up_with(masters, nodes, &["--node-silence", "30s"])
    }

    pub fn up_with(masters: usize, nodes: usize, further: &[&str]) -> Self {
        Self::up_in(Self::fresh(), masters, nodes, further)
    }

    /// A directory for [`Self::up_in`].
    pub fn fresh() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("hactl-test-").tempdir().expect("temporary directory")
    }

    /// In a directory where something was prepared.
    pub fn up_in(dir: tempfile::TempDir, masters: usize, nodes: usize, further: &[&str]) -> Self {
        Self::up_with_environment(dir, masters, nodes, further, Vec::new())
    }

    pub fn up_with_environment(
        dir: tempfile::TempDir,
        masters: usize,
        nodes: usize,
        further: &[&str],
        environment: Vec<(String, String)>,
    ) -> Self {
        let local = Self { dir, environment };
        let (masters, nodes) = (masters.to_string(), nodes.to_string());
        let mut arguments = vec!["local", "up", "--timeout", "300", "--masters", &masters, "--nodes", &nodes];
        arguments.extend(further);
        local.ok(&arguments);
        local
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    /// Runs hactl on this cluster; verbs that kill get its directory, others its kubeconfig.
    pub fn hactl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(HACTL);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if matches!(arguments, ["local", ..] | ["bench", "failover", ..]) {
            command.arg("--dir").arg(self.dir());
        }
        command.output().expect("run hactl")
    }

    /// Runs hactl, which must succeed; its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hactl(arguments);
        assert!(output.status.success(), "hactl {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs hactl, which must fail; its stderr.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.hactl(arguments);
        assert!(!output.status.success(), "hactl {} succeeded: {}", arguments.join(" "), text(&output.stdout));
        text(&output.stderr)
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["local", "status", "-o", "json"])).expect("status is JSON")
    }

    pub fn masters(&self) -> Vec<String> {
        let status = self.status();
        let names = status["masters"].as_array().expect("masters").iter();
        names.map(|master| master["name"].as_str().expect("a name").to_owned()).collect()
    }

    pub fn leader(&self) -> String {
        eventually("somebody leads", || -> Result<String, &str> {
            let status = self.status();
            let masters = status["masters"].as_array().expect("masters");
            let leader = masters.iter().find(|master| master["leader"] == true).ok_or("nobody leads")?;
            Ok(leader["name"].as_str().expect("a name").to_owned())
        })
    }

    /// `host:port` of a master's API.
    pub fn address(&self, master: &str) -> String {
        let status = self.status();
        let masters = status["masters"].as_array().expect("masters");
        let found = masters.iter().find(|one| one["name"] == master).expect("the master");
        found["api"].as_str().expect("an address").trim_start_matches("https://").to_owned()
    }

    /// What the ports file says of a master.
    pub fn plan(&self) -> Value {
        let text = std::fs::read(self.dir().join("local.json")).expect("local.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// The arguments that restore a snapshot as one of this cluster's masters.
    pub fn restore_command(&self, file: &str, key: &str, master: &str) -> Vec<String> {
        let plan = self.plan();
        let masters = plan["masters"].as_array().expect("masters");
        let ports = masters.iter().find(|one| one["name"] == master).expect("the master");
        let data_dir = self.dir().join(master).display().to_string();
        let (api, peer) = (format!("127.0.0.1:{}", ports["api"]), format!("127.0.0.1:{}", ports["peer"]));
        let command = ["cluster", "snapshot", "restore", file, "--recovery-key-file", key, "--data-dir", &data_dir];
        let place = ["--node-name", master, "--advertise", "127.0.0.1", "--listen-api", &api, "--listen-peer", &peer];
        command.into_iter().chain(place).map(str::to_owned).collect()
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read(self.dir().join(name).join("hactl.log")).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    /// A client of one context of the kubeconfig: `local` or a master's name.
    pub async fn client(&self, context: &str) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).expect("kubeconfig");
        let options = kube::config::KubeConfigOptions {
            context: Some(context.to_owned()),
            ..kube::config::KubeConfigOptions::default()
        };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("context");
        config.default_retry = false;
        kube::Client::try_from(config).expect("client")
    }

    /// Waits until this master answers `/readyz`.
    pub async fn serves(&self, master: &str) {
        let client = self.client(master).await;
        eventually_async(&format!("{master} serves"), async || {
            let request = http::Request::get("/readyz").body(Vec::new()).expect("request");
            client.request_text(request).await.map_err(|error| error.to_string())
        })
        .await;
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(&kubectl_default(), arguments);
        assert!(output.status.success(), "kubectl {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn try_kubectl(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir())
            .stdin(Stdio::null())
            .output()
            .expect("run kubectl; `make setup` installs it")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in ["pods", "nodes", "events"] {
                let output = self.try_kubectl(&kubectl_default(), &["get", what, "-o", "wide", "--request-timeout=5s"]);
                eprintln!("--- {what}\n{}{}", text(&output.stdout), text(&output.stderr));
            }
            for name in ["master-1", "master-2", "master-3", "node-1", "node-2"] {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                if !lines.is_empty() {
                    eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
                }
            }
        }
        let output = self.hactl(&["local", "down", "--delete"]);
        if !output.status.success() {
            eprintln!("cleaning up failed: {}", text(&output.stderr));
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls until `check` says yes; the last reason is the panic's message.
pub fn eventually<T, E: std::fmt::Display>(what: &str, mut check: impl FnMut() -> Result<T, E>) -> T {
    let since = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(reason) if since.elapsed() > PATIENCE => panic!("not within {PATIENCE:?}: {what}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub async fn eventually_async<T, E: std::fmt::Display>(what: &str, mut check: impl AsyncFnMut() -> Result<T, E>) -> T {
    let since = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(reason) if since.elapsed() > PATIENCE => panic!("not within {PATIENCE:?}: {what}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The kubectl to use where any will do.
pub fn kubectl_default() -> PathBuf {
    PathBuf::from(std::env::var_os("HACTL_KUBECTL").unwrap_or_else(|| "kubectl".into()))
}

/// The kubectls of the releases promised to work, where they are found: in HACTL_KUBECTL_DIR, else beside the kubectl in the
/// PATH, named `kubectl.1.29` and so on; at least that one.
pub fn kubectls() -> Vec<PathBuf> {
    let resolved = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.exists()))
        .and_then(|file| std::fs::canonicalize(file).ok());
    let dir = std::env::var_os("HACTL_KUBECTL_DIR")
        .map(PathBuf::from)
        .or_else(|| resolved.as_ref().and_then(|file| file.parent().map(Path::to_owned)));
    let named = ["1.29", "1.31", "1.33"].map(|version| format!("kubectl.{version}"));
    let found: Vec<PathBuf> =
        dir.iter().flat_map(|dir| named.iter().map(|name| dir.join(name))).filter(|file| file.exists()).collect();
    if found.is_empty() { vec![kubectl_default()] } else { found }
}
