//! Faults and workloads against a real cluster of processes, and the judgement of what is left.
//!
//! ```text
//! Scenario::run ── Cluster (the hactl binary: up, kill, start) ── faults
//!              └── Writers (the Kubernetes API)               ── workload ──▶ Ledger ──▶ judge: what was acknowledged is there,
//!                                                                                       the same on every master
//! ```
//!
//! Not here: how the cluster works; scenarios see only what users see. **Invariant:** a failing run prints its seed, and
//! the faults of a run follow from the seed alone.
//!
//! A new scenario is one file in `scenarios/` and one row in [`scenarios::ALL`].

mod cluster;
mod judge;
mod random;
pub mod scenarios;
pub mod sim;
mod writers;

pub use cluster::{Cluster, Status};
pub use random::Random;
pub use scenarios::{ALL, Scenario};

use std::time::Duration;

use serde::Serialize;

/// `60s`, `10m`.
///
/// # Errors
/// When it is written otherwise.
pub fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| "write for example 60s or 10m".to_owned())?;
    match &text[end..] {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("write for example 60s or 10m".to_owned()),
    }
}

/// What a scenario works with.
pub struct Context {
    pub cluster: Cluster,
    pub random: Random,
    /// How long faults go on; healing and judging come on top.
    pub duration: Duration,
}

/// What a scenario did and saw.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub faults: u64,
    pub writes_acknowledged: u64,
    /// The longest time without an acknowledged write, in milliseconds.
    pub stall_ms_max: u64,
    /// Laws that were broken, in words; empty: none.
    pub violations: Vec<String>,
}
