//! What the API server is given: the store, the way to nodes, health, metrics, and the seam of time and randomness.

use std::sync::Arc;

use bytes::Bytes;
use control::authz::User;
use futures::stream::BoxStream;
use replica::Replica;
use serde_json::Value;
use state::State;
use tokio_util::sync::CancellationToken;

use crate::link::{Link, Session};
use crate::usage::Usages;

/// Everything [`crate::service`] needs. Nothing in this crate reads a clock or draws a random number except through it.
#[derive(Clone)]
pub struct Config {
    pub replica: Replica,
    /// What admission depends on: the service addresses, the tolerations.
    pub settings: Arc<control::Settings>,
    /// The way to the kubelets, for logs, exec, attach and connections to ports.
    pub streams: Arc<dyn Streams>,
    /// What nodes and pods use now, for `metrics.k8s.io`.
    pub usages: Arc<dyn Usages>,
    /// Signs and checks the tokens of ServiceAccounts; absent where there are none.
    pub tokens: Option<Arc<dyn TokenKeys>>,
    /// Where the audit log goes; absent where none is kept.
    pub audit: Option<Arc<dyn Audit>>,
    /// The reasons behind `/readyz` and `/healthz`.
    pub health: Arc<dyn Health>,
    /// Renders `/metrics`; absent in tests.
    pub metrics: Option<metrics_exporter_prometheus::PrometheusHandle>,
    /// What one request, one user and all together may take.
    pub limits: crate::Limits,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
    /// Seeds the generator of uids, names and proposal ids: 64 random bits in a master, a constant in a simulation.
    pub seed: u64,
    /// The version of hactl, shown behind `v1.36.0+hactl-`.
    pub version: String,
    /// The commit hactl was built from; may be empty.
    pub commit: String,
    /// Ends every watch with a clean end of stream.
    pub shutdown: CancellationToken,
}

/// One line of `/readyz?verbose`: a name like `leader`, and what is wrong (`Ok` when nothing is).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub result: Result<(), String>,
}

/// What this master knows of its own health, in checks with reasons.
pub trait Health: Send + Sync + 'static {
    /// The process works at all (`/livez`, `/healthz`).
    fn live(&self) -> Vec<Check>;
    /// It can serve requests now (`/readyz`).
    fn ready(&self) -> Vec<Check>;
    /// While nobody leads: which masters were heard when, and what to do. Empty while somebody does.
    fn without_leader(&self) -> String {
        String::new()
    }
}

/// The cluster's keys for the tokens of ServiceAccounts, as a state has them. What a token says is not their business.
pub trait TokenKeys: Send + Sync + 'static {
    /// The token that says these claims.
    ///
    /// # Errors
    /// When there is no key yet, or this server cannot use it.
    fn sign(&self, claims: &[u8], root: &State) -> Result<String, String>;
    /// What a token says that one of the keys signed; none if none did.
    fn verify(&self, token: &str, root: &State) -> Option<Vec<u8>>;
    /// The public keys as a JSON Web Key Set, and the name of their algorithm.
    fn public(&self, root: &State) -> (Value, &'static str);
}

/// Takes the lines of the audit log.
pub trait Audit: Send + Sync + 'static {
    /// One Event, without its end of line. Never waits.
    fn note(&self, line: String);
}

/// The pod whose stream is asked for, as the store has it, so that the far end can tell a replaced pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
}

/// The query of `pods/log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Never empty: the server resolves the default container.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Only lines at or after this instant.
    pub since: Option<jiff::Timestamp>,
    /// `All`, `Stdout` or `Stderr`; empty means all.
    pub stream: String,
}

/// Raw log bytes. An error ends the response abruptly, so that a client sees that something is missing.
pub type LogStream = BoxStream<'static, Result<Bytes, StreamError>>;

/// Why a node's stream could not be had or ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// The container does not exist, or has not started yet (400).
    #[error("{0}")]
    BadRequest(String),
    /// The node does not know the pod or container (404).
    #[error("{0}")]
    NotFound(String),
    /// It cannot be had now: asking again may help, and clients do so by themselves (503).
    #[error("{0}")]
    Unavailable(String),
    /// The master that holds the node's session lets this user not (403).
    #[error("{0}")]
    Forbidden(String),
    /// The node is not there, as a kubelet that cannot be reached: asking again at once does not help (500).
    #[error("{0}")]
    Unreachable(String),
    /// The node failed (500).
    #[error("{0}")]
    Internal(String),
}

/// The way to a node's containers through whichever master holds its session.
#[async_trait::async_trait]
pub trait Streams: Send + Sync + 'static {
    /// `user` was authorized here, and is again wherever the request is passed on to.
    async fn logs(&self, user: &User, pod: PodRef, options: LogOptions) -> Result<LogStream, StreamError>;

    /// Returns once the node has begun: the command runs, the connection to the port stands.
    async fn open(&self, user: &User, pod: PodRef, session: Session) -> Result<Link, StreamError>;
}

/// The processor as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
