//! What must hold, and what was seen. Some laws are judged as things happen (methods of [`Laws`]), the others at the end
//! over the whole record: one row of [`ALL`] each, one file where they are long.

mod changes;
pub(crate) mod linear;
mod lists;
mod order;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use state::{Revision, State};
use tokio_util::sync::CancellationToken;

use super::trace::Trace;
use super::workloads::registers;
use changes::Changes;

/// Broken laws told in full; more are counted.
const TOLD_MAX: usize = 20;

/// A law of the whole record; the words for each way in which it is broken.
struct Law {
    name: &'static str,
    judge: fn(&Record) -> Vec<String>,
}

const ALL: &[Law] = &[
    Law { name: "what was acknowledged stays", judge: order::acknowledged_stays },
    Law { name: "what certainly failed did nothing", judge: order::failed_did_nothing },
    Law { name: "nothing happens twice", judge: order::nothing_twice },
    Law { name: "revisions follow the order of calls", judge: order::revisions_follow_time },
    Law { name: "an answer is true at its revision", judge: order::answers_are_true },
    Law { name: "a deposed leader writes nothing", judge: order::terms_never_return },
    Law { name: "a follower sees every change once and in order", judge: followers_see_all },
    Law { name: "histories are linearizable", judge: linear::histories_are_linearizable },
    Law { name: "lists are linearizable", judge: lists::lists_are_linearizable },
];

/// One change as a follower saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: Revision,
    /// As [`Operation::name`].
    pub name: String,
    /// `None`: deleted.
    pub value: Option<String>,
    /// Laws of `control::invariants` that the change itself breaks.
    pub broken: Vec<String>,
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Write(String),
    /// Only if there is none.
    Create(String),
    /// Only if it is still the version that held the first value.
    Swap(String, String),
    Delete,
    /// All of a scope at once; see [`is_listed`].
    List,
}

impl Call {
    /// The value that only this call can have written.
    pub fn writes(&self) -> Option<&str> {
        match self {
            Self::Write(value) | Self::Create(value) | Self::Swap(_, value) => Some(value),
            Self::Read | Self::Delete | Self::List => None,
        }
    }
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Value(Option<String>, Revision),
    /// As [`Self::Value`], but nobody says at which revision.
    Saw(Option<String>),
    /// Name and value of each, in order of names.
    All(Vec<(String, String)>, Revision),
    /// It took this revision.
    Done(Revision),
    /// It took effect, and nobody says at which revision.
    Made,
    /// Its condition did not hold, or there was nothing to delete, at this revision.
    Refused(Revision),
    /// As [`Self::Refused`], but nobody says at which revision.
    Declined,
    /// It certainly did nothing.
    Failed,
    Unknown,
}

/// One call of one client. The numbers order all beginnings and ends of all calls.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: String,
    /// What it is about; of a list its scope. `TOPIC/NAME`, or only a name where the topic is the things of the store.
    pub name: String,
    pub call: Call,
    pub begun: u64,
    pub ended: Option<u64>,
    pub answer: Answer,
}

/// Followers see the changes of one topic, which stands before their names as before those of what changes.
fn topic(name: &str) -> &str {
    name.split_once('/').map_or("", |(topic, _)| topic)
}

/// Whether a list of this scope shows what has that name: `configmaps/` shows all of its topic, "" the registers.
fn is_listed(scope: &str, name: &str) -> bool {
    if scope.is_empty() { registers::is_one(name) } else { name.starts_with(scope) }
}

#[derive(Default)]
struct Follower {
    position: Revision,
    rows: Vec<Revision>,
    /// Parts of the history that were compacted before it came there.
    skipped: Vec<(Revision, Revision)>,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Record {
    broken: Vec<String>,
    leaders: BTreeMap<u64, u64>,
    /// By log index: term, revision and hash of the state.
    states: BTreeMap<u64, (u64, Revision, u128)>,
    changes: Changes,
    events: BTreeMap<Revision, Seen>,
    followers: BTreeMap<String, Follower>,
    operations: Vec<Operation>,
    moments: u64,
}

pub struct Laws {
    trace: Arc<Trace>,
    record: Mutex<Record>,
    /// A law is broken: what comes after it says little.
    pub over: CancellationToken,
}

impl Laws {
    pub fn new(trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self { trace, record: Mutex::default(), over: CancellationToken::new() })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn broken(&self, law: &str, what: String) {
        self.break_in(&mut self.record(), law, what);
    }

    fn break_in(&self, record: &mut Record, law: &str, what: String) {
        self.trace.say(format_args!("BROKEN {law}: {what}"));
        record.broken.push(format!("{law}: {what}"));
        self.over.cancel();
    }

