//! Figures rather than verdicts: `cargo test -p consensus measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::cluster::{accepted, create, put};
use super::{Cluster, Disk};

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("user") + fields[12].parse::<f64>().expect("system");
    ticks / 100.0
}

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("resident") * 4 / 1024
}

async fn idle(cluster: &Cluster, what: &str) {
    let (cpu, started) = (cpu_seconds(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = (cpu_seconds() - cpu) / started.elapsed().as_secs_f64() / cluster.members.len() as f64;
    println!("{what}: idle {:.2} % of a core per member, {} MiB resident in all", share * 100.0, resident_mib());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn measure() {
    let mut cluster = Cluster::new(Disk::Real);
    cluster.tune = |config| {
        (config.heartbeat_ms, config.election_ms_min, config.election_ms_max) = (40, 120, 200);
    };
    cluster.start(1).await.expect("starts");
    cluster.members[&1].initialize().await.expect("the first member");
    idle(&cluster, "one member").await;
    let replica = cluster.replica(1);
    let started = Instant::now();
    for n in 0..300 {
        accepted(replica.propose(put("one", &n.to_string())).await);
    }
    println!("one member: one writer, {:?} per write", started.elapsed() / 300);
    drop(replica);
    cluster.join(2).await;
    cluster.join(3).await;
    idle(&cluster, "three members").await;

    let leader = cluster.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.kill(follower).await;
    idle(&cluster, "one of three down").await;
    cluster.start(follower).await.expect("starts again");
    cluster.until(follower, "serves again", |leadership| leadership.serving).await;
    for (what, id) in [("leader", leader), ("follower", follower)] {
        let replica = cluster.replica(id);
        let started = Instant::now();
        for n in 0..300 {
            accepted(replica.propose(put("one", &n.to_string())).await);
        }
        println!("{what}: one writer, {:?} per write", started.elapsed() / 300);
        let started = Instant::now();
        for _ in 0..300 {
            replica.read().await.expect("read");
        }
        println!("{what}: one reader, {:?} per read", started.elapsed() / 300);
        for clients in [32, 256] {
            let started = Instant::now();
            let writers = (0..clients).map(|client| {
                let replica = replica.clone();
                tokio::spawn(async move {
                    for n in 0..40 {
                        accepted(replica.propose(put(&format!("{client}-{}", n % 8), &n.to_string())).await);
                    }
                })
            });
            futures::future::join_all(writers).await;
            println!(
                "{what}: {clients} writers, {:.0} writes/s",
                f64::from(clients * 40) / started.elapsed().as_secs_f64()
            );
        }
    }
    println!("after the load: {} MiB resident", resident_mib());

    for round in 0..5 {
        let leader = cluster.leader().await;
        let other = if leader == 1 { 2 } else { 1 };
        let started = Instant::now();
        cluster.net.set_cut(leader, true);
        accepted(cluster.replica(other).propose(create(&format!("after-{round}"))).await);
        println!("next accepted write {:?} after the leader was lost", started.elapsed());
        cluster.net.set_cut(leader, false);
        cluster.until(leader, "follows", |leadership| leadership.leader.is_some_and(|now| now != leader)).await;
    }
}
