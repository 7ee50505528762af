//! The laws, as checks of one state or of a change; used by tests, simulation and chaos.

use state::{Event, State};

/// One broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub law: &'static str,
    pub what: String,
}

/// The laws that hold in every state.
pub fn check(_root: &State) -> Vec<Violation> {
    Vec::new()
}

/// The laws that hold once nothing is left to plan and all nodes are alive.
pub fn check_quiescent(_root: &State) -> Vec<Violation> {
    Vec::new()
}

/// The laws of one change: a bound pod never moves, a uid never changes under a key …
pub fn check_event(_event: &Event) -> Vec<Violation> {
    Vec::new()
}
