//! What must hold when a disk is full, fails, or gives back other bytes than it was given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;

use super::cluster::{LIMIT, accepted, create, key, put};
use super::{Cluster, Disk};
use crate::Error;
use crate::storage::{Purpose, Storage as _};
use openraft::async_runtime::watch::WatchReceiver as _;

impl Cluster {
    /// Waits until a member says that something is wrong with its disk, or no longer does.
    async fn until_disk(&self, id: u64, wrong: bool) -> String {
        let said = async {
            loop {
                match self.members[&id].disk_problem() {
                    Some(why) if wrong => return why,
                    None if !wrong => return String::new(),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, said).await.unwrap_or_else(|_| panic!("member {id}: its disk is wrong: {wrong}"))
    }

    async fn serves(&self, id: u64) {
        self.until(id, "serves", |leadership| leadership.serving).await;
    }
}

fn another(than: u64) -> u64 {
    if than == 1 { 2 } else { 1 }
}

/// Of the log: nothing was acknowledged that is lost, and the member returns by itself as soon as the disk does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_closes_the_disk_and_the_others_go_on() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    cluster.sims[&leader].fail_syncs(Purpose::Log);
    accepted(cluster.replica(another(leader)).propose(create("in-spite")).await);
    let why = cluster.until_disk(leader, true).await;
    assert!(why.contains("the disk fails"), "{why}");
    let status = cluster.members[&leader].status().await.expect("it still answers");
    assert!(status.problem.is_some_and(|problem| problem.contains("the disk fails")));
    cluster.sims[&leader].fail_syncs(None);
    cluster.until_disk(leader, false).await;
    cluster.serves(leader).await;
    accepted(cluster.replica(leader).propose(create("afterwards")).await);
    assert!(cluster.root(leader).get(&key("in-spite")).is_some());
}

/// Not even purged entries may be damaged: no start reads them, but a merge of tables does, and fails each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_shows_while_the_log_is_in_use_is_quarantined_too() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    cluster.sims[&leader].find_damage(Purpose::Log);
    accepted(cluster.replica(another(leader)).propose(create("in-spite")).await);
    let why = tokio::time::timeout(LIMIT, cluster.members[&leader].failed()).await.expect("it stops");
    assert!(why.contains("block checksum mismatch") && why.contains("hactl cluster replace"), "{why}");
    let mark = cluster.sims[&leader].read(&cluster.data_dir(leader).join("quarantine")).expect("readable");
    assert!(String::from_utf8_lossy(&mark.expect("marked")).contains("block checksum mismatch"));
}

/// A snapshot may be larger than what is free: it is given up before it takes the room that the log needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_fills_the_disk_up_is_given_up() {
    use crate::transport::Chunk;
    const MIB: u64 = 1 << 20;
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| config.disk_reserve = 64 << 20;
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    let (peers, inner) = (cluster.members[&1].peers(), cluster.members[&1].inner());
    let sim = cluster.sims[&1].clone();
    let of_the_test = sim.clone();
    let header = crate::wire::encode_snapshot_meta(&Default::default(), Some(&crate::types::Vote::new(9, 9)));
    let chunks = futures::stream::iter(0..100_u64).then(move |number| {
        let (sim, header, inner) = (sim.clone(), header.clone(), inner.clone());
        async move {
            if number == 1 {
                sim.set_free(MIB);
                let noticed = async {
                    while !inner.disk.is_full() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(LIMIT, noticed).await.expect("it looks");
            }
            let data = bytes::Bytes::from_static(b"abcd");
            let header = if number == 0 { header } else { bytes::Bytes::new() };
            let crc32 = crc32fast::hash(&data);
            Ok(Chunk { header, file: "000001.sst".into(), offset: number * 4, data, crc32, last: number == 99 })
        }
    });
    let refused = peers.snapshot(chunks.boxed()).await.expect_err("no room");
    assert!(refused.message().contains("full disk"), "{refused}");
    let left =
        crate::storage::Storage::directories(&of_the_test, &cluster.data_dir(1).join("snapshots")).expect("readable");
    assert_eq!(left, Vec::<String>::new(), "nothing of it stays");
}

