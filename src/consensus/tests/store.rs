//! openraft's own suite over our log and state machine, on both disks.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::disk::Disk;
use crate::kept::Kept;
use crate::log::{LogStore, Owner};
use crate::snapshot::Snapshots;
use crate::state_machine::{Published, StateMachine};
use crate::state_store::{Rebuild, StateStore};
use crate::storage::{Storage, rocks::Rocks, sim::Sim};
use crate::types::Types;

/// All stores of a suite share one disk: it hands the snapshot of one to another.
struct Builder(Arc<dyn Storage>);

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let storage = self.0.clone();
        let owner = Owner { cluster_id: "c".into(), member_id: 1 };
        let log = LogStore::open(storage.as_ref(), Disk::new(storage.clone(), dir.path(), 0), dir.path(), &owner)
            .expect("log");
        let snapshots = Arc::new(Snapshots::open(storage.clone(), dir.path()).expect("snapshots"));
        let rebuild = Rebuild { from_the_start: true, purged: None, snapshots: &snapshots };
        let (store, loaded) = StateStore::open(storage, dir.path(), &rebuild, state::VERSION).expect("state");
        let published = Arc::new(Published::new(&loaded, u64::MAX, Kept::new(u64::MAX, u64::MAX)));
        Ok((dir, log, StateMachine::new(loaded, published, store, snapshots)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_disk_keeps_the_contract() {
    Suite::test_all(Builder(Arc::new(Sim::new()))).await.expect("openraft's suite");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_disk_keeps_the_contract() {
    Suite::test_all(Builder(Rocks::new())).await.expect("openraft's suite");
}
