//! Snapshot files: everything a cluster is, in one file that only the recovery key opens. Not to be confused with Raft's
//! own snapshots (`consensus`), with which members bring each other up to date.
//!
//! - [`format`]: the outer form, checksums; needs no key.
//! - [`content`]: what is inside, written from a state and read back into one.
//! - [`key`]: the recovery key.
//! - [`auto`]: those that the leader saves by itself, to a [`target`].

pub mod auto;
pub mod content;
pub mod format;
pub mod key;
mod s3;
pub mod target;

pub use auto::Plan;
pub use content::{Manifest, Opened, check, open};
pub use format::{FileHeader, Sums};
pub use key::RecoveryKey;
pub use target::Target;

/// `2026-11-21 05:15:00 UTC`
pub fn time(seconds: i64) -> String {
    formatted(seconds, "%Y-%m-%d %H:%M:%S UTC")
}

/// `20261121T051500Z`: as names carry it.
pub fn compact_time(seconds: i64) -> String {
    formatted(seconds, "%Y%m%dT%H%M%SZ")
}

fn formatted(seconds: i64, form: &str) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime(form).to_string()
}
