//! The laws: what must be true of everything a run saw. One file and one row each; each is tested on histories that are known
//! to be good and known to be bad.
//!
//! A law says how much it judged, since a law that found nothing to judge proves nothing.

mod append;
mod claims;
mod counter;
mod followers;
mod leaders;
mod leases;
pub mod objects;
pub mod pods;
mod registers;
pub mod rest;
mod revisions;
mod set;

use serde::Serialize;

use std::collections::BTreeMap;

use super::history::{Intended, Micros, Operation, Record};

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

/// What a law cannot do without; where a run had it, a law that judged nothing is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Always,
    /// A workload of this name.
    Workload(&'static str),
    /// Deployments, and nodes that run their pods.
    Pods,
    Nemeses,
}

impl Feed {
    fn is_in(self, intended: &Intended) -> bool {
        let works = |name: &str| intended.workloads.contains(&name);
        match self {
            Self::Always => true,
            Self::Workload(name) => works(name),
            Self::Pods => works("deployments") && intended.nodes,
            Self::Nemeses => !intended.nemeses.is_empty(),
        }
    }
}

pub struct Law {
    pub name: &'static str,
    pub feed: Feed,
    /// What `checked` counts.
    pub unit: &'static str,
    pub judge: fn(&Record) -> Judged,
}

pub const ALL: &[Law] = &[
    law("registers are linearizable", Feed::Workload("registers"), "registers", registers::judge),
    law("no element of a set is lost, none comes from nowhere", Feed::Workload("set"), "elements", set::judge),
    law("lists grow at their end, in one order for all", Feed::Workload("append"), "lists", append::judge),
    law("counters hold what was added, once", Feed::Workload("counter"), "reads", counter::judge),
    law("a lock has one holder at a time", Feed::Workload("leases"), "times held", leases::judge),
    law("a node port has one holder at a time", Feed::Workload("services"), "times held", claims::judge),
    law("followers see every change once and in order", Feed::Workload("followers"), "changes", followers::judge),
    law("revisions never repeat and follow the order of calls", Feed::Always, "writes", revisions::judge),
    law("one master leads in a term", Feed::Always, "terms", leaders::one_per_term),
    law("a bound pod never moves, an ended one stays so", Feed::Pods, "pods", pods::stay),
    law("no pod runs twice, while faults go on", Feed::Pods, "looks at engines", pods::once),
    law("all masters show the same at rest", Feed::Always, "masters", rest::views_are_equal),
    law("uids and claims are one object's, and what objects name is there", Feed::Always, "objects", objects::judge),
    law("desired replicas are reached", Feed::Workload("deployments"), "deployments", rest::replicas_are_reached),
    law("engines run what the API says, once", Feed::Pods, "containers", rest::no_orphans),
    law("faults came off", Feed::Nemeses, "faults", faults_came_off),
    law("a healed cluster converges", Feed::Always, "runs", |record| Judged {
        checked: 1,
        broken: record.found.clone(),
        ..Judged::default()
    }),
];

const fn law(name: &'static str, feed: Feed, unit: &'static str, judge: fn(&Record) -> Judged) -> Law {
    Law { name, feed, unit, judge }
}

/// A nemesis of which nothing ever came has proved nothing.
fn faults_came_off(record: &Record) -> Judged {
    let mut tries: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for fault in &record.faults {
        let (all, good) = tries.entry(fault.nemesis).or_default();
        *all += 1;
        *good += usize::from(fault.came_off);
    }
    let unknown = tries.iter().filter(|(_, (all, good))| *all > 1 && *good == 0);
    Judged {
        checked: tries.values().map(|(_, good)| good).sum(),
        unknown: unknown.map(|(name, (all, _))| format!("{name} struck {all} times, and nothing came of it")).collect(),
        ..Judged::default()
    }
}

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
            let Judged { checked, broken, mut unknown } = (law.judge)(record);
            if checked == 0 && broken.is_empty() && law.feed.is_in(&record.intended) {
                unknown.push("there was nothing to judge".to_owned());
            }
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
    fn a_law_that_judged_nothing_is_good_only_where_nothing_was_to_come() {
        let names = |record: &Record| -> Vec<&'static str> {
            judge(record).into_iter().filter(|verdict| !verdict.holds()).map(|verdict| verdict.law).collect()
        };
        let mut record = Record::default();
        let always = names(&record);
        assert!(always.contains(&"all masters show the same at rest"), "{always:?}");
        record.intended = Intended { workloads: vec!["deployments"], nemeses: vec!["kill"], nodes: true };
        let more: Vec<&str> = names(&record).into_iter().filter(|law| !always.contains(law)).collect();
        let pods = ["a bound pod never moves, an ended one stays so", "no pod runs twice, while faults go on"];
        let rest = ["desired replicas are reached", "engines run what the API says, once", "faults came off"];
        assert_eq!(more, [&pods[..], &rest[..]].concat());
    }

    #[test]
    fn a_nemesis_that_never_came_off_is_told() {
        use super::super::history::Fault;
        let fault =
            |nemesis, came_off| Fault { nemesis, what: String::new(), begun: 0, ended: None, leader: false, came_off };
        let check = |faults: Vec<Fault>, expected: (usize, usize)| {
            let judged = faults_came_off(&Record { faults, ..Record::default() });
            assert_eq!((judged.checked, judged.unknown.len()), expected);
        };
        check(vec![fault("kill", true), fault("damage", false)], (1, 0));
        check(vec![fault("kill", true), fault("damage", false), fault("damage", false)], (1, 1));
        check(vec![fault("damage", true), fault("damage", false), fault("damage", false)], (1, 0));
    }

    #[test]
    fn many_broken_laws_are_counted() {
        let found = (0..15).map(|number| number.to_string()).collect();
        let record = Record { found, ..Record::default() };
        let verdicts = judge(&record);
        let last = verdicts.last().expect("a verdict");
        assert_eq!((last.broken.len(), last.broken.last().map(String::as_str)), (11, Some("and 5 more")));
        assert!(!last.holds() && verdicts[0].holds(), "no registers were to be judged");
    }
}
