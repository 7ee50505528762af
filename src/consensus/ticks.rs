//! When openraft's clock ticks.
//!
//! It ticks several times per heartbeat, to look whether a heartbeat or an election is due, and in an idle member that would
//! be most of all work. So it ticks only where an election may be near:
//!
//! ```text
//!   leader                                        no ticks; a timer here asks for each heartbeat
//!   follower that heard its leader a moment ago   no ticks; a timer here looks whether it is silent for `quiet`
//!   all others                                    openraft ticks, and elects as it sees fit
//! ```
//!
//! **Invariant:** `quiet` is shorter than the silence after which openraft elects, so an election is never late.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior};

use crate::leadership::Contact;
use crate::types::Raft;

pub struct Ticks {
    pub raft: Raft,
    pub contact: Arc<Contact>,
    pub heartbeat: Duration,
    /// openraft elects after this and a random part more.
    pub quiet: Duration,
}

impl Ticks {
    pub async fn run(self) {
        let mut role = self.raft.server_metrics();
        let mut beats = tokio::time::interval(self.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let leads = role.borrow_and_update().state == ServerState::Leader;
            let heard = self.contact.age().filter(|age| *age < self.quiet);
            self.raft.runtime_config().tick(!leads && heard.is_none());
            let look_again = self.quiet - heard.unwrap_or_default();
            tokio::select! {
                changed = role.changed() => if changed.is_err() { return },
                _ = beats.tick(), if leads => if self.raft.trigger().heartbeat().await.is_err() { return },
                () = tokio::time::sleep_until(Instant::now() + look_again), if !leads => {}
            }
        }
    }
}
