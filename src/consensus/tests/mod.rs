//! Whole members in one process, on the real disk unless a test wants a power cut.
//!
//! Elections are slower here than in production, so that a busy machine does not make them happen by itself.

mod changes;
mod cluster;
mod disks;
mod faults;
mod laws;
mod store;

use cluster::{Cluster, Disk};
