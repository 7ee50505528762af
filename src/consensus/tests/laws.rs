//! Laws over random histories of real members: their log, their snapshots, their crashes. What a state machine alone must
//! keep is tested in `state`.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::EntryPayload;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use state::{Command, Compact, EntryId, Expect, Op, Revision, State, codec, op};

use super::cluster::{LIMIT, create, key, member, put};
use super::{Cluster, Disk};
use crate::log::offline;
use crate::storage::{Purpose, Storage};

const STEPS: usize = 160;
/// Keeps its whole log; the others keep next to nothing of it, so that they live from their snapshots.
const WITNESS: u64 = 1;

fn a_command(random: &mut StdRng, now: Revision) -> Command {
    let name = format!("thing-{}", random.random_range(0..12));
    let value = "v".repeat(random.random_range(0..200));
    let ops = |ops: Vec<Op>| Command { ops, ..Command::default() };
    match random.random_range(0..20) {
        0..9 => put(&name, &value),
        9..12 => create(&name),
        12..15 => ops(vec![Op::delete(key(&name))]),
        15..17 => Command { expects: vec![Expect::exists(key(&name))], ..put(&name, &value) },
        17..19 => {
            let other = put(&format!("thing-{}", random.random_range(0..12)), &value);
            ops([put(&name, "both").ops, other.ops].concat())
        }
        _ => {
            let revision = now.saturating_sub(random.random_range(0..60));
            ops(vec![Op { kind: Some(op::Kind::Compact(Compact { revision })) }])
        }
    }
}

/// Every entry of a stopped member's log applied to nothing: the end, and the state at each revision on the way.
fn replayed(storage: &dyn Storage, data_dir: &Path) -> (State, BTreeMap<Revision, State>) {
    let (mut state, mut roots) = (State::default(), BTreeMap::new());
    offline::entries(storage, data_dir, None, &mut |entry| {
        let at = EntryId { term: entry.log_id.leader_id.term, index: entry.log_id.index };
        state.skip(at);
        if let EntryPayload::Normal(batch) = &entry.payload {
            for command in batch.commands() {
                state.apply(at, &command);
                roots.insert(state.revision(), state.clone());
            }
        }
        Ok(())
    })
    .expect("a whole log");
    (state, roots)
}

/// The rows in the database of a stopped member.
fn rows(storage: &dyn Storage, data_dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let dir = data_dir.join("state");
    let current = storage.read(&dir.join("current")).expect("read").expect("a name");
    let dir = dir.join(String::from_utf8_lossy(&current).trim());
    let db = storage.database(&dir, Purpose::State).expect("the database");
    let mut rows = Vec::new();
    db.scan(codec::START, codec::END, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(true)
    })
    .expect("scan");
    rows
}

async fn a_random_history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(Disk::Sim);
    cluster.tune = |config| {
        (config.snapshot_entries, config.keep_entries) =
            if config.member.id == WITNESS { (u64::MAX / 4, u64::MAX / 4) } else { (15, 1) };
    };
    cluster.start(WITNESS).await.expect("starts");
    cluster.members[&WITNESS].initialize().await.expect("the first member");
    for id in [2, 3] {
        cluster.join(id).await;
    }
    for _ in 0..STEPS {
        let id = random.random_range(1..=3);
        match random.random_range(0..40) {
            // A crash of the process, and of the machine; never the witness's disk alone, which all this is compared with.
            what @ 0..2 => {
                if what == 0 {
                    cluster.sims[&id].crash();
                }
                cluster.kill(id).await;
                cluster.start(id).await.expect("starts again");
                cluster.until(id, "serves again", |leadership| leadership.serving).await;
            }
            2..4 if id != WITNESS => cluster.members[&id].snapshot().await.expect("running"),
            _ => {
                let command = a_command(&mut random, cluster.root(id).revision());
                // Whatever its outcome, it is the same for all.
                cluster.replica(id).propose(command).await.expect("an outcome");
            }
        }
    }
    // One that comes late gets a snapshot, and the rest of the log.
    let leader = cluster.leader().await;
    if leader == WITNESS {
        cluster.members[&leader].transfer_leader(2).await.expect("transfer");
    }
    cluster.members[&2].snapshot().await.expect("running");
    cluster.join(4).await;
    for _ in 0..5 {
        let command = a_command(&mut random, cluster.root(4).revision());
        cluster.replica(4).propose(command).await.expect("an outcome");
    }
    let last = cluster.leader().await;
    for id in 1..=4 {
        cluster.catch_up(id, last).await;
    }

    let roots: BTreeMap<u64, _> = (1..=4).map(|id| (id, cluster.root(id))).collect();
    for (id, root) in &roots {
        assert!(
            codec::dump(root) == codec::dump(&roots[&WITNESS]),
            "seed {seed}: member {id} differs from the witness"
        );
        assert_eq!(root.hash(), roots[&WITNESS].hash(), "seed {seed}");
    }
    assert!(cluster.members[&4].status().await.expect("status").snapshot_index > 0, "it came as a snapshot");
    for id in 1..=4 {
        let stopped = cluster.members.remove(&id).expect("running");
        let shutdown = tokio::time::timeout(LIMIT, stopped.shutdown());
        shutdown.await.unwrap_or_else(|_| panic!("{} does not stop", member(id).name));
    }
    let (full, then) = replayed(&cluster.sims[&WITNESS], &cluster.data_dir(WITNESS));
    for id in 1..=4 {
        // Entries without commands may have followed: they change what was applied last, and nothing else.
        let mut expected = full.clone();
        expected.skip(roots[&id].applied().max(full.applied()));
        let stored = rows(&cluster.sims[&id], &cluster.data_dir(id));
        assert!(stored[1..] == codec::dump(&expected)[1..], "seed {seed}: what {id} stored is not what the log gives");
        for (revision, was) in &then {
            let now = roots[&id].list_at("", "things", None, *revision);
            match now {
                Ok(list) => assert_eq!(
                    list,
                    was.list("", "things", None).collect::<Vec<_>>(),
                    "seed {seed}: member {id} at revision {revision}"
                ),
                Err(_) => assert!(*revision < roots[&id].compacted(), "seed {seed}: revision {revision} is gone"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_byte_equal_and_equal_to_the_replay_of_the_whole_log() {
    for seed in [1, 2, 3] {
        a_random_history(seed).await;
    }
}