/// A write that finds no room, in the middle of anything: never a panic, never a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_without_room_return_with_all_that_was_acknowledged() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for id in 1..=3 {
            cluster.serves(id).await;
            let name = format!("thing-{round}-{id}");
            accepted(cluster.replica(id).propose(create(&name)).await);
            acknowledged.push(name);
        }
        // One, two, all three at once.
        for id in 1..=(round + 1) {
            cluster.sims[&id].stuff(true);
        }
        let during = tokio::spawn({
            let replica = cluster.replica(3);
            async move { replica.propose(create(&format!("during-{round}"))).await }
        });
        for id in 1..=(round + 1) {
            // Without a leader nothing is written, so that a member may not notice.
            if round == 0 {
                cluster.until_disk(id, true).await;
            }
        }
        for sim in cluster.sims.values() {
            sim.stuff(false);
        }
        if during.await.expect("no panic").is_ok() {
            acknowledged.push(format!("during-{round}"));
        }
        for id in 1..=3 {
            cluster.until_disk(id, false).await;
        }
    }
    for id in 1..=3 {
        cluster.serves(id).await;
        let root = cluster.replica(id).read().await.expect("read");
        for name in &acknowledged {
            assert!(root.get(&key(name)).is_some(), "{name} on {id}");
        }
    }
    let leader = cluster.leader().await;
    cluster.catch_up(another(leader), leader).await;
}

/// The first write to `state/` that fails is the last: nothing is written behind it, and the log keeps what it would lose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_written_is_opened_again() {
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| (config.snapshot_entries, config.keep_entries) = (10, 1);
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    cluster.sims[&1].fail_syncs(Purpose::State);
    for n in 0..30 {
        // The last ones may meet the disk being opened again.
        if cluster.replica(1).propose(create(&format!("thing-{n}"))).await.is_err() {
            break;
        }
    }
    let why = cluster.until_disk(1, true).await;
    assert!(why.contains("the disk fails"), "{why}");
    cluster.sims[&1].fail_syncs(None);
    cluster.until_disk(1, false).await;
    cluster.serves(1).await;
    for n in 0..30 {
        accepted(cluster.replica(1).propose(put(&format!("thing-{n}"), "again")).await);
    }
    let snapshots = async {
        while cluster.members[&1].status().await.expect("status").snapshot_index == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, snapshots).await.expect("snapshots are taken again");
    let (revision, hash) = (cluster.root(1).revision(), cluster.root(1).hash());
    cluster.sims[&1].crash();
    cluster.kill(1).await;
    cluster.start(1).await.expect("starts from what was written");
    cluster.serves(1).await;
    assert_eq!((cluster.root(1).revision(), cluster.root(1).hash()), (revision, hash));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_member_takes_nothing_new_and_catches_up_later() {
    const MIB: u64 = 1 << 20;
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| config.disk_reserve = 64 << 20;
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    for id in [2, 3] {
        cluster.join(id).await;
    }
    let leader = cluster.leader().await;
    let (full, other) = (another(leader), 6 - leader - another(leader));
    accepted(cluster.replica(full).propose(create("before")).await);
    cluster.sims[&full].set_free(10 * MIB);
    let why = cluster.until_disk(full, true).await;
    assert!(why.contains("10 MiB are free") && why.contains("disk-reserve"), "{why}");
    let before = cluster.members[&full].status().await.expect("status").last_log_index;
    let refused = cluster.replica(full).propose(create("refused")).await;
    assert!(matches!(&refused, Err(replica::Error::Unavailable(why)) if why.contains("full disk")), "{refused:?}");
    for n in 0..5 {
        accepted(cluster.replica(other).propose(create(&format!("meanwhile-{n}"))).await);
    }
    let status = cluster.members[&full].status().await.expect("status");
    assert_eq!(status.last_log_index, before, "its log does not grow");
    assert!(status.disk_full.is_some() && status.leader == Some(leader), "it still follows");
    assert!(cluster.replica(full).read().await.is_err(), "what it does not have it does not answer");
    cluster.sims[&full].set_free(1000 * MIB);
    cluster.until_disk(full, false).await;
    accepted(cluster.replica(full).propose(create("again")).await);
    cluster.catch_up(full, other).await;

    // A leader without room leads on where nobody takes over, but writes nothing.
    cluster.sims[&leader].set_free(MIB);
    cluster.until_disk(leader, true).await;
    let refused = cluster.replica(other).propose(create("at-the-full-leader")).await;
    assert!(matches!(&refused, Err(replica::Error::Unavailable(why)) if why.contains("full disk")), "{refused:?}");
    assert!(cluster.replica(other).read().await.expect("read").get(&key("again")).is_some());
}

