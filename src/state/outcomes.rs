//! The table proposal id → outcome, so that a proposal repeated after a lost leader is answered and not applied twice.
//! It holds the last [`OUTCOMES_MAX`] proposals; the oldest leaves first.

use std::sync::Arc;

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

impl State {
    /// What became of a proposal, if it was applied lately.
    pub fn outcome_of(&self, proposal: ProposalId) -> Option<&Outcome> {
        let number = self.proposals.get(&proposal)?;
        self.outcomes.get(number).map(|(_, outcome)| outcome.as_ref())
    }

    pub(crate) fn remember(&mut self, proposal: ProposalId, outcome: &Outcome) -> Remembered {
        let number = self.proposals_next;
        self.proposals_next += 1;
        self.outcomes.insert(number, (proposal, Arc::new(outcome.clone())));
        self.proposals.insert(proposal, number);
        let evicted = (self.outcomes.len() > OUTCOMES_MAX).then(|| number - OUTCOMES_MAX as u64);
        if let Some((oldest, _)) = evicted.and_then(|oldest| self.outcomes.remove(&oldest)) {
            self.proposals.remove(&oldest);
        }
        Remembered { number, proposal, evicted }
    }
}
