//! The table proposal id → outcome, so that a proposal repeated after a lost leader is answered and not applied twice.
//! It holds the last [`OUTCOMES_MAX`] proposals; the oldest leaves first.

use std::hash::BuildHasherDefault;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use siphasher::sip::SipHasher13;

use crate::{Outcome, ProposalId, State};

/// How many outcomes the state remembers.
pub const OUTCOMES_MAX: usize = 65_536;

/// One new row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The row's number; each is one higher than the one before.
    pub number: u64,
    pub proposal: ProposalId,
    /// The row that had to leave.
    pub evicted: Option<u64>,
}

/// The outcomes in the order they were applied in, under a number that only grows.
pub(crate) type Outcomes = OrdMap<u64, (ProposalId, Arc<Outcome>)>;

/// The number of each proposal. It follows from the outcomes, so it is no part of what a state is: a clone begins without
/// and makes it when it first needs it, which a root for readers never does. Ids are random; in a persistent map each would
/// cost the copy of a path, and in an ordered one a walk through cold memory.
#[derive(Debug, Default)]
pub(crate) struct Numbers(OnceLock<ByProposal>);

/// Hashed alike on every member and in every run: only masters choose ids.
#[expect(clippy::disallowed_types, reason = "it is only looked up in: nothing depends on its order")]
type ByProposal = std::collections::HashMap<ProposalId, u64, BuildHasherDefault<SipHasher13>>;

impl Clone for Numbers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Numbers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Numbers {
    fn of(&self, outcomes: &Outcomes) -> &ByProposal {
        self.0.get_or_init(|| outcomes.iter().map(|(number, (proposal, _))| (*proposal, *number)).collect())
    }

    fn change(&mut self, outcomes: &Outcomes) -> &mut ByProposal {
        self.of(outcomes);
        self.0.get_mut().expect("made in the line above")
    }
}

impl State {
    /// What became of a proposal, if it was applied lately.
    pub fn outcome_of(&self, proposal: ProposalId) -> Option<&Outcome> {
        let number = self.numbers.of(&self.outcomes).get(&proposal)?;
        self.outcomes.get(number).map(|(_, outcome)| outcome.as_ref())
    }

    pub(crate) fn remember(&mut self, proposal: ProposalId, outcome: &Outcome) -> Remembered {
        let number = self.proposals_next;
        self.proposals_next += 1;
        self.enter_outcome(number, proposal, outcome.clone());
        let evicted = (self.outcomes.len() > OUTCOMES_MAX).then(|| number - OUTCOMES_MAX as u64);
        if let Some((oldest, _)) = evicted.and_then(|oldest| self.outcomes.remove(&oldest)) {
            self.numbers.change(&self.outcomes).remove(&oldest);
        }
        Remembered { number, proposal, evicted }
    }

    /// Whether the proposal had no outcome yet.
    pub(crate) fn enter_outcome(&mut self, number: u64, proposal: ProposalId, outcome: Outcome) -> bool {
        let new = self.numbers.change(&self.outcomes).insert(proposal, number).is_none();
        self.outcomes.insert(number, (proposal, Arc::new(outcome)));
        new
    }
}