    /// A member says that it leads a term.
    pub fn leads(&self, term: u64, id: u64) {
        let mut record = self.record();
        let first = *record.leaders.entry(term).or_insert(id);
        if first != id {
            self.break_in(&mut record, "one leader per term", format!("m{first} and m{id} lead term {term}"));
        }
    }

    /// A state that some member shows.
    pub fn state(&self, root: &State) {
        let (at, here) = (root.applied(), (root.applied().term, root.revision(), root.hash()));
        let mut record = self.record();
        let first = *record.states.entry(at.index).or_insert(here);
        if first != here {
            let what = format!("at entry {}: {first:?} and {here:?}", at.index);
            self.break_in(&mut record, "replicas are equal at equal positions", what);
        }
        for (law, what) in record.changes.follow(root, self.trace.now()) {
            self.break_in(&mut record, law, what);
        }
    }

    /// Where a follower goes on.
    pub fn position(&self, follower: &str) -> Revision {
        self.record().followers.get(follower).map_or(0, |follower| follower.position)
    }

    /// A follower saw these changes and, with them, all up to `position`.
    pub fn followed(&self, follower: &str, rows: Vec<Seen>, position: Revision) {
        let mut record = self.record();
        for seen in rows {
            for broken in &seen.broken {
                self.break_in(&mut record, "a change keeps the invariants", broken.clone());
            }
            let first = record.events.entry(seen.revision).or_insert_with(|| seen.clone()).clone();
            if first != seen {
                let what = format!("{follower} sees {seen:?}, another saw {first:?}");
                self.break_in(&mut record, "a revision is one change", what);
            }
            record.followers.entry(follower.to_owned()).or_default().rows.push(seen.revision);
        }
        record.followers.entry(follower.to_owned()).or_default().position = position;
    }

    pub fn skipped(&self, follower: &str, to: Revision) {
        let mut record = self.record();
        let follower = record.followers.entry(follower.to_owned()).or_default();
        follower.skipped.push((follower.position, to));
        follower.position = to;
    }

    /// A client begins a call; the number to end it with.
    pub fn begin(&self, client: &str, name: &str, call: Call) -> usize {
        let mut record = self.record();
        let begun = record.moments;
        record.moments += 1;
        let (client, name) = (client.to_owned(), name.to_owned());
        record.operations.push(Operation { client, name, call, begun, ended: None, answer: Answer::Unknown });
        record.operations.len() - 1
    }

    pub fn end(&self, operation: usize, answer: Answer) {
        let mut record = self.record();
        let ended = record.moments;
        record.moments += 1;
        let operation = &mut record.operations[operation];
        let (client, name, call) = (&operation.client, &operation.name, &operation.call);
        self.trace.say(format_args!("{client} {name} {call:?}: {answer:?}"));
        (operation.ended, operation.answer) = (Some(ended), answer);
    }

    /// Calls that were acknowledged or refused, and those whose outcome stayed unknown.
    pub fn answered(&self) -> (u64, u64) {
        let record = self.record();
        let unknown = record.operations.iter().filter(|one| one.answer == Answer::Unknown).count() as u64;
        let failed = record.operations.iter().filter(|one| one.answer == Answer::Failed).count() as u64;
        (record.operations.len() as u64 - unknown - failed, unknown)
    }

    /// Judges the whole record, unless a law was broken before it was whole; all that is broken, in words.
    pub fn judge(&self) -> Vec<String> {
        let mut record = self.record();
        for law in ALL.iter().filter(|_| !self.over.is_cancelled()) {
            for what in (law.judge)(&record) {
                record.broken.push(format!("{}: {what}", law.name));
            }
        }
        let more = record.broken.len().saturating_sub(TOLD_MAX);
        let mut told: Vec<String> = record.broken.iter().take(TOLD_MAX).cloned().collect();
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }
}

fn followers_see_all(record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    for (name, follower) in &record.followers {
        let skipped = |revision: &Revision| follower.skipped.iter().any(|(from, to)| revision > from && revision <= to);
        let expected: Vec<Revision> = record
            .events
            .range(..=follower.position)
            .filter(|(_, seen)| topic(&seen.name) == topic(name))
            .map(|(revision, _)| *revision)
            .filter(|at| !skipped(at))
            .collect();
        if follower.rows != expected {
            let at = follower.rows.iter().zip(&expected).take_while(|(one, other)| one == other).count();
            let (saw, should) = (follower.rows.get(at), expected.get(at));
            found.push(format!("{name}: after {at} changes it saw revision {saw:?}, others {should:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests;
