//! What a master does while it leads: every row of `control::controllers::ALL`, the scheduler, node life and the
//! keeping of history, under one cancellation token per term.
//!
//! ```text
//! leadership: leading = Some(term) ──▶ run_term ─┬─ controllers   events ─▶ keys ─▶ plans ─▶ proposals
//!                                                ├─ scheduling    pending pods ─▶ bindings
//!                                                ├─ nodes         silence ─▶ readiness, taints, evictions, Leases
//!                                                └─ history       compaction
//! leading changes ─▶ the token is cancelled and every loop awaited before the next term begins
//! ```
//!
//! **Invariant:** the loops propose only on their own member and stamped with their term, so a deposed leader writes
//! nothing. They keep nothing that a new leader would miss.

mod controllers;
mod history;
mod nodes;
mod queue;
mod scheduling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use control::{Context, Settings};
use replica::{Error, Replica, Term};
use state::{Command, Outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use nodes::Heard;

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
    /// The next seed; every plan takes one.
    pub seed: Arc<AtomicU64>,
}

impl Leader {
    /// The context of one plan.
    fn context(&self) -> Context {
        let seed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Context::new((self.now)(), seed, self.settings.borrow().clone())
    }

    /// Proposes in this term and only here.
    async fn propose(&self, term: Term, mut command: Command) -> Result<Outcome, Error> {
        command.term = term;
        command.time_ms = (self.now)().as_millisecond();
        self.replica.propose_as_leader(term, command).await
    }

    /// Leads whenever this member does, until `shutdown`. Returns when the last loop has ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut leadership = self.replica.leadership();
        loop {
            let leading = tokio::select! {
                () = shutdown.cancelled() => return,
                now = leadership.wait_for(|now| now.leading.is_some()) => match now {
                    Ok(now) => now.leading,
                    Err(_) => return,
                },
            };
            let Some(term) = leading else { continue };
            let ended = shutdown.child_token();
            let mut loops = self.start(term, &ended);
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = leadership.wait_for(|now| now.leading != Some(term)) => {}
                // A loop ends early only when its term is over or it panicked: either way the term ends here.
                Some(result) = loops.join_next() => {
                    if let Err(failed) = result {
                        tracing::error!(term, error = %failed, "a leader loop failed; this term's loops start again");
                    }
                }
            }
            ended.cancel();
            while loops.join_next().await.is_some() {}
            tracing::info!(term, "leader loops ended");
            if !self.still_leads(term) {
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
        self.heard.grant_grace(&self.replica.root());
        let mut loops = JoinSet::new();
        loops.spawn(controllers::run(self.clone(), term, ended.clone()));
        loops.spawn(scheduling::run(self.clone(), term, ended.clone()));
        loops.spawn(nodes::run(self.clone(), term, ended.clone()));
        loops.spawn(history::run(self.clone(), term, ended.clone()));
        loops
    }
}

/// How long a leader waits before it starts its loops again after one of them failed.
const RESTART_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
