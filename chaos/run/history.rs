//! Everything a run saw, with times on one monotonic clock: operations of clients, faults, who led, what followers were
//! told, what pods looked like. Nothing is judged here.
//!
//! **Invariant:** an operation stands in the history before its request is sent, and its end is noted after its answer
//! came; whatever has no certain answer is unknown, and stays so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// Microseconds since the run began.
pub type Micros = u64;

/// A number of the store's order of changes.
pub type Revision = u64;

/// What a client asked. Each value is written by one call only, so that a value says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// One object.
    Read,
    /// All objects of the workload.
    List,
    Create(String),
    Write(String),
    /// Only if it is still the version that held the first value.
    Swap(String, String),
    Delete,
    /// To a counter, if it still holds what the client read.
    Add(i64),
    /// To the end of a list, if it is still what the client read.
    Append(u64),
    Acquire,
    Release,
    /// To so many replicas of the template of this number.
    Scale(u32, u64),
}

impl Call {
    /// Whether it changes something when it is done.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Read | Self::List)
    }
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Of a write: it took this revision.
    Done(Revision),
    /// Of a read: the value and its revision; none: there is no object.
    Value(Option<String>, Revision),
    /// Of a list: names of objects, sorted.
    Names(Vec<String>, Revision),
    /// Its condition did not hold: it did nothing, and that says something about the state.
    Refused(String),
    /// It certainly did nothing.
    Failed(String),
    Unknown(String),
}

impl Outcome {
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Value(..) | Self::Names(..))
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    pub workload: &'static str,
    pub client: String,
    /// The master that was asked.
    pub on: String,
    pub object: String,
    pub call: Call,
    pub begun: Micros,
    /// None: no answer before the end of the run.
    pub ended: Option<Micros>,
    pub outcome: Outcome,
}

impl Operation {
    pub fn is_acknowledged_write(&self) -> bool {
        self.call.is_write() && matches!(self.outcome, Outcome::Done(_))
    }

    /// Whether the outcome leaves open what happened.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    pub fn end(&self) -> Micros {
        self.ended.unwrap_or(Micros::MAX)
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    pub nemesis: &'static str,
    /// In words: to whom, how.
    pub what: String,
    pub begun: Micros,
    /// When it was undone.
    pub ended: Option<Micros>,
    /// Whether the leader of that moment was hit.
    pub leader: bool,
    /// Whether it did anything.
    pub came_off: bool,
}

/// The cluster began anew from a snapshot: what was acknowledged after `saved` may be gone after `lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Restore {
    /// When the snapshot was asked for.
    pub saved: Micros,
    /// When the cluster was lost.
    pub lost: Micros,
}

/// A master's own word about itself; noted when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seat {
    pub at: Micros,
    pub master: String,
    pub answers: bool,
    pub leads: bool,
    pub term: u64,
}

/// A change as a follower was told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub revision: Revision,
    pub object: String,
    /// None: deleted.
    pub value: Option<String>,
}

/// What one follower saw: parts of the history without a hole in them, each from a revision on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Followed {
    pub parts: Vec<Part>,
    /// How often it went to another master.
    pub moves: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Part {
    /// It sees what comes after this revision.
    pub after: Revision,
    /// Up to here it must have seen everything.
    pub until: Revision,
    pub changes: Vec<Change>,
}

/// A pod as some watch showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodSeen {
    pub at: Micros,
    pub uid: String,
    pub name: String,
    pub node: String,
    pub phase: String,
    /// Its deletion was asked for.
    pub ending: bool,
}

/// What API and engines show when all is quiet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rest {
    /// Per master: every object of every resource, with uid and revision.
    pub views: BTreeMap<String, BTreeMap<String, String>>,
    /// What one master shows, one by one.
    pub objects: Vec<Shown>,
    /// Deployments: wanted, and pods that are theirs and as they should be.
    pub replicas: BTreeMap<String, (u64, u64)>,
    /// Pods of the API: uid to name, for those that a node runs.
    pub pods: BTreeMap<String, String>,
    /// Containers of the engines: pod uid and container's name; the sandbox has none. Empty where there is no engine.
    pub containers: Vec<(String, String)>,
    /// Whether there was an engine to look at.
    pub engines: bool,
}

