//! What must hold when members die, are cut off, or lose power.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::cluster::{accepted, create, key, put};
use super::{Cluster, Disk};
use crate::Error;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_with_the_leader() {
    let mut cluster = Cluster::of(3, Disk::Real).await;
    let leader = cluster.leader().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=3u64)
        .filter(|id| *id != leader)
        .map(|id| {
            let (replica, stop) = (cluster.replica(id), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("w{id}-{n}");
                    // A retried proposal must not find its own first try in the way.
                    accepted(replica.propose(create(&name)).await);
                    acknowledged.push(name);
                }
                acknowledged
            })
        })
        .collect();
    let follower = if leader == 1 { 2 } else { 1 };
    let mut applied = cluster.replica(follower).applied();
    applied.wait_for(|revision| *revision > 20).await.expect("running");
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    let mut applied = cluster.replica(next).applied();
    let so_far = *applied.borrow();
    applied.wait_for(|revision| *revision > so_far + 20).await.expect("running");
    stop.store(true, Ordering::Relaxed);
    let root = {
        let mut names = Vec::new();
        for writer in writers {
            names.extend(writer.await.expect("every proposal had an outcome"));
        }
        let root = cluster.replica(next).read().await.expect("read");
        for name in &names {
            assert!(root.get(&key(name)).is_some(), "{name} was acknowledged");
        }
        root
    };
    cluster.start(leader).await.expect("starts again");
    cluster.until(leader, "serves again", |leadership| leadership.serving).await;
    cluster.catch_up(leader, next).await;
    assert!(cluster.root(leader).revision() >= root.revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_writes_nothing_and_reads_nothing() {
    let cluster = Cluster::of(3, Disk::Real).await;
    let old = cluster.leader().await;
    let term = cluster.until(old, "leads", |leadership| leadership.leading.is_some()).await.term;
    let early = cluster.replica(old).propose_as_leader(term - 1, create("early")).await;
    assert!(matches!(early, Err(replica::Error::Deposed(_))), "{early:?}");
    accepted(cluster.replica(old).propose_as_leader(term, create("in-term")).await);

    cluster.net.set_cut(old, true);
    cluster.until(old, "no longer counts as leading", |leadership| leadership.leading.is_none()).await;
    let late = cluster.replica(old).propose_as_leader(term, create("late")).await;
    assert!(matches!(late, Err(replica::Error::Deposed(_))), "{late:?}");
    let new = cluster.leader().await;
    assert_ne!(new, old);
    accepted(cluster.replica(new).propose(create("by-the-new-one")).await);
    assert!(cluster.root(old).get(&key("by-the-new-one")).is_none());
    let reader = cluster.replica(old);
    let read = tokio::spawn(async move { reader.read().await });
    cluster.net.set_cut(old, false);
    // The read began while cut off, so it is answered only after the new leader was heard.
    let root = read.await.expect("no panic").expect("read");
    assert!(root.get(&key("by-the-new-one")).is_some());
    cluster.catch_up(old, new).await;
    for id in [1, 2, 3] {
        assert!(cluster.replica(id).read().await.expect("read").get(&key("late")).is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_write_says_whether_it_may_still_happen() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.net.set_cut(*id, true);
    }
    cluster.until(leader, "stops leading", |leadership| leadership.leading.is_none()).await;
    let refused = cluster.replica(others[0]).propose(create("nowhere")).await;
    assert!(matches!(refused, Err(replica::Error::Unavailable(_))), "{refused:?}");
    for id in &others {
        cluster.net.set_cut(*id, false);
    }
    let leader = cluster.leader().await;
    assert!(cluster.replica(leader).read().await.expect("read").get(&key("nowhere")).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_at_a_lost_leader_is_answered_by_the_next() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    let mut metrics = cluster.members[&leader].inner().raft.metrics();
    let before = metrics.borrow_watched().last_log_index;
    for sim in cluster.sims.values() {
        sim.slow_syncs(Duration::from_millis(500));
    }
    let replica = cluster.replica(other);
    let proposed = tokio::spawn(async move { replica.propose(create("through")).await });
    metrics.wait_until(move |metrics| metrics.last_log_index > before).await.expect("running");
    cluster.net.set_cut(leader, true);
    for sim in cluster.sims.values() {
        sim.slow_syncs(Duration::ZERO);
    }
    accepted(proposed.await.expect("no panic"));
    assert!(cluster.root(other).get(&key("through")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_on_all_members_loses_nothing_acknowledged() {
    let mut cluster = Cluster::of(3, Disk::Sim).await;
    for n in 0..50 {
        accepted(cluster.replica(n % 3 + 1).propose(create(&format!("thing-{n}"))).await);
    }
    for id in 1..=3 {
        cluster.sims[&id].crash();
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await.expect("starts again");
    }
    let leader = cluster.leader().await;
    let root = cluster.replica(leader).read().await.expect("read");
    for n in 0..50 {
        assert!(root.get(&key(&format!("thing-{n}"))).is_some(), "thing-{n}");
    }
    accepted(cluster.replica(leader).propose(put("thing-0", "goes on")).await);
}

/// Apply does not wait for this member's own disk, so its state may be flushed before its log is synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_a_power_cut_left_ahead_of_the_log_is_covered_by_a_snapshot() {
    let mut cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.sims[&follower].slow_syncs(Duration::from_secs(3));
    for n in 0..5 {
        accepted(cluster.replica(leader).propose(create(&format!("thing-{n}"))).await);
    }
    cluster.catch_up(follower, leader).await;
    // Tables in the order of their names: the log loses all that was not synced, the state nothing.
    let mut log = true;
    cluster.sims[&follower].crash_keeping(|unsynced| if std::mem::take(&mut log) { 0 } else { unsynced });
    cluster.kill(follower).await;
    cluster.sims[&follower].slow_syncs(Duration::ZERO);
    cluster.start(follower).await.expect("starts again");
    cluster.catch_up(follower, leader).await;
    // As the leader it can bring others up to date: nothing is missing between its snapshot and its log.
    cluster.members[&leader].transfer_leader(follower).await.expect("it takes over");
    cluster.join(4).await;
    cluster.catch_up(4, follower).await;
    for n in 0..5 {
        assert!(cluster.root(4).get(&key(&format!("thing-{n}"))).is_some(), "thing-{n}");
    }
}

/// Heartbeats are answered before the disk is: writes are slow, the leader stays and keeps its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_slower_than_an_election_does_not_cost_the_leader_its_place() {
    let cluster = Cluster::of(3, Disk::Sim).await;
    let leader = cluster.leader().await;
    let before = cluster.until(leader, "leads", |leadership| leadership.leading.is_some()).await;
    for sim in cluster.sims.values() {
        sim.slow_syncs(Duration::from_millis(2500));
    }
    let mut lost = cluster.replica(leader).leadership();
    lost.mark_unchanged();
    let written = async {
        for id in [1, 2] {
            accepted(cluster.replica(id).propose(create(&format!("slow-{id}"))).await);
        }
    };
    tokio::select! {
        () = written => {}
        _ = lost.changed() => panic!("leadership moved: {:?}", *lost.borrow()),
    }
    assert_eq!(*cluster.replica(leader).leadership().borrow(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_member_or_cluster_is_refused() {
    let mut cluster = Cluster::of(1, Disk::Real).await;
    cluster.kill(1).await;
    cluster.tune = |config| config.member.id = 2;
    let refused = cluster.start(1).await;
    assert!(matches!(refused, Err(Error::Mismatch(_))), "{:?}", refused.err());
    cluster.tune = |config| config.cluster_id = "another".into();
    let refused = cluster.start(1).await;
    assert!(matches!(refused, Err(Error::Mismatch(_))), "{:?}", refused.err());
}
