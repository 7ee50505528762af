//! What a log says at start about what happened to its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorageExt as _;
use openraft::type_config::TypeConfigExt as _;

use super::*;
use crate::storage::rocks::Rocks;
use crate::storage::sim::Sim;
use crate::types::{Batch, log_id};

fn owner() -> Owner {
    Owner { cluster_id: "c".into(), member_id: 1 }
}

fn entry(index: u64) -> Entry {
    let bytes = Bytes::from(vec![index as u8; 300]);
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Batch(bytes)) }
}

async fn open(storage: Arc<dyn Storage>, dir: &Path) -> Result<LogStore, Error> {
    let dir = dir.to_path_buf();
    tokio::task::spawn_blocking(move || {
        let disk = Disk::new(storage.clone(), &dir, 0);
        LogStore::open(storage.as_ref(), disk, &dir, &owner())
    })
    .await
    .expect("no panic")
}

/// Writes entries 0 to `n - 1`, each synced on its own. The watermark file before the last.
async fn fill(storage: Arc<dyn Storage>, dir: &Path, n: u64) -> Vec<u8> {
    let mut log = open(storage, dir).await.expect("a fresh log");
    let mut before_last = Vec::new();
    for index in 0..n {
        before_last = fs::read(dir.join("log.synced")).unwrap_or_default();
        log.blocking_append([entry(index)]).await.expect("append");
    }
    log.close().await;
    before_last
}

fn wal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log")).expect("a directory");
    let mut logs: Vec<PathBuf> = files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.pop().expect("a write-ahead log")
}

/// Damages the write-ahead log of ten entries and opens it again.
async fn check(damage: fn(&mut Vec<u8>), old_watermark: bool, expect: Result<u64, &str>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before_last = fill(Rocks::new(), dir.path(), 10).await;
    if old_watermark {
        fs::write(dir.path().join("log.synced"), before_last).expect("write");
    }
    let file = wal(dir.path());
    let mut bytes = fs::read(&file).expect("read");
    damage(&mut bytes);
    fs::write(&file, bytes).expect("write");
    let found = open(Rocks::new(), dir.path()).await.map(|log| log.last().map_or(0, |id| id.index + 1));
    match (found, expect) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(Error::Corrupt(message)), Err(expected)) => {
            assert!(message.contains(expected), "{message}");
        }
        (found, expect) => panic!("{found:?}, expected {expect:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_from_a_torn_tail() {
    let none: fn(&mut Vec<u8>) = |_| {};
    let torn: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() - 20);
    let header_torn: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() - 340);
    let last_flipped: fn(&mut Vec<u8>) = |bytes| {
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
    };
    let middle_flipped: fn(&mut Vec<u8>) = |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    let emptied: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    check(none, false, Ok(10)).await;
    // Nine entries were known to be synced: the tenth was never acknowledged.
    check(torn, true, Ok(9)).await;
    check(header_torn, true, Ok(9)).await;
    check(last_flipped, true, Ok(9)).await;
    // Ten were.
    check(torn, false, Err("10 had been synced")).await;
    check(last_flipped, false, Err("10 had been synced")).await;
    check(emptied, true, Err("9 had been synced")).await;
    check(middle_flipped, true, Err("valid records follow")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_rotted_in_the_database_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sim = Sim::new();
    fill(Arc::new(sim.clone()), dir.path(), 10).await;
    sim.flip(&dir.path().join("log"), &entry_key(4));
    let refused = open(Arc::new(sim), dir.path()).await.err();
    assert!(matches!(&refused, Some(Error::Corrupt(message)) if message.contains("entry 4")), "{refused:?}");
}

/// A member that votes with the end of a log that a later leader replaced votes for who lacks what was committed since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_the_log_that_was_replaced_and_not_removed_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sim = Sim::new();
    fill(Arc::new(sim.clone()), dir.path(), 10).await;
    let db = sim.database(&dir.path().join("log"), Purpose::Log).expect("the log");
    let later = Entry { log_id: log_id(2, 7), ..entry(7) };
    let write = Write::Put(entry_key(7), wire::encode_entry(&later).into());
    db.write(vec![write], Durability::Synced).expect("write");
    drop(db);
    let refused = open(Arc::new(sim), dir.path()).await.err();
    let Some(Error::Corrupt(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("entry 8 is of term 1, behind one of term 2"), "{why}");
}

/// A write that went to another entry's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misdirected_write_is_found_when_the_log_is_opened() {
    for number in 0..4 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sim = Sim::new();
        fill(Arc::new(sim.clone()), dir.path(), 10).await;
        sim.misdirect(Purpose::Log, number << 33);
        let mut log = open(Arc::new(sim.clone()), dir.path()).await.expect("all is well yet");
        log.blocking_append([entry(10)]).await.expect("append");
        log.close().await;
        sim.crash();
        let refused = open(Arc::new(sim), dir.path()).await.err();
        let said = format!("entry 10 stands where {} should", number * 2);
        assert!(matches!(&refused, Some(Error::Corrupt(why)) if why.contains(&said)), "{said}: {refused:?}");
    }
}

/// After a step back to an older hactl: no damage, and no quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_newer_version_is_refused_with_the_cure() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sim = Sim::new();
    fill(Arc::new(sim.clone()), dir.path(), 10).await;
    let db = sim.database(&dir.path().join("log"), Purpose::Log).expect("the log");
    let mut entry = db.get(&entry_key(4)).expect("read").expect("an entry");
    entry[0] += 1;
    db.write(vec![Write::Put(entry_key(4), entry)], Durability::Synced).expect("write");
    drop(db);
    let refused = open(Arc::new(sim), dir.path()).await.err();
    let Some(Error::Mismatch(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("entry 4") && why.contains("newer hactl"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_share_a_sync_and_old_entries_are_read_from_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sim = Sim::new();
    let mut log = open(Arc::new(sim.clone()), dir.path()).await.expect("a fresh log");
    let big =
        |index| Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Batch(Bytes::from(vec![1; 1 << 20]))) };
    let syncs = sim.syncs();
    let mut flushed = Vec::new();
    for index in 0..20 {
        let (done, flush) = Types::oneshot();
        log.append([big(index)], IOFlushed::signal(done)).await.expect("append");
        flushed.push(flush);
    }
    for flush in flushed {
        flush.await.expect("answered").expect("synced");
    }
    assert!(sim.syncs() - syncs <= 20);
    // More than the tail holds: all must come back, in pieces that keep to their limit.
    assert_eq!(log.try_get_log_entries(0..20).await.expect("read").len(), 20);
    let piece = log.limited_get_log_entries(0, 20).await.expect("read");
    assert!(!piece.is_empty() && piece.len() <= 3, "{}", piece.len());
}
