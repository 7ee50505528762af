//! What the kubelet asks of a container engine: the only seam between it and Docker.
//!
//! Not here: decisions. A runtime lists, creates, starts, signals and removes what it is told, and nothing that does not carry its
//! own node's two labels. `contract` holds what every implementation must do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

mod cgroup;
#[cfg(test)]
pub(crate) mod contract;
pub mod docker;
pub mod hollow;
mod looks;
mod netns;
mod orphans;

pub mod label {
    //! Labels on everything the kubelet makes.
    pub const CLUSTER: &str = "hactl.io/cluster";
    pub const NODE: &str = "hactl.io/node-uid";
    pub const POD_UID: &str = "hactl.io/pod-uid";
    pub const POD_NAME: &str = "hactl.io/pod-name";
    pub const POD_NAMESPACE: &str = "hactl.io/pod-namespace";
    /// Name of the app container; `SANDBOX` for the sandbox.
    pub const CONTAINER: &str = "hactl.io/container";
    pub const SPEC_HASH: &str = "hactl.io/spec-hash";
    /// How often this container was started before in this pod.
    pub const ATTEMPT: &str = "hactl.io/restart-count";
    /// Consecutive short-lived predecessors: where the restart back-off stands.
    pub const STEP: &str = "hactl.io/back-off-step";
    /// Grace of the pod in seconds, so that one whose object is gone is still stopped politely.
    pub const GRACE: &str = "hactl.io/grace";
    /// The pod's address, kept when the sandbox is not running.
    pub const ADDRESS: &str = "hactl.io/pod-ip";
    /// Value of `CONTAINER` on sandboxes; no container of a pod can have this name.
    pub const SANDBOX: &str = "-sandbox-";
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The engine does not answer: nothing is known, retry.
    #[error("{0}")]
    Down(String),
    #[error("{0}")]
    NotFound(String),
    /// A thing of that name exists.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
}

/// One container of ours as the engine reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub state: State,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why it could not be started; empty otherwise.
    pub error: String,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub image: String,
    pub image_id: String,
    pub stop_signal: String,
}

impl Container {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
    pub fn number(&self, name: &str) -> u32 {
        self.label(name).parse().unwrap_or(0)
    }
    pub fn is_sandbox(&self) -> bool {
        self.label(label::CONTAINER) == label::SANDBOX
    }
    pub fn attempt(&self) -> u32 {
        self.number(label::ATTEMPT)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mount {
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub propagation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Port {
    pub container: u16,
    pub host: u16,
    /// Lower case: tcp, udp.
    pub protocol: String,
    pub host_ip: String,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Network {
    /// On the node's bridge at this address.
    Bridge {
        name: String,
        address: Ipv4Addr,
    },
    Host,
    /// Network and IPC namespace of another container.
    Of(String),
}

/// Everything needed to create a container. Names and labels are complete.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Spec {
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub hostname: String,
    pub entrypoint: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub mounts: Vec<Mount>,
    pub ports: Vec<Port>,
    pub network: Network,
    pub cpu_shares: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub oom_score_adj: Option<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub groups: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            name: String::new(),
            image: String::new(),
            labels: BTreeMap::new(),
            hostname: String::new(),
            entrypoint: None,
            args: None,
            env: Vec::new(),
            working_dir: None,
            user: None,
            mounts: Vec::new(),
            ports: Vec::new(),
            network: Network::Host,
            cpu_shares: None,
            cpu_quota: None,
            memory: None,
            oom_score_adj: None,
            privileged: false,
            read_only_root: false,
            no_new_privileges: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            groups: Vec::new(),
            tty: false,
            stdin: false,
            stdin_once: false,
        }
    }
}

/// The node's bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    /// Name of the kernel's interface, at most 15 bytes.
    pub interface: String,
    pub subnet: ipnet::Ipv4Net,
    pub gateway: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// `name@sha256:…` when it came from a registry.
    pub digest: Option<String>,
    pub size: u64,
    /// `USER` of the image.
    pub user: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    pub version: String,
    pub api_version: String,
    pub os_image: String,
    pub kernel: String,
    pub root_dir: String,
}

