//! One master: consensus, the API and peer ports, node sessions, certificate signing, and the leader's loops.
//!
//! ```text
//!   create / join ─▶ <data-dir>/pki, master.json          once
//!   run ─┬─ consensus                                     the replicated state
//!        ├─ ports      6443: TLS ─▶ identity ─┬─ gRPC  ─▶ service::{cluster, node, bench}
//!        │                                    └─ HTTP  ─▶ apiserver
//!        │             6444: TLS ─▶ peer      ─── gRPC  ─▶ service::peer
//!        ├─ sessions   the nodes that dialled this master
//!        ├─ leader     while this member leads
//!        └─ upkeep     membership of its own, certificates, reports to the leader
//! ```
//! Read [`run`] first: it is the start-up in order.
//!
//! Not here: what should happen to objects (`control`), the HTTP contract (`apiserver`), how a log is replicated
//! (`consensus`).
//!
//! **Invariant:** whoever calls is known by a verified certificate before any handler sees the request; a name in a
//! request never replaces it.

mod addresses;
mod agreement;
mod bounds;
mod config;
mod disk;
pub mod epoch;
mod error;
mod fence;
mod health;
mod issuers;
mod keys;
mod latency;
pub mod leader;
mod metrics;
mod own;
mod peers;
mod ports;
mod records;
mod rotate;
mod run;
mod service;
pub mod sessions;
mod setup;
pub mod snapshot;
mod stalls;
mod standing;
mod store;
mod streams;
mod trust;
mod upkeep;
mod usage;
pub mod versions;

pub use apiserver::Limits;
pub use bounds::PortLimits;
pub use config::{Config, MasterFile, Timing};
pub use error::Error;
pub use latency::sync_times;
pub use run::run;
pub use setup::{Create, Created, Join, JoinMaster, Joined, create, join, noted_masters, write_kubeconfig};
pub use store::StoreBounds;
pub use trust::{Offline, renew_offline};

#[cfg(test)]
mod tests;
