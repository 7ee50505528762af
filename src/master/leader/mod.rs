//! What a master does while it leads: every row of `control::controllers::ALL`, the scheduler, node life and the
//! keeping of history, under one cancellation token per term.
//!
//! ```text
//! leadership: leading = Some(term) ──▶ run_term ─┬─ controllers   events ─▶ keys ─▶ plans ─▶ proposals
//!                                                ├─ scheduling    pending pods ─▶ bindings
//!                                                ├─ nodes         silence ─▶ readiness, taints, evictions, Leases
//!                                                ├─ history       compaction
//!                                                └─ quota         the bound on the store, put into the state
//! leading changes ─▶ the token is cancelled and every loop awaited before the next term begins
//! ```
//!
//! **Invariant:** the loops propose only on their own member and stamped with their term, so a deposed leader writes
//! nothing. They keep nothing that a new leader would miss.

mod controllers;
mod history;
mod nodes;
mod queue;
mod quota;
mod scheduling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use control::controllers::ALL;
use control::{Context, Seeds, Settings};
use replica::{Error, Replica, Term};
use state::{Command, Outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use nodes::Heard;

use crate::StoreBounds;

/// What the leader loops are given. Cloned into each loop.
#[derive(Clone)]
pub struct Leader {
    pub replica: Replica,
    /// The operator's choices and the masters' addresses; a change makes every controller look again.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// When each node was last heard from, by any master.
    pub heard: Heard,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
    /// Every plan takes one.
    pub seeds: Arc<Seeds>,
    pub bounds: StoreBounds,
}

impl Leader {
    /// The context of one plan.
    fn context(&self) -> Context {
        Context::new((self.now)(), self.seeds.draw(), self.settings.borrow().clone())
    }

    /// Proposes in this term and only here. A command whose outcome is unknown may still be applied: the answer waits
    /// until it has been or never will be, so that nobody plans the same again meanwhile.
    async fn propose(&self, term: Term, mut command: Command) -> Result<Outcome, Error> {
        command.term = term;
        command.time_ms = (self.now)().as_millisecond();
        match self.replica.propose_as_leader(term, command).await {
            Err(error) if state::mutants::is_chosen("doubled-pod") => Err(error),
            Err(Error::Unknown(why)) if self.settled(term).await => Err(Error::Unknown(why)),
            Err(Error::Unknown(_)) => Err(Error::Deposed(term)),
            outcome => outcome,
        }
    }

    /// Waits until all that this term has proposed so far is in the root or never will be: an empty command stands behind
    /// it in the log. False when the term is over.
    async fn settled(&self, term: Term) -> bool {
        loop {
            match self.replica.propose_as_leader(term, Command::default()).await {
                Ok(_) => return true,
                Err(Error::Deposed(_)) => return false,
                Err(error) => tracing::debug!(term, %error, "waiting for what was proposed before"),
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Leads whenever this member does, until `shutdown`. Returns when the last loop has ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut leadership = self.replica.leadership();
        let mut led = None;
        let mut lapsed = None;
        loop {
            let leading = tokio::select! {
                () = shutdown.cancelled() => return,
                now = leadership.wait_for(|now| now.leading.is_some()) => match now {
                    Ok(now) => now.leading,
                    Err(_) => return,
                },
            };
            let Some(term) = leading else { continue };
            // A lease that lapsed and came back goes on in its term: what the loops proposed before may be under way yet.
            if led == Some(term) && !state::mutants::is_chosen("doubled-pod") {
                let settled = tokio::select! {
                    () = shutdown.cancelled() => return,
                    settled = self.settled(term) => settled,
                };
                if !settled {
                    continue;
                }
            }
            // A new leader has heard nobody. One whose lease lapsed has, or every lapse would put off again what is due.
            match lapsed.take().filter(|_| led == Some(term)) {
                Some(since) => self.heard.forgive(Instant::now().saturating_duration_since(since)),
                None if led == Some(term) => {}
                None => self.heard.grant_grace(&self.replica.root()),
            }
            led = Some(term);
            let ended = shutdown.child_token();
            let mut loops = self.start(term, &ended);
            let failed = tokio::select! {
                () = shutdown.cancelled() => false,
                _ = leadership.wait_for(|now| now.leading != Some(term)) => false,
                // A loop ends early only when its term is over or it panicked: either way the term ends here.
                Some(result) = loops.join_next() => {
                    if let Err(failed) = result {
                        tracing::error!(term, error = %failed, "a leader loop failed; this term's loops start again");
                    }
                    true
                }
            };
            let over = Instant::now();
            ended.cancel();
            // Without a quorum a proposal may be waited for a long time: nobody needs its outcome any more.
            loops.shutdown().await;
            tracing::info!(term, "leader loops ended");
            if !failed || !self.still_leads(term) {
                lapsed = Some(over);
                continue;
            }
            // The term goes on after a failure: a short pause keeps a failing loop from spinning.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    fn still_leads(&self, term: Term) -> bool {
        self.replica.leadership().borrow().leading == Some(term)
    }

    fn start(&self, term: Term, ended: &CancellationToken) -> JoinSet<()> {
        tracing::info!(term, revision = self.replica.root().revision(), "leading: starting controllers and scheduler");
        let mut loops = JoinSet::new();
        loops.spawn(controllers::run(ALL, self.clone(), term, ended.clone()));
        loops.spawn(scheduling::run(self.clone(), term, ended.clone()));
        loops.spawn(nodes::run(self.clone(), term, ended.clone()));
        loops.spawn(history::run(self.clone(), term, ended.clone()));
        loops.spawn(quota::run(self.clone(), term, ended.clone()));
        loops
    }
}

/// What a decision says, unless a bug breaks it off: then that is logged with what it was about, and counted, and costs
/// nothing else.
fn guarded<T>(of: &'static str, about: impl std::fmt::Display, decide: impl FnOnce() -> T) -> Option<T> {
    let said = catch_unwind(AssertUnwindSafe(decide)).ok();
    if said.is_none() {
        tracing::error!(of, %about, "a decision panicked, the lines above say where; it is tried again later");
        metrics::counter!("hactl_leader_panics_total", "of" => of).increment(1);
    }
    said
}

/// How long a leader waits before it starts its loops again after one of them failed.
const RESTART_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
/// Between two tries to get a command behind those whose outcome is unknown.
const SETTLE_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use replica::memory;
    use state::State;

    use super::*;

    pub fn leader(replica: Replica) -> Leader {
        Leader {
            replica,
            settings: watch::channel(Arc::new(Settings::default())).1,
            heard: Heard::default(),
            now: Arc::new(|| jiff::Timestamp::UNIX_EPOCH),
            seeds: Arc::new(Seeds::new(1)),
            bounds: StoreBounds::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_comes_back_first_waits_for_what_it_proposed_before() {
        let (replica, controls) = memory::start_controlled(State::default());
        let leader = leader(replica.clone());
        let before = replica.root().applied().index;
        assert!(leader.settled(1).await);
        assert_eq!(replica.root().applied().index, before + 1, "one entry behind all others");
        assert_eq!(replica.root().revision(), 0, "which changes nothing");
        controls.depose();
        assert!(!leader.settled(1).await);
        controls.lead(2);
        assert!(!leader.settled(1).await);
        assert!(leader.settled(2).await);
    }
}
