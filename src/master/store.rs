//! The bounds of the replicated store and of its disk, as the settings give them.

use std::time::Duration;

/// Each is a setting of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreBounds {
    /// Bytes free on the data dir's file system below which this member steps aside; 0: never.
    pub disk_reserve: u64,
    /// A disk whose syncs take longer, as a rule, is a problem.
    pub disk_slow: Duration,
    /// Entries, and bytes of them, after which the state is written out and the log before it dropped.
    pub log_entries: u64,
    pub log_bytes: u64,
    /// Bytes of changes that go into one entry together.
    pub batch_bytes: u64,
    /// How long, and within how many bytes, old versions of objects stay readable.
    pub history: Duration,
    pub history_bytes: u64,
    /// Bytes of all objects together; 0: no bound. The leader's counts for all.
    pub quota: u64,
}

impl Default for StoreBounds {
    fn default() -> Self {
        Self {
            disk_reserve: 256 << 20,
            disk_slow: Duration::from_millis(100),
            log_entries: 10_000,
            log_bytes: 64 << 20,
            batch_bytes: 2 << 20,
            history: Duration::from_secs(300),
            history_bytes: 128 << 20,
            quota: 2 << 30,
        }
    }
}

impl StoreBounds {
    /// The bounds in `/metrics`: bytes, seconds or a count, as the unit of the setting is.
    pub fn publish(&self) {
        for (setting, bound) in [
            ("disk-reserve", self.disk_reserve as f64),
            ("disk-slow", self.disk_slow.as_secs_f64()),
            ("raft-log-entries", self.log_entries as f64),
            ("raft-log-bytes", self.log_bytes as f64),
            ("raft-batch-bytes", self.batch_bytes as f64),
            ("history", self.history.as_secs_f64()),
            ("history-bytes", self.history_bytes as f64),
            ("store-quota", self.quota as f64),
        ] {
            metrics::gauge!("hactl_bound", "setting" => setting).set(bound);
        }
    }
}