/// The leader has room itself, so it could begin what nobody will ever complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_on_most_disks_writes_are_refused_with_the_reason_and_come_back() {
    const MIB: u64 = 1 << 20;
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| config.disk_reserve = 64 << 20;
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    for id in [2, 3] {
        cluster.join(id).await;
    }
    let leader = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    accepted(cluster.replica(leader).propose(create("before")).await);
    cluster.sims[&others[0]].set_free(MIB);
    cluster.until_disk(others[0], true).await;
    accepted(cluster.replica(leader).propose(create("with two of three")).await);

    // On its way when the second one fills up: it is in the leader's log, and whoever waits is told.
    cluster.sims[&others[1]].slow_syncs(Duration::from_secs(2));
    let replica = cluster.replica(leader);
    let during = tokio::spawn(async move { replica.propose(create("during")).await });
    cluster.sims[&others[1]].set_free(MIB);
    cluster.until_disk(others[1], true).await;
    let known = async {
        loop {
            let status = cluster.members[&leader].status().await.expect("status");
            if let Some(problem) = status.problem {
                return problem;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let problem = tokio::time::timeout(LIMIT, known).await.expect("the leader hears of it");
    for id in &others {
        assert!(problem.contains(&format!("m{id} has a full disk")), "{problem}");
    }
    let refused = cluster.replica(leader).propose(create("refused")).await;
    assert!(matches!(&refused, Err(replica::Error::Unavailable(why)) if why.contains("cannot write")), "{refused:?}");
    // It was taken before, or nobody knows.
    let during = during.await.expect("no panic");
    assert!(!matches!(during, Err(replica::Error::Unavailable(_))), "{during:?}");

    cluster.sims[&others[1]].slow_syncs(Duration::ZERO);
    for id in &others {
        cluster.sims[id].set_free(1000 * MIB);
        cluster.until_disk(*id, false).await;
    }
    let again = async {
        while let Err(replica::Error::Unavailable(_)) = cluster.replica(leader).propose(create("again")).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, again).await.expect("it takes writes again");
    assert!(cluster.replica(others[0]).read().await.expect("read").get(&key("again")).is_some());
    assert!(cluster.root(leader).get(&key("refused")).is_none());
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) || path.to_string_lossy().contains(ending) {
            all.push(path);
        }
    }
    all
}

/// Flips bytes all over the files whose names contain `name`.
fn damage(dir: &Path, name: &str) {
    let found = files(dir, name);
    assert!(!found.is_empty(), "{}: {name}", dir.display());
    for file in found {
        let mut bytes = std::fs::read(&file).expect("read");
        let step = (bytes.len() / 7).max(1);
        for at in (step / 2..bytes.len()).step_by(step) {
            bytes[at] ^= 0x20;
        }
        // In place: links to the file see it too, as they would on a bad disk.
        std::fs::write(&file, bytes).expect("write");
    }
}