/// An object as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The plural.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Their uids.
    pub owners: Vec<String>,
    /// Of a pod.
    pub node: String,
    /// What nobody else may have, in words.
    pub claims: Vec<String>,
}

impl Shown {
    pub fn name(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.resource, self.namespace, self.name)
    }
}

/// What a run set out to do: a law with nothing to judge is good only where nothing was to come of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Intended {
    pub workloads: Vec<&'static str>,
    pub nemeses: Vec<&'static str>,
    pub nodes: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    pub intended: Intended,
    #[serde(skip)]
    pub operations: Vec<Operation>,
    pub faults: Vec<Fault>,
    pub seats: Vec<Seat>,
    pub restores: Vec<Restore>,
    pub followers: BTreeMap<String, Followed>,
    pub pods: Vec<PodSeen>,
    pub rest: Rest,
    /// How often the engines were looked at while faults went on, and what ran there more than once, in words.
    pub looks: usize,
    pub doubles: Vec<String>,
    /// What the runner itself found broken: a cluster that did not heal, a nemesis' own check.
    pub found: Vec<String>,
    /// When faults could begin and when all were undone.
    pub faults_from: Micros,
    pub healed: Micros,
    pub ended: Micros,
}

pub struct History {
    begun: Instant,
    record: Mutex<Record>,
}

impl Default for History {
    fn default() -> Self {
        Self { begun: Instant::now(), record: Mutex::default() }
    }
}

impl History {
    pub fn now(&self) -> Micros {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins; the number to end it with.
    pub fn begin(&self, workload: &'static str, client: &str, on: &str, object: &str, call: Call) -> usize {
        let mut record = self.record();
        let operation = Operation {
            workload,
            client: client.to_owned(),
            on: on.to_owned(),
            object: object.to_owned(),
            call,
            begun: self.now(),
            ended: None,
            outcome: Outcome::Unknown("the run ended".to_owned()),
        };
        record.operations.push(operation);
        record.operations.len() - 1
    }

    pub fn end(&self, number: usize, outcome: Outcome) {
        let mut record = self.record();
        let now = self.now();
        let operation = &mut record.operations[number];
        (operation.ended, operation.outcome) = (Some(now), outcome);
    }

    pub fn strike(&self, fault: Fault) -> usize {
        let mut record = self.record();
        record.faults.push(fault);
        record.faults.len() - 1
    }

    /// From now on faults may happen, and this is to come of the run.
    pub fn intend(&self, from: Micros, intended: Intended) {
        let mut record = self.record();
        (record.faults_from, record.intended) = (from, intended);
    }

    pub fn undone(&self, fault: usize) {
        let now = self.now();
        self.record().faults[fault].ended = Some(now);
    }

    /// How often the cluster began anew so far; objects of before are left alone.
    pub fn restores(&self) -> usize {
        self.record().restores.len()
    }

    pub fn found(&self, what: String) {
        self.record().found.push(what);
    }

    /// The earliest end of an acknowledged write that was begun after `since`, if any.
    pub fn accepted_after(&self, since: Micros) -> Option<Micros> {
        let record = self.record();
        // Calls stand in the order of their beginnings.
        let from = record.operations.partition_point(|one| one.begun < since);
        record.operations[from..].iter().filter(|one| one.is_acknowledged_write()).filter_map(|one| one.ended).min()
    }

    pub fn acknowledged(&self) -> usize {
        self.record().operations.iter().filter(|one| one.is_acknowledged_write()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_got_no_answer_is_unknown() {
        let history = History::default();
        let first = history.begin("w", "c", "m", "o", Call::Write("1".into()));
        let second = history.begin("w", "c", "m", "o", Call::Read);
        history.end(second, Outcome::Value(None, 1));
        let record = history.record();
        assert!(record.operations[first].is_unknown() && record.operations[first].ended.is_none());
        assert!(record.operations[second].begun >= record.operations[first].begun);
        assert!(record.operations[second].end() >= record.operations[second].begun);
    }
}
