//! Three real masters, as processes of the built program, with TLS and RocksDB on loopback. No Docker; kubectl only where hactl must agree with it.

mod automatic;
mod certificates;
mod disks;
mod durability;
mod identity;
mod interrupted;
mod members;
mod newcomer;
mod recovery;
mod secrets;
mod snapshots;
mod source;
mod start;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod three_masters;
mod workload;
