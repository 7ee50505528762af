//! What a nemesis works with: the target, what is known of it at the moment, a generator of its own, and who is being
//! tormented already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::clients::Doors;
use super::history::{History, Seat};
use super::targets::{Machine, Target};
use crate::Random;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One look at `/readyz`.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

pub struct Stage {
    pub target: Arc<dyn Target>,
    pub history: Arc<History>,
    pub doors: Doors,
    pub random: Random,
    /// What masters are upgraded to.
    pub upgrade_to: Option<PathBuf>,
    /// Lives of certificates are that short, if they are.
    pub certificate_life: Option<Duration>,
    /// Masters with a file that was damaged since their disks were last new: some damage shows late.
    pub damaged: BTreeSet<String>,
    busy: BTreeSet<String>,
}

/// Whom a fault prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    Follower,
    /// Either, by the seed.
    Any,
}

impl Stage {
    pub fn new(target: Arc<dyn Target>, history: Arc<History>, doors: Doors, random: Random) -> Self {
        let (damaged, busy) = (BTreeSet::new(), BTreeSet::new());
        Self { target, history, doors, random, upgrade_to: None, certificate_life: None, damaged, busy }
    }

    /// Who leads, as far as the masters say.
    pub fn leader(&self) -> Option<String> {
        leader(&self.history.record().seats)
    }

    pub async fn wait_for_leader(&self, within: Duration) -> Result<String> {
        let since = Instant::now();
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            if since.elapsed() > within {
                bail!("nobody leads after {} s", within.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub fn masters(&self) -> Vec<Machine> {
        self.target.masters()
    }

    /// A master that no other fault has, if there is one; it is taken until [`Self::free`].
    pub fn take_master(&mut self, prefer: Prefer) -> Option<String> {
        let leader = self.leader();
        let free: Vec<String> =
            self.masters().into_iter().map(|master| master.name).filter(|name| !self.busy.contains(name)).collect();
        let wants_leader = match prefer {
            Prefer::Follower => false,
            Prefer::Any => self.random.between(0, 2) == 0,
        };
        let chosen = match leader.filter(|leader| free.contains(leader)) {
            Some(leader) if wants_leader => Some(leader),
            leader => {
                let rest: Vec<String> = free.into_iter().filter(|name| Some(name) != leader.as_ref()).collect();
                self.random.pick(&rest).cloned()
            }
        };
        self.busy.extend(chosen.clone());
        chosen
    }

    pub fn take_node(&mut self) -> Option<String> {
        let nodes = self.target.nodes().into_iter().map(|node| node.name);
        let free: Vec<String> = nodes.filter(|name| !self.busy.contains(name)).collect();
        let chosen = self.random.pick(&free).cloned();
        self.busy.extend(chosen.clone());
        chosen
    }

    /// All masters, if no other fault has any of them.
    pub fn take_all_masters(&mut self) -> Option<Vec<String>> {
        let names: Vec<String> = self.masters().into_iter().map(|master| master.name).collect();
        if names.iter().any(|name| self.busy.contains(name)) {
            return None;
        }
        self.busy.extend(names.iter().cloned());
        Some(names)
    }

    /// Masters that no fault has and that do not answer.
    pub fn silent(&self) -> Vec<String> {
        let record = self.history.record();
        let answers = |name: &String| {
            record.seats.iter().rev().find(|seat| seat.master == *name).is_some_and(|seat| seat.answers)
        };
        let free = self.masters().into_iter().map(|master| master.name).filter(|name| !self.busy.contains(name));
        free.filter(|name| !answers(name)).collect()
    }

    pub fn free(&mut self, machine: &str) {
        self.busy.remove(machine);
    }

    /// Names in an order that the seed decides.
    pub fn shuffled(&mut self, mut names: Vec<String>) -> Vec<String> {
        for at in (1..names.len()).rev() {
            let other = self.random.between(0, at as u64 + 1) as usize;
            names.swap(at, other);
        }
        names
    }

    /// Waits until these masters answer `/readyz`.
    pub async fn serve(&self, masters: &[String], within: Duration) -> Result<()> {
        let since = Instant::now();
        for master in masters {
            let Some(door) = self.doors.to(master) else { bail!("there is no master {master}") };
            while let Err(trouble) = door.text("/readyz", LOOK_LIMIT).await {
                if since.elapsed() > within {
                    bail!("{master} does not serve after {} s: {trouble}", within.as_secs());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Whether the cluster counts this master among its members.
    pub async fn is_member(&self, master: &str) -> Result<bool> {
        let status = self.target.hactl(&["cluster", "status", "-o", "json"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(members.iter().any(|member| member["name"] == master))
    }

    /// Waits until all masters serve and vote: one that joined a moment ago is no part of a majority yet.
    pub async fn whole(&self, within: Duration) -> Result<()> {
        let since = Instant::now();
        let names: Vec<String> = self.masters().into_iter().map(|master| master.name).collect();
        self.serve(&names, within).await?;
        loop {
            let status = self.target.hactl(&["cluster", "status", "-o", "json"]).await;
            let voters = status.as_ref().map_or(0, |status| voters(status));
            if voters == names.len() {
                return Ok(());
            }
            if since.elapsed() > within {
                bail!("{voters} of {} masters vote after {} s", names.len(), within.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The master that leads in the highest term, by the latest word of each.
pub fn leader(seats: &[Seat]) -> Option<String> {
    let mut latest: BTreeMap<&str, &Seat> = BTreeMap::new();
    for seat in seats {
        latest.insert(&seat.master, seat);
    }
    let leads = latest.into_values().filter(|seat| seat.answers && seat.leads);
    leads.max_by_key(|seat| seat.term).map(|seat| seat.master.clone())
}

/// How many vote, by `hactl cluster status -o json`; none if a master is known that does not.
fn voters(status: &str) -> usize {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    if members.iter().all(|member| member["voter"] == true) { members.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_is_no_part_of_a_whole_cluster() {
        let two = r#"{"members": [{"voter": true}, {"voter": true}]}"#;
        let learner = r#"{"members": [{"voter": true}, {"voter": true}, {"voter": false}]}"#;
        for (status, expected) in [(two, 2), (learner, 0), ("", 0), ("{}", 0)] {
            assert_eq!(voters(status), expected, "{status}");
        }
    }

    #[test]
    fn the_latest_word_counts() {
        let seat = |at, master: &str, answers, leads, term| Seat { at, master: master.into(), answers, leads, term };
        assert_eq!(leader(&[]), None);
        let both = [seat(1, "a", true, true, 1), seat(2, "b", true, true, 2)];
        assert_eq!(leader(&both).as_deref(), Some("b"));
        let fell = [seat(1, "a", true, true, 1), seat(2, "a", false, false, 0)];
        assert_eq!(leader(&fell), None);
    }
}
