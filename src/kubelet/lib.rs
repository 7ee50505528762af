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

mod blocking;
mod certificate;
mod env;
mod host;
mod images;
mod network;
mod node;
mod outbox;
mod plan;
mod podspec;
mod probe;
mod pull;
mod recorder;
mod run;
pub mod runtime;
mod saved;
mod session;
mod shared;
mod status;
mod streams;
mod subpath;
mod sync;
mod uplink;
mod usage;
mod volumes;
mod worker;

pub use host::{Figures, Host, Identity};
pub use run::{Ways, kill_containers, known_masters_of, release_volumes, run, run_over, teardown};
pub use uplink::{Downs, Uplink};

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
