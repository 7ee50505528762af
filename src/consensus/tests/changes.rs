//! What users of a healthy cluster see: writes, reads, members, snapshots, restarts.

use openraft::async_runtime::watch::WatchReceiver as _;

use super::cluster::{accepted, create, key, member, put};
use super::{Cluster, Disk};
use crate::transport::Change;
use crate::{Error, Member, Role};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_any_member_is_seen_there_at_once_and_by_every_linearizable_read() {
    let cluster = Cluster::of(3, Disk::Real).await;
    for id in [1, 2, 3] {
        let name = format!("by-{id}");
        let outcome = accepted(cluster.replica(id).propose(create(&name)).await);
        assert!(cluster.root(id).get(&key(&name)).is_some(), "own write on {id}");
        assert!(cluster.root(id).revision() >= outcome.revision);
        for reader in [1, 2, 3] {
            let root = cluster.replica(reader).read().await.expect("read");
            assert!(root.get(&key(&name)).is_some(), "write on {id} read on {reader}");
        }
    }
    let many = (0..200).map(|n| {
        let replica = cluster.replica(n % 3 + 1);
        async move { accepted(replica.propose(create(&format!("many-{n}"))).await) }
    });
    let outcomes = futures::future::join_all(many).await;
    let mut revisions: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.revisions.clone()).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200, "each write has a revision of its own");
    let leader = cluster.leader().await;
    for id in [1, 2, 3] {
        cluster.catch_up(id, leader).await;
    }
    cluster.assert_equal(&[1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_applied_once_however_often_it_is_made() {
    let cluster = Cluster::of(3, Disk::Real).await;
    let mut command = create("once");
    command.proposal = vec![7; 16].into();
    let first = accepted(cluster.replica(2).propose(command.clone()).await);
    let second = accepted(cluster.replica(3).propose(command.clone()).await);
    assert_eq!(first, second);
    let other = cluster.replica(1).propose(create("once")).await.expect("an outcome");
    assert!(other.refusal.is_some(), "a proposal of its own is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_restarts_from_disk_as_it_was() {
    let mut cluster = Cluster::of(1, Disk::Real).await;
    for round in 0..3 {
        for n in 0..20 {
            accepted(cluster.replica(1).propose(put(&format!("thing-{n}"), &round.to_string())).await);
        }
        let before = cluster.root(1);
        if round == 1 {
            cluster.net.set_cut(1, false);
            cluster.members.remove(&1).expect("running").shutdown().await;
        } else {
            cluster.kill(1).await;
        }
        cluster.start(1).await.expect("starts again");
        cluster.until(1, "leads again", |leadership| leadership.leading.is_some() && leadership.serving).await;
        assert_eq!(cluster.root(1).hash(), before.hash(), "round {round}");
        assert_eq!(cluster.root(1).revision(), before.revision());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_fed_a_snapshot_and_the_log_is_purged_behind_it() {
    for disk in [Disk::Real, Disk::Sim] {
        let mut cluster = Cluster::new(disk);
        cluster.tune = |config| (config.snapshot_entries, config.keep_entries) = (50, 10);
        cluster.start(1).await.expect("starts");
        cluster.members[&1].initialize().await.expect("the first member");
        for n in 0..200 {
            accepted(cluster.replica(1).propose(put(&format!("thing-{}", n % 30), &n.to_string())).await);
        }
        let mut metrics = cluster.members[&1].inner().raft.metrics();
        let purged = metrics.wait_until(|metrics| metrics.purged.is_some_and(|id| id.index > 50));
        tokio::time::timeout(super::cluster::LIMIT, purged).await.expect("the log is purged").expect("running");

        cluster.join(2).await;
        cluster.catch_up(2, 1).await;
        cluster.assert_equal(&[1, 2]);
        let status = cluster.members[&2].status().await.expect("status");
        assert!(status.snapshot_index > 50, "it came as a snapshot: {status:?}");

        // The newcomer starts again from what it was given, and goes on.
        accepted(cluster.replica(2).propose(create("after")).await);
        cluster.kill(2).await;
        cluster.start(2).await.expect("starts again");
        cluster.until(2, "serves again", |leadership| leadership.serving).await;
        cluster.catch_up(2, 1).await;
        cluster.assert_equal(&[1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_bounded_by_count_and_by_bytes() {
    const ENTRY: usize = 100 << 10;
    let by_count: fn(&mut crate::Config) = |config| (config.snapshot_entries, config.keep_entries) = (20, 5);
    let by_bytes: fn(&mut crate::Config) = |config| config.snapshot_bytes = 10 * ENTRY as u64;
    // What is written before a snapshot is due, and what stays behind it.
    for (what, tune, most) in [("count", by_count, 20 + 5), ("bytes", by_bytes, 10 + 5)] {
        let mut cluster = Cluster::new(Disk::Real);
        cluster.tune = tune;
        cluster.start(1).await.expect("starts");
        cluster.members[&1].initialize().await.expect("the first member");
        cluster.join(2).await;
        let body = "x".repeat(ENTRY);
        let mut written = 0;
        for restarted in [false, true] {
            for _ in 0..60 {
                accepted(cluster.replica(1).propose(put(&format!("thing-{}", written % 7), &body)).await);
                written += 1;
            }
            for id in [1, 2] {
                // Little more than is due for the next snapshot, wherever the last one was taken.
                let mut metrics = cluster.members[&id].inner().raft.metrics();
                let held = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
                    metrics.last_log_index.unwrap_or(0) - metrics.purged.map_or(0, |id| id.index)
                };
                let bounded = metrics.wait_until(|metrics| held(metrics) <= most + 1);
                let bounded = tokio::time::timeout(super::cluster::LIMIT, bounded).await;
                bounded.unwrap_or_else(|_| panic!("by {what}, member {id}: too much stays")).expect("running");
            }
            if !restarted {
                // What it held before counts after a start, too.
                for id in [1, 2] {
                    cluster.kill(id).await;
                }
                for id in [1, 2] {
                    cluster.start(id).await.expect("starts again");
                }
                cluster.until(1, "serves again", |leadership| leadership.serving).await;
            }
        }
        cluster.catch_up(2, 1).await;
        cluster.assert_equal(&[1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_move_up_lead_and_go() {
    let mut cluster = Cluster::of(3, Disk::Real).await;
    let leader = cluster.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.members[&leader].transfer_leader(follower).await.expect("transfer");
    cluster.until(follower, "leads", |leadership| leadership.leading.is_some()).await;
    accepted(cluster.replica(leader).propose(create("after-transfer")).await);

    // Asked of a follower; it is the leader that is removed, so it hands over first.
    cluster.members[&leader].remove(follower).await.expect("removed");
    cluster.kill(follower).await;
    let now = cluster.leader().await;
    let status = cluster.members[&now].status().await.expect("status");
    assert_eq!(status.role, Role::Leader);
    assert_eq!(status.members.len(), 2);
    assert!(status.members.iter().all(|member| member.voter && member.lag.is_some()));
    accepted(cluster.replica(now).propose(create("after-removal")).await);

    let refused = cluster.members[&now].promote(9).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    cluster.members[&now].add_learner(member(4)).await.expect("a member that is not there yet");
    let listed = cluster.members[&now].members();
    assert!(listed.iter().any(|known| known.member == member(4) && !known.voter));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_a_leader_died_in_is_finished_by_the_next() {
    use openraft::ChangeMembers;
    let mut cluster = Cluster::of(3, Disk::Real).await;
    let leader = cluster.leader().await;
    // The first of the two entries alone: the joint membership of the old and the new voters.
    cluster.start(4).await.expect("starts");
    cluster.members[&leader].add_learner(member(4)).await.expect("learner");
    let raft = cluster.members[&leader].inner().raft.clone();
    let mut here = raft.metrics();
    let joint = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
        metrics.membership_config.membership().get_joint_config().len() > 1
    };
    tokio::select! {
        biased;
        seen = here.wait_until(joint) => drop(seen.expect("running")),
        changed = raft.change_membership(ChangeMembers::AddVoterIds([4].into()), false) => panic!("{changed:?}"),
    }
    let other = if leader == 1 { 2 } else { 1 };
    let mut there = cluster.members[&other].inner().raft.metrics();
    tokio::time::timeout(super::cluster::LIMIT, there.wait_until(joint)).await.expect("joint").expect("running");
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    let mut metrics = cluster.members[&next].inner().raft.metrics();
    let finished = metrics.wait_until(|metrics| {
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().len() == 1 && membership.voter_ids().count() == 4
    });
    tokio::time::timeout(super::cluster::LIMIT, finished).await.expect("finished").expect("running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_lose_the_majority_is_refused_and_an_address_moves() {
    let mut cluster = Cluster::of(3, Disk::Real).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();

    let moved = Member { peer_address: "elsewhere:1".into(), ..member(others[0]) };
    cluster.members[&others[0]].add_learner(moved.clone()).await.expect("moved");
    let known = cluster.members[&leader].members();
    let known = known.iter().find(|known| known.member.id == others[0]).expect("known");
    assert!(known.member == moved && known.voter, "{known:?}");
    let taken = Member { peer_address: "elsewhere:1".into(), ..member(others[1]) };
    let refused = cluster.members[&leader].add_learner(taken).await.expect_err("another's address").to_string();
    assert!(refused.contains("elsewhere:1"), "{refused}");

    // At once, while the leader has heard of it only just.
    cluster.kill(others[0]).await;
    let refused = cluster.members[&leader].remove(others[1]).await.expect_err("the majority").to_string();
    assert!(refused.contains("majority") && refused.contains(&format!("start m{} first", others[0])), "{refused}");
    cluster.members[&leader].remove(others[0]).await.expect("the dead one may go");
    accepted(cluster.replica(leader).propose(create("still")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_stops_before_rules_it_does_not_know() {
    use state::{Command, Op, RaiseVersion, op};
    let raise = |version| Command {
        ops: vec![Op { kind: Some(op::Kind::RaiseVersion(RaiseVersion { version })) }],
        ..Command::default()
    };
    let mut cluster = Cluster::of(1, Disk::Real).await;
    accepted(cluster.replica(1).propose(raise(state::VERSION)).await);
    accepted(cluster.replica(1).propose(create("before")).await);
    let replica = cluster.replica(1);
    let beyond = tokio::spawn(async move { replica.propose(raise(state::VERSION + 1)).await });
    let why = tokio::time::timeout(super::cluster::LIMIT, cluster.members[&1].failed()).await.expect("it stops");
    assert!(why.contains("install the newer hactl"), "{why}");
    assert!(cluster.root(1).version() == state::VERSION, "nothing of it is shown");
    cluster.kill(1).await;
    assert!(beyond.await.expect("no panic").is_err());
    // Whether the start is refused or the member stops right after, it says the same.
    let why = match cluster.start(1).await {
        Err(error) => error.to_string(),
        Ok(()) => {
            tokio::time::timeout(super::cluster::LIMIT, cluster.members[&1].failed()).await.expect("it stops again")
        }
    };
    assert!(why.contains("install the newer hactl"), "{why}");
}

/// It was away while the others were upgraded, and what it lacks comes as a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_stops_before_a_snapshot_whose_rules_it_does_not_know() {
    use state::{Command, Op, RaiseVersion, op};
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| (config.snapshot_entries, config.keep_entries) = (50, 10);
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    let raise = op::Kind::RaiseVersion(RaiseVersion { version: state::VERSION });
    let raise = Command { ops: vec![Op { kind: Some(raise) }], ..Command::default() };
    accepted(cluster.replica(1).propose(raise).await);
    for n in 0..120 {
        accepted(cluster.replica(1).propose(put("thing", &n.to_string())).await);
    }
    let mut metrics = cluster.members[&1].inner().raft.metrics();
    let purged = metrics.wait_until(|metrics| metrics.purged.is_some_and(|id| id.index > 50));
    tokio::time::timeout(super::cluster::LIMIT, purged).await.expect("the log is purged").expect("running");
    cluster.tune = |config| config.newest_version = state::VERSION - 1;
    cluster.start(2).await.expect("starts");
    cluster.members[&1].add_learner(member(2)).await.expect("learner");
    let why = tokio::time::timeout(super::cluster::LIMIT, cluster.members[&2].failed()).await.expect("it stops");
    assert!(why.contains("install the newer hactl"), "{why}");
    assert_eq!(cluster.root(2).revision(), 0, "nothing of it is shown");
}

/// What history held leaves the disk, while writes go on; the sizes that are told are those of the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_gives_space_back_while_writes_go_on() {
    use rand::{RngCore as _, SeedableRng as _};
    use state::{Command, Compact, Op, op};
    use std::os::unix::fs::MetadataExt as _;
    let cluster = Cluster::of(1, Disk::Real).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    // Text that does not compress.
    let mut noise = || (0..1_000).map(|_| format!("{:016x}", random.next_u64())).collect::<String>();
    for n in 0..1_500 {
        accepted(cluster.replica(1).propose(put(&format!("thing-{}", n % 30), &noise())).await);
    }
    let status = async || cluster.members[&1].status().await.expect("status");
    cluster.members[&1].snapshot().await.expect("running");
    let before = status().await;
    assert!(before.state_bytes + before.snapshot_bytes > 10 << 20, "{before:?}");

    let history = cluster.root(1).history_bytes();
    let revision = cluster.root(1).revision();
    let compact = Op { kind: Some(op::Kind::Compact(Compact { revision })) };
    accepted(cluster.replica(1).propose(Command { ops: vec![compact], ..Command::default() }).await);
    assert!(history > 0 && cluster.root(1).history_bytes() < history / 10);
    let shrunk = async {
        let mut n = 0;
        loop {
            // Acknowledged all the while; now and then a snapshot writes out what is in memory, as it does by itself.
            accepted(cluster.replica(1).propose(put(&format!("small-{}", n % 10), "on")).await);
            if n % 50 == 0 {
                cluster.members[&1].snapshot().await.expect("running");
                let now = status().await;
                if now.state_bytes + now.snapshot_bytes < (before.state_bytes + before.snapshot_bytes) / 4 {
                    return now;
                }
            }
            n += 1;
        }
    };
    let after = tokio::time::timeout(super::cluster::LIMIT, shrunk).await.expect("the space comes back");
    assert_eq!(after.revision, cluster.root(1).revision());
    let files = |dir: std::path::PathBuf| -> u64 {
        let dirs = std::fs::read_dir(&dir).expect("a directory").flatten().filter(|entry| entry.path().is_dir());
        let files = dirs.flat_map(|dir| std::fs::read_dir(dir.path()).expect("a directory").flatten());
        files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
    };
    cluster.members[&1].shutdown().await;
    let stopped = files(cluster.data_dir(1).join("state"));
    assert!(stopped < before.state_bytes / 2, "{stopped} bytes of files, {} before", before.state_bytes);
}

/// It refuses at once, and that it was asked is news of it: whoever asked again at any news did so without a pause.
#[tokio::test(start_paused = true)]
async fn a_leader_that_hands_over_is_asked_for_a_change_now_and_then() {
    const NEWS_MAX: usize = 5_000;
    let cluster = Cluster::of(3, Disk::Tasks).await;
    let leader = cluster.leader().await;
    let to = leader % 3 + 1;
    let inner = cluster.members[&leader].inner();
    // So it cannot take over.
    cluster.net.set_cut(to, true);
    inner.raft.trigger().transfer_leader(to).await.expect("asked");
    let mut metrics = inner.raft.metrics();
    metrics.borrow_and_update();
    let asked = tokio::time::Instant::now();
    let refused = inner.change_here(Change::AddLearner(member(8))).await;
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
    metrics.changed().await.expect("running");
    assert_eq!(asked.elapsed(), std::time::Duration::ZERO, "to be asked is news");

    let news = async {
        for _ in 0..NEWS_MAX {
            metrics.changed().await.expect("running");
        }
    };
    tokio::select! {
        // Made in the end, or not: it names what shall be.
        outcome = cluster.members[&leader].add_learner(member(9)) => {
            assert!(matches!(outcome, Ok(()) | Err(Error::NotLeader { .. } | Error::Timeout(_))), "{outcome:?}");
        }
        () = news => panic!("asked without a pause"),
    }
}