/// One member that wrote enough for a state on disk, stopped in order; the beginning of its log is there or gone.
async fn stopped(purged: bool) -> (Cluster, u128) {
    let mut cluster = Cluster::new(Disk::Real);
    if purged {
        cluster.tune = |config| (config.snapshot_entries, config.keep_entries) = (10, 1);
    }
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    for n in 0..60 {
        accepted(cluster.replica(1).propose(put(&format!("thing-{n}"), &"x".repeat(500))).await);
    }
    if purged {
        let mut metrics = cluster.members[&1].inner().raft.metrics();
        let gone = metrics.wait_until(|metrics| metrics.purged.is_some());
        tokio::time::timeout(LIMIT, gone).await.expect("the log is purged").expect("running");
    }
    let hash = cluster.root(1).hash();
    cluster.members.remove(&1).expect("running").shutdown().await;
    (cluster, hash)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_built_again_from_what_is_whole() {
    // The log has it all.
    for name in [".sst", "MANIFEST", "CURRENT"] {
        let (mut cluster, hash) = stopped(false).await;
        damage(&cluster.data_dir(1).join("state"), name);
        cluster.start(1).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        cluster.serves(1).await;
        assert_eq!(cluster.root(1).hash(), hash, "{name}");
    }
    // The beginning of the log is gone, a snapshot has it.
    let (mut cluster, hash) = stopped(true).await;
    damage(&cluster.data_dir(1).join("state"), "MANIFEST");
    cluster.start(1).await.expect("starts from the snapshot");
    cluster.serves(1).await;
    assert_eq!(cluster.root(1).hash(), hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_built_again_is_quarantined_for_good() {
    let (mut cluster, _) = stopped(true).await;
    let dir = cluster.data_dir(1);
    damage(&dir.join("snapshots"), ".sst");
    damage(&dir.join("state"), "MANIFEST");
    for start in ["damaged", "quarantined"] {
        let refused = cluster.start(1).await.err();
        let Some(Error::Corrupt(why)) = &refused else { panic!("{start}: {refused:?}") };
        let cure = format!("`hactl cluster replace m1 --data-dir {}`", dir.display());
        assert!(why.contains(&cure), "the cure is named: {why}");
        assert_eq!(why.contains("is quarantined"), start == "quarantined", "{why}");
    }
    assert!(dir.join("quarantine").exists());
}

/// A cluster of three whose member `victim` stopped in order, with the beginning of its log gone, and wrote nothing since.
async fn three_with_one_stopped() -> (Cluster, u64) {
    let mut cluster = Cluster::new(Disk::Real);
    cluster.tune = |config| (config.snapshot_entries, config.keep_entries) = (10, 1);
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    for id in [2, 3] {
        cluster.join(id).await;
    }
    for n in 0..60 {
        accepted(cluster.replica(1).propose(put(&format!("thing-{n}"), &"x".repeat(500))).await);
    }
    let victim = another(cluster.leader().await);
    let mut metrics = cluster.members[&victim].inner().raft.metrics();
    let gone = metrics.wait_until(|metrics| metrics.purged.is_some());
    tokio::time::timeout(LIMIT, gone).await.expect("the log is purged").expect("running");
    let stopped = cluster.members.remove(&victim).expect("running");
    cluster.net.forget(victim);
    stopped.shutdown().await;
    (cluster, victim)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_comes_back_from_the_others_and_the_member_stays_itself() {
    for lost in [false, true] {
        lost_state_comes_back(lost).await;
    }
}

/// A thread that clears old snapshots away may outlive its member for a moment, and be at it too.
async fn remove(dir: &Path) {
    let gone = async {
        while std::fs::remove_dir_all(dir).is_err() || dir.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it can be removed");
}

async fn lost_state_comes_back(lost: bool) {
    let (mut cluster, victim) = three_with_one_stopped().await;
    let dir = cluster.data_dir(victim);
    // Nothing of its own is left but the log, and the others go on meanwhile.
    match lost {
        true => {
            remove(&dir.join("state")).await;
            remove(&dir.join("snapshots")).await;
        }
        false => {
            damage(&dir.join("snapshots"), ".sst");
            damage(&dir.join("state"), "MANIFEST");
        }
    }
    let leader = cluster.leader().await;
    for n in 0..5 {
        accepted(cluster.replica(leader).propose(put(&format!("thing-{n}"), "meanwhile")).await);
    }
    cluster.start(victim).await.expect("starts");
    assert!(!dir.join("quarantine").exists());
    cluster.serves(victim).await;
    accepted(cluster.replica(victim).propose(create("afterwards")).await);
    for id in 1..=3 {
        cluster.catch_up(id, victim).await;
    }
    cluster.assert_equal(&[1, 2, 3]);
    // It votes as before: with it and one more the cluster goes on.
    cluster.kill(leader).await;
    accepted(cluster.replica(victim).propose(create("with two of three")).await);
    // And it starts from its own disk again.
    cluster.kill(victim).await;
    cluster.start(victim).await.expect("starts again");
    cluster.serves(victim).await;
    assert!(cluster.root(victim).get(&key("with two of three")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_waits_for_somebody_who_has_it() {
    let (mut cluster, victim) = three_with_one_stopped().await;
    let dir = cluster.data_dir(victim);
    damage(&dir.join("snapshots"), ".sst");
    damage(&dir.join("state"), "MANIFEST");
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != victim).collect();
    for id in &others {
        cluster.kill(*id).await;
    }
    let waited = tokio::time::timeout(Duration::from_secs(1), cluster.start(victim)).await;
    assert!(waited.is_err(), "nobody has it");
    // One other is enough, though it cannot lead alone.
    cluster.start(others[0]).await.expect("starts");
    cluster.start(victim).await.expect("starts");
    accepted(cluster.replica(victim).propose(create("together")).await);
    assert!(!dir.join("quarantine").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_is_quarantined_though_others_have_it_all() {
    for name in ["log.synced", "log"] {
        let (mut cluster, victim) = three_with_one_stopped().await;
        let dir = cluster.data_dir(victim);
        match name {
            "log" => damage(&dir.join("log"), "MANIFEST"),
            file => {
                let far = 1_000_000u64.to_le_bytes();
                let bytes = [&far[..], &crc32fast::hash(&far).to_le_bytes()].concat();
                std::fs::write(dir.join(file), bytes).expect("write");
            }
        }
        let refused = cluster.start(victim).await.err();
        let Some(Error::Corrupt(why)) = &refused else { panic!("{name}: {refused:?}") };
        for cure in
            [format!("hactl cluster replace m{victim} --data-dir {}", dir.display()), "--from".into(), "--token".into()]
        {
            assert!(why.contains(&cure), "{name}: {why}");
        }
        assert!(dir.join("quarantine").exists(), "{name}");
        accepted(cluster.replica(cluster.leader().await).propose(create("without it")).await);
    }
}

/// Most others hold another state than this member, whichever role it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_is_not_trusted_serves_nobody_and_leads_no_more() {
    let mut cluster = Cluster::of(3, Disk::Real).await;
    let leader = cluster.leader().await;
    accepted(cluster.replica(leader).propose(create("before")).await);
    cluster.members[&leader].quarantine("it differs").await;
    let dir = cluster.data_dir(leader);
    cluster.until(leader, "serves no more", |leadership| !leadership.serving && leadership.leading.is_none()).await;
    let status = cluster.members[&leader].status().await.expect("it still answers");
    let problem = status.problem.expect("it says so");
    let cure = format!("hactl cluster replace m{leader} --data-dir {}", dir.display());
    assert!(problem.contains("it differs") && problem.contains(&cure), "{problem}");
    let read = cluster.replica(leader).read().await;
    assert!(matches!(&read, Err(replica::Error::Unavailable(why)) if why.contains("quarantined")), "{:?}", read.err());
    let written = cluster.replica(leader).propose(create("refused")).await;
    assert!(matches!(&written, Err(replica::Error::Unavailable(why)) if why.contains("quarantined")), "{written:?}");

    // The others go on with another leader, and it follows: with one of them gone it is the second to sync.
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let gone = others.into_iter().find(|id| *id != next).expect("a third");
    cluster.kill(gone).await;
    accepted(cluster.replica(next).propose(create("with its log")).await);
    cluster.kill(leader).await;
    let refused = cluster.start(leader).await.err();
    assert!(matches!(&refused, Some(Error::Corrupt(why)) if why.contains(&cure)), "{refused:?}");
}
