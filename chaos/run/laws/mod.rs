//! The laws: what must be true of everything a run saw. One file and one row each; each is tested on histories that are known
//! to be good and known to be bad.
//!
//! A law says how much it judged, since a law that found nothing to judge proves nothing.

mod append;
mod counter;
mod followers;
mod leases;
pub mod pods;
mod registers;
pub mod rest;
mod revisions;
mod set;

use serde::Serialize;

use std::collections::BTreeMap;

use super::history::{Micros, Operation, Record};

/// Broken laws told in full, per law; more are counted.
const TOLD_MAX: usize = 10;

/// What a law says of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// How much there was to judge, in the law's own measure.
    pub checked: usize,
    pub broken: Vec<String>,
    /// What could not be judged to its end: neither good nor bad.
    pub unknown: Vec<String>,
}

pub struct Law {
    pub name: &'static str,
    /// What `checked` counts.
    pub unit: &'static str,
    pub judge: fn(&Record) -> Judged,
}

pub const ALL: &[Law] = &[
    Law { name: "registers are linearizable", unit: "registers", judge: registers::judge },
    Law { name: "no element of a set is lost, none comes from nowhere", unit: "elements", judge: set::judge },
    Law { name: "lists grow at their end, in one order for all", unit: "lists", judge: append::judge },
    Law { name: "counters hold what was added, once", unit: "reads", judge: counter::judge },
    Law { name: "a lock has one holder at a time", unit: "times held", judge: leases::judge },
    Law { name: "followers see every change once and in order", unit: "changes", judge: followers::judge },
    Law { name: "revisions never repeat and follow the order of calls", unit: "writes", judge: revisions::judge },
    Law { name: "a bound pod never moves", unit: "pods", judge: pods::stay },
    Law { name: "no pod runs twice, while faults go on", unit: "looks at engines", judge: pods::once },
    Law { name: "all masters show the same at rest", unit: "masters", judge: rest::views_are_equal },
    Law { name: "desired replicas are reached", unit: "deployments", judge: rest::replicas_are_reached },
    Law { name: "engines run what the API says, once", unit: "containers", judge: rest::no_orphans },
    Law {
        name: "a healed cluster converges",
        unit: "runs",
        judge: |record| Judged { checked: 1, broken: record.found.clone(), ..Judged::default() },
    },
];

/// A law and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub law: &'static str,
    pub checked: usize,
    pub unit: &'static str,
    /// In words; both empty: the law holds.
    pub broken: Vec<String>,
    pub unknown: Vec<String>,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.unknown.is_empty()
    }

    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }
}

/// Of registers alone, for a figure that asks nothing else.
pub use registers::judge as registers;

pub fn judge(record: &Record) -> Vec<Verdict> {
    // Of a register or a list that went back in time only what was before tells something.
    let kept;
    let record = if record.restores.is_empty() {
        record
    } else {
        kept = Record { operations: before_restores(record), ..record.clone() };
        &kept
    };
    ALL.iter()
        .map(|law| {
            let Judged { checked, broken, unknown } = (law.judge)(record);
            Verdict { law: law.name, checked, unit: law.unit, broken: told(broken), unknown: told(unknown) }
        })
        .collect()
}

fn told(mut found: Vec<String>) -> Vec<String> {
    let more = found.len().saturating_sub(TOLD_MAX);
    found.truncate(TOLD_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

/// All operations but those on single objects that were made before the cluster began anew, from then on. Sets are judged
/// across it.
fn before_restores(record: &Record) -> Vec<Operation> {
    let epoch = |at: Micros| record.restores.iter().filter(|restore| restore.lost <= at).count();
    let mut epochs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for one in &record.operations {
        epochs.entry((one.workload, &one.object)).or_insert(epoch(one.begun));
    }
    let own =
        |one: &&Operation| one.workload == "set" || epochs[&(one.workload, one.object.as_str())] == epoch(one.begun);
    record.operations.iter().filter(own).cloned().collect()
}

#[cfg(test)]
mod testing {
    //! Short ways to write histories down.

    use super::super::history::{Call, Operation, Outcome, Record};
    use super::Judged;

    /// An operation of `client` on `object`, from and to these times.
    pub fn did(
        workload: &'static str,
        client: &str,
        object: &str,
        (begun, ended): (u64, u64),
        call: Call,
        outcome: Outcome,
    ) -> Operation {
        let (client, object) = (client.to_owned(), object.to_owned());
        Operation { workload, client, on: "master-1".into(), object, call, begun, ended: Some(ended), outcome }
    }

    pub fn unknown() -> Outcome {
        Outcome::Unknown("lost".into())
    }

    pub fn refused() -> Outcome {
        Outcome::Refused("409".into())
    }

    pub fn failed() -> Outcome {
        Outcome::Failed("503".into())
    }

    pub fn value(text: &str) -> Outcome {
        Outcome::Value((!text.is_empty()).then(|| text.to_owned()), 0)
    }

    /// How many laws of this kind the operations break.
    #[track_caller]
    pub fn check(judge: fn(&Record) -> Judged, operations: Vec<Operation>, broken: usize) {
        let record = Record { operations, ..Record::default() };
        let judged = judge(&record);
        assert_eq!(judged.broken.len(), broken, "{:?} of {:?}", judged.broken, record.operations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_of_before_a_restore_is_judged_up_to_it() {
        use super::super::history::{Call, Outcome, Restore};
        use super::testing::{did, value};
        let operations = vec![
            did("registers", "c", "old", (0, 1), Call::Create("1".into()), Outcome::Done(1)),
            did("registers", "c", "old", (10, 11), Call::Read, value("")),
            did("registers", "c", "new", (12, 13), Call::Create("2".into()), Outcome::Done(9)),
            did("registers", "c", "new", (14, 15), Call::Read, value("")),
        ];
        let mut record = Record { operations, ..Record::default() };
        let broken = |record: &Record| judge(record)[0].broken.len();
        assert_eq!(broken(&record), 2);
        record.restores.push(Restore { saved: 2, lost: 5 });
        assert_eq!(broken(&record), 1, "what is lost after a restore is lost");
    }

    #[test]
    fn many_broken_laws_are_counted() {
        let found = (0..15).map(|number| number.to_string()).collect();
        let record = Record { found, ..Record::default() };
        let verdicts = judge(&record);
        let last = verdicts.last().expect("a verdict");
        assert_eq!((last.broken.len(), last.broken.last().map(String::as_str)), (11, Some("and 5 more")));
        assert!(!last.holds() && verdicts[0].holds());
    }
}
