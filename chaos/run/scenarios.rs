//! The table of scenarios: which workloads, which nemeses, how many at once. One row each.

use super::nemeses;
use super::workloads;

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub masters: usize,
    pub nodes: usize,
    pub workloads: &'static [&'static str],
    /// In groups.
    pub nemeses: &'static [&'static [&'static str]],
    /// How many strike at once.
    pub at_once: usize,
}

const STORE: &[&str] = &["registers", "set", "append", "counter", "leases", "services", "followers"];
const EVERYTHING: &[&str] =
    &["registers", "set", "append", "counter", "leases", "services", "followers", "deployments"];

/// What happens between machines.
const NETWORK: &[&str] = &["halves", "one-way", "deaf", "bridge", "cut-off", "flapping", "loss", "delay"];
/// What happens on them. A restore is a scenario of its own: it takes back what was acknowledged. The upgrade strikes where a
/// program is given for it.
const MACHINES: &[&str] = &[
    "kill",
    "pause",
    "restart",
    "transfer",
    "blackout",
    "disk-full",
    "slow-disk",
    "clock",
    "damage",
    "members",
    "remove",
    "snapshot",
    "certificates",
    "upgrade",
    "node-kill",
    "kubelet",
    "docker",
];
/// Between masters and nodes.
const NODES: &[&str] = &["cut-node"];

pub const ALL: &[Scenario] = &[
    Scenario {
        name: "leader-kill",
        about: "masters are killed one at a time, the leader more often than not",
        masters: 3,
        nodes: 0,
        workloads: &["registers", "set", "followers"],
        nemeses: &[&["kill"]],
        at_once: 1,
    },
    Scenario {
        name: "calm",
        about: "no faults: what the cluster does when it is left alone",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[],
        at_once: 1,
    },
    Scenario {
        name: "processes",
        about: "masters are killed, paused, restarted, all at once too, and hand over",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[&["kill", "pause", "restart", "transfer", "blackout", "snapshot"]],
        at_once: 2,
    },
    Scenario {
        name: "partitions",
        about: "partitions of all shapes, lost packets and slow links",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[NETWORK, &["transfer"]],
        at_once: 2,
    },
    Scenario {
        name: "disks",
        about: "full, slow and damaged disks, and machines that lose power",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[&["disk-full", "slow-disk", "damage", "members", "remove", "kill", "blackout"]],
        at_once: 2,
    },
    Scenario {
        name: "restore",
        about: "all masters are lost with their disks, again and again, and the cluster begins anew from a snapshot",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[&["restore", "kill", "snapshot"]],
        at_once: 1,
    },
    Scenario {
        name: "time",
        about: "clocks that jump and certificates that end",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[&["clock", "certificates", "kill", "restart"]],
        at_once: 2,
    },
    Scenario {
        name: "nodes",
        about: "nodes and their engines die while Deployments are scaled and rolled, and leaders with them",
        masters: 3,
        nodes: 2,
        workloads: &["registers", "followers", "deployments"],
        nemeses: &[&["node-kill", "kubelet", "docker", "kill", "transfer"]],
        at_once: 2,
    },
    Scenario {
        name: "upgrade",
        about: "a rolling upgrade to the program of --upgrade-to, while masters are killed",
        masters: 3,
        nodes: 0,
        workloads: STORE,
        nemeses: &[&["upgrade", "kill", "transfer"]],
        at_once: 2,
    },
    Scenario {
        name: "everything-local",
        about: "all that can happen to processes, disks, clocks, certificates, nodes and engines of one machine, at once",
        masters: 3,
        nodes: 2,
        workloads: EVERYTHING,
        nemeses: &[MACHINES],
        at_once: 3,
    },
    Scenario {
        name: "everything",
        about: "all of it, with partitions, lost packets and slow links",
        masters: 3,
        nodes: 2,
        workloads: EVERYTHING,
        nemeses: &[MACHINES, NETWORK, NODES],
        at_once: 3,
    },
];

impl Scenario {
    /// # Errors
    /// Names what is not there.
    pub fn find(name: &str) -> anyhow::Result<&'static Self> {
        match ALL.iter().find(|scenario| scenario.name == name) {
            Some(found) => Ok(found),
            None => anyhow::bail!("there is no scenario `{name}`; `chaos list` shows them"),
        }
    }

    pub fn nemeses(&self) -> anyhow::Result<Vec<&'static nemeses::Row>> {
        self.nemeses.iter().copied().flatten().map(|name| nemeses::find(name)).collect()
    }

    pub fn workloads(&self) -> anyhow::Result<Vec<&'static workloads::Workload>> {
        self.workloads.iter().map(|name| workloads::find(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_what_there_is() {
        for scenario in ALL {
            scenario.nemeses().unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
            scenario.workloads().unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
        }
        assert!(Scenario::find("leader-kill").is_ok() && Scenario::find("nothing").is_err());
    }

    #[test]
    fn every_workload_is_in_some_scenario() {
        for workload in workloads::ALL {
            assert!(ALL.iter().any(|scenario| scenario.workloads.contains(&workload.name)), "{}", workload.name);
        }
    }

    #[test]
    fn every_nemesis_is_in_some_scenario() {
        for row in nemeses::ALL {
            assert!(
                ALL.iter().any(|scenario| scenario.nemeses.iter().any(|group| group.contains(&row.name))),
                "{}",
                row.name
            );
        }
    }
}
