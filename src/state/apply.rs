//! `apply`: the deterministic state machine and the rules that span objects.

use crate::{Applied, Command, EntryId, State};

impl State {
    /// Applies one command of the log entry `entry`. Never panics on input; a refused command changes nothing but the
    /// table of outcomes.
    pub fn apply(&mut self, _entry: EntryId, _command: &Command) -> Applied {
        unimplemented!()
    }
}
