//! Three real masters, as processes of the built program, with TLS and RocksDB on loopback. No Docker, no kubectl.

mod automatic;
mod certificates;
mod disks;
mod durability;
mod identity;
mod members;
mod recovery;
mod secrets;
mod snapshots;
mod source;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod three_masters;
mod workload;
