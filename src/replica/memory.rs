//! A replica of one member that stores nothing: for the tests of every crate above this one.
//!
//! A proposal is applied at once, in the entry after the last, and published as `consensus` does it: root, then applied
//! revision, then the hub. [`Controls`] take leadership away and hold proposals up. Fresh proposal ids are counted, not
//! drawn, so a test repeats exactly.
//!
//! **Invariant:** leads term 1 from the start, unless told otherwise.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use state::{Command, EntryId, Outcome, ProposalId, Revision, State};
use tokio::sync::watch;

use crate::hub::Hub;
use crate::{Backend, Error, Leadership, MemberId, Replica, Term};

/// The id of the only member.
pub const MEMBER: MemberId = 1;

/// A member with an empty state.
pub fn start() -> Replica {
    start_with(State::default())
}

/// A member that begins with `state`.
pub fn start_with(state: State) -> Replica {
    start_controlled(state).0
}

/// A member and what a test may do to it.
pub fn start_controlled(state: State) -> (Replica, Controls) {
    let term = state.applied().term.max(1);
    let memory = Arc::new(Memory {
        hub: Hub::new(),
        applied: watch::Sender::new(state.revision()),
        root: ArcSwap::from_pointee(state.clone()),
        writer: Mutex::new(Writer { state, fresh: 0 }),
        leadership: watch::Sender::new(led_by(Some(term), term)),
        paused: watch::Sender::new(false),
    });
    (Replica::new(memory.clone()), Controls(memory))
}

/// What a test may do to a member in memory.
#[derive(Clone)]
pub struct Controls(Arc<Memory>);

impl Controls {
    /// From now on this member leads `term`.
    pub fn lead(&self, term: Term) {
        self.0.leadership.send_replace(led_by(Some(term), term));
    }

    /// From now on nobody is known to lead: proposals and reads are refused as unavailable.
    pub fn depose(&self) {
        self.0.leadership.send_modify(|leadership| *leadership = led_by(None, leadership.term));
    }

    /// From now on proposals and reads wait.
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Lets go what [`Self::pause`] holds up.
    pub fn resume(&self) {
        self.0.paused.send_replace(false);
    }
}

fn led_by(leading: Option<Term>, term: Term) -> Leadership {
    Leadership { leader: leading.map(|_| MEMBER), term, leading, serving: leading.is_some() }
}

struct Memory {
    hub: Hub,
    root: ArcSwap<State>,
    applied: watch::Sender<Revision>,
    /// Held by whoever changes the root.
    writer: Mutex<Writer>,
    leadership: watch::Sender<Leadership>,
    paused: watch::Sender<bool>,
}

struct Writer {
    /// The newest root is a clone of it.
    state: State,
    /// Counts fresh proposal ids.
    fresh: ProposalId,
}

impl Memory {
    async fn not_paused(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    fn term(&self) -> Result<Term, Error> {
        self.leadership.borrow().leading.ok_or_else(|| Error::Unavailable("no leader".into()))
    }

    fn apply(&self, term: Term, mut command: Command) -> Outcome {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { state, fresh } = &mut *writer;
        if command.proposal.is_empty() {
            *fresh += 1;
            while state.outcome_of(*fresh).is_some() {
                *fresh += 1;
            }
            command.proposal = Bytes::copy_from_slice(&fresh.to_be_bytes());
        }
        let entry = EntryId { term, index: state.applied().index + 1 };
        let applied = state.apply(entry, &command);
        let revision = state.revision();
        self.root.store(Arc::new(state.clone()));
        self.applied.send_replace(revision);
        self.hub.publish(&applied.events);
        applied.outcome
    }
}

#[async_trait::async_trait]
impl Backend for Memory {
    async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        self.not_paused().await;
        Ok(self.apply(self.term()?, command))
    }

    async fn propose_as_leader(&self, term: Term, mut command: Command) -> Result<Outcome, Error> {
        self.not_paused().await;
        if self.leadership.borrow().leading != Some(term) {
            return Err(Error::Deposed(term));
        }
        command.term = term;
        Ok(self.apply(term, command))
    }

    async fn read(&self) -> Result<Arc<State>, Error> {
        self.not_paused().await;
        self.term()?;
        Ok(self.root())
    }

    fn root(&self) -> Arc<State> {
        self.root.load_full()
    }

    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}
