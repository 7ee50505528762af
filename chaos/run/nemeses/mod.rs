//! The table of nemeses: what is done to a cluster. One file and one row each.
//!
//! A nemesis strikes and, later, undoes what it did; both go by what the owner of the machines could type. It draws from the
//! seed alone. **Invariant:** after `heal` nothing of it is left, and the machines it took are free again.

mod blackout;
mod certificates;
mod clock;
mod cut_node;
mod damage;
mod delay;
mod disk_full;
mod docker;
mod kill;
mod kubelet;
pub mod loss;
mod members;
mod node_kill;
pub mod partition;
mod pause;
mod remove;
mod restart;
mod restore;
mod slow_disk;
mod snapshot;
mod transfer;
mod upgrade;

use anyhow::{Result, bail};
use async_trait::async_trait;

use super::stage::Stage;
use super::targets::Ability;

pub use certificates::LIFE as CERTIFICATE_LIFE;
pub use damage::{is_quarantined, replace};

/// What was done, in words.
pub struct Strike {
    pub what: String,
    /// Whether it hit the leader, so that a gap in writes is to be expected.
    pub leader: bool,
    /// Whether anything was done at all: what found nothing to do proves nothing.
    pub came_off: bool,
}

impl Strike {
    pub fn at(what: String, leader: bool) -> Self {
        Self { what, leader, came_off: true }
    }

    pub fn missed(what: String) -> Self {
        Self { what, leader: false, came_off: false }
    }
}

#[async_trait]
pub trait Nemesis: Send {
    /// None: there is nothing to strike at now.
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>>;

    /// Undoes it.
    async fn heal(&mut self, stage: &mut Stage) -> Result<()>;
}

pub struct Row {
    pub name: &'static str,
    pub about: &'static str,
    pub needs: &'static [Ability],
    /// Strikes only while no other does, and lets none strike meanwhile: it needs the others' masters, or is slow.
    pub alone: bool,
    /// How long it lasts, in milliseconds, from and to.
    pub lasts: (u64, u64),
    pub make: fn() -> Box<dyn Nemesis>,
}

const fn row(
    name: &'static str,
    about: &'static str,
    needs: &'static [Ability],
    lasts: (u64, u64),
    make: fn() -> Box<dyn Nemesis>,
) -> Row {
    Row { name, about, needs, alone: false, lasts, make }
}

const fn alone(row: Row) -> Row {
    Row { alone: true, ..row }
}

use Ability::{Files, Join, Nodes, OwnEngines, Partitions, Program, Relay, Settings, Shim, SmallDisks};

pub const ALL: &[Row] = &[
    row("kill", "kill -9 of a master", &[], (100, 4_000), || Box::new(kill::Kill::default())),
    row("pause", "SIGSTOP of a master, later SIGCONT", &[], (500, 6_000), || Box::new(pause::Pause::default())),
    row("restart", "a planned stop of a master, and its start", &[], (0, 1_500), || {
        Box::new(restart::Restart::default())
    }),
    row("transfer", "leadership is handed to another master", &[], (0, 500), || Box::new(transfer::Transfer)),
    alone(row("blackout", "kill -9 of all masters", &[], (0, 2_000), || Box::new(blackout::Blackout::default()))),
    row("halves", "a partition into two parts", &[Partitions], (1_000, 8_000), || {
        partition::make(partition::Shape::Halves)
    }),
    row("one-way", "one master's words do not arrive, those of others do", &[Partitions], (1_000, 8_000), || {
        partition::make(partition::Shape::OneWay)
    }),
    row("deaf", "one master hears no other, those hear it", &[Partitions], (1_000, 8_000), || {
        partition::make(partition::Shape::Deaf)
    }),
    row("bridge", "two parts that only one master hears both of", &[Partitions], (1_000, 8_000), || {
        partition::make(partition::Shape::Bridge)
    }),
    row("cut-off", "the leader is cut off from the others", &[Partitions], (1_000, 8_000), || {
        partition::make(partition::Shape::CutOff)
    }),
    row("flapping", "a partition that comes and goes", &[Partitions], (3_000, 12_000), || {
        partition::make(partition::Shape::Flapping)
    }),
    row("loss", "a part of all packets between masters is lost", &[Partitions], (2_000, 10_000), || {
        Box::new(loss::Loss::default())
    }),
    alone(row("delay", "what masters tell each other takes longer", &[Relay], (3_000, 10_000), || {
        Box::new(delay::Delay::default())
    })),
    row("disk-full", "no space is left where a master writes", &[SmallDisks], (2_000, 8_000), || {
        Box::new(disk_full::DiskFull::default())
    }),
    row("slow-disk", "a master's syncs take long", &[Shim], (2_000, 10_000), || {
        Box::new(slow_disk::SlowDisk::default())
    }),
    row("clock", "a master's wall clock jumps", &[Shim], (2_000, 10_000), || Box::new(clock::Clock::default())),
    alone(row(
        "damage",
        "files of a stopped master are cut or changed; it is replaced as the product says",
        &[Files],
        (0, 1_000),
        || Box::new(damage::Damage::default()),
    )),
    alone(row("members", "a master is lost for good, and a new member takes its place", &[Files], (0, 3_000), || {
        Box::new(members::Members::default())
    })),
    alone(row("remove", "a master is taken out of the cluster, and joins anew", &[Join], (0, 3_000), || {
        Box::new(remove::Remove::default())
    })),
    alone(row(
        "restore",
        "all masters are lost, and the cluster begins anew from a snapshot",
        &[Join],
        (0, 1_000),
        || Box::new(restore::Restore::default()),
    )),
    row("snapshot", "the whole cluster is saved to a file, which is verified", &[], (0, 100), || {
        Box::new(snapshot::Snapshot)
    }),
    row("upgrade", "a master is restarted with the program of --upgrade-to", &[Program], (0, 500), || {
        Box::new(upgrade::Upgrade)
    }),
    row("certificates", "a master is away until its certificate has ended", &[Settings], (16_000, 20_000), || {
        Box::new(certificates::Certificates::default())
    }),
    row("node-kill", "a node dies with its pods", &[Nodes], (2_000, 20_000), || {
        Box::new(node_kill::NodeKill::default())
    }),
    row("kubelet", "a node's process is killed or stopped, its containers run on", &[Nodes], (1_000, 15_000), || {
        Box::new(kubelet::Kubelet::default())
    }),
    row("cut-node", "a node is cut off from all masters", &[Nodes, Partitions], (2_000, 20_000), || {
        Box::new(cut_node::CutNode::default())
    }),
    row("docker", "the Docker engine of a node is killed", &[Nodes, OwnEngines], (500, 8_000), || {
        Box::new(docker::Docker::default())
    }),
];

/// # Errors
/// Names the one that is not there.
pub fn find(name: &str) -> Result<&'static Row> {
    match ALL.iter().find(|row| row.name == name) {
        Some(found) => Ok(found),
        None => bail!("there is no nemesis `{name}`; `chaos list` shows them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_times_in_order() {
        let mut names: Vec<&str> = ALL.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|row| row.lasts.0 <= row.lasts.1));
        assert!(find("kill").is_ok() && find("nothing").is_err());
    }
}