/// What a container has used of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it started.
    pub cpu: Duration,
    /// Memory now that cannot be taken back under pressure.
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub code: i64,
    /// The beginning of what it wrote, at most `EXEC_OUTPUT_MAX` bytes.
    pub output: String,
}
pub const EXEC_OUTPUT_MAX: usize = 10 * 1024;

/// Which of a program's streams are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A part of what a program writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Of a terminal, everything.
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A program's open streams. `input` ends with its shutdown; dropping all closes them.
pub struct Attached {
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    pub output: BoxStream<'static, Result<Written>>,
}

/// Whose terminal.
#[derive(Debug, Clone, Copy)]
pub enum Terminal<'a> {
    Container(&'a str),
    Exec(&'a str),
}

/// A connection.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Something happened to a container of this pod: look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub pod_uid: String,
    pub action: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub follow: bool,
    pub tail: Option<u64>,
    /// Seconds since 1970; 0: from the beginning.
    pub since: i64,
    pub timestamps: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub server: String,
}

#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn info(&self) -> Result<Info>;
    /// Whether the engine answers at all.
    async fn ping(&self) -> Result<()>;
    /// All containers of this node, or only those of one pod.
    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Container>>;
    /// Refuses a name that is taken with `Conflict`.
    async fn create(&self, spec: &Spec) -> Result<String>;
    /// Starting a running container does nothing.
    async fn start(&self, id: &str) -> Result<()>;
    /// Signalling a container that is gone or stopped does nothing.
    async fn signal(&self, id: &str, signal: &str) -> Result<()>;
    /// Removes with force, volumes included. Removing what is gone does nothing.
    async fn remove(&self, id: &str) -> Result<()>;
    /// What these running containers use, by id. One that has ended meanwhile is absent.
    async fn usage(&self, ids: &[String]) -> Result<BTreeMap<String, Usage>>;
    async fn image(&self, name: &str) -> Result<Option<Image>>;
    async fn pull(&self, name: &str, credentials: Option<Credentials>) -> Result<()>;
    async fn load(&self, tar: Bytes) -> Result<()>;
    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<Exec>;
    /// Prepares a command in a running container; its id.
    async fn create_exec(&self, id: &str, command: &[String], stdio: Stdio) -> Result<String>;
    /// Starts it once. It runs on when its streams are dropped, until `end_exec`.
    async fn start_exec(&self, exec: &str, stdio: Stdio) -> Result<Attached>;
    /// Waits for its end; its exit code.
    async fn wait_exec(&self, exec: &str) -> Result<i32>;
    /// Kills it, and what it started, if it still runs.
    async fn end_exec(&self, id: &str, exec: &str) -> Result<()>;
    /// The streams of a running container's own program, which runs on when they are dropped.
    async fn attach(&self, id: &str, stdio: Stdio) -> Result<Attached>;
    async fn resize(&self, terminal: Terminal<'_>, width: u16, height: u16) -> Result<()>;
    /// A connection to a port of a running pod, as one of its own containers makes it to itself.
    async fn connect(&self, sandbox: &Container, port: u16) -> Result<Box<dyn Pipe>>;
    /// `NotFound` or `Conflict`, here or as the stream's first item: the container is gone or being removed.
    async fn logs(&self, id: &str, query: &LogQuery) -> Result<BoxStream<'static, Result<Bytes>>>;
    /// Ends when the connection to the engine breaks.
    async fn events(&self) -> Result<BoxStream<'static, Event>>;
    /// Makes the bridge if it is not there as described, open to the other bridges of the cluster on this engine; one of ours
    /// that differs is replaced when nothing uses it.
    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<()>;
    /// Takes an address back that the bridge still counts as used although no running container has it; says whether there was
    /// one. That of a running container stays its own.
    async fn free_address(&self, bridge: &str, address: Ipv4Addr) -> Result<bool>;
    /// Removes all networks of this node, and with the cluster's last one on this engine its firewall rules.
    async fn remove_networks(&self) -> Result<()>;
}
