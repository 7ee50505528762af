//! Who leads, as a watch: computed from openraft's metrics whenever they change and when a lease runs out.
//!
//! openraft keeps the role of a leader that was cut off; here it counts only while a quorum has acknowledged it within the
//! lease, and only once its own state has applied an entry of its term.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, RaftMetrics, ServerState};
use replica::Leadership;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::state_machine::Published;
use crate::types::{Raft, Types};

/// A master that has not confirmed a leader for this long serves only health and its own status.
const SERVING: Duration = Duration::from_secs(10);
/// When there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// When a follower last heard a leader it accepts.
pub struct Contact {
    since: Instant,
    /// Milliseconds after `since`, plus one; 0: never.
    heard: AtomicU64,
    lapsed: AtomicBool,
    returned: Notify,
}

impl Contact {
    pub fn new() -> Self {
        Self { since: Instant::now(), heard: AtomicU64::new(0), lapsed: AtomicBool::new(true), returned: Notify::new() }
    }

    pub fn note(&self) {
        let now = self.since.elapsed().as_millis() as u64 + 1;
        self.heard.store(now, Ordering::Relaxed);
        if self.lapsed.load(Ordering::Relaxed) && self.lapsed.swap(false, Ordering::Relaxed) {
            self.returned.notify_one();
        }
    }

    /// Something else changed that leadership depends on.
    pub fn look_again(&self) {
        self.returned.notify_one();
    }

    /// How long ago.
    pub fn age(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.since.elapsed().saturating_sub(Duration::from_millis(heard)))
    }
}

/// Returns when this member no longer takes `leader` for the leader.
pub async fn no_longer_leads(raft: &Raft, leader: u64) {
    // An error means that this member stops, which ends the wait too.
    let _ = raft.metrics().wait_until(|metrics| metrics.current_leader != Some(leader)).await;
}

pub struct Watcher {
    pub id: u64,
    pub raft: Raft,
    pub contact: Arc<Contact>,
    pub published: Arc<Published>,
    pub lease: Duration,
    /// The last log index at start: at least this much must be known as committed and applied before serving.
    pub last_at_start: Option<u64>,
    pub out: Arc<watch::Sender<Leadership>>,
}

impl Watcher {
    pub async fn run(self) {
        let mut metrics = self.raft.metrics();
        let mut recovered = None;
        // One timer that is moved: with every heartbeat a new one would wake the timer driver.
        let sleep = tokio::time::sleep(IDLE);
        tokio::pin!(sleep);
        loop {
            let wake = {
                let metrics = metrics.borrow_and_update();
                self.evaluate(&metrics, &mut recovered)
            };
            sleep.as_mut().reset(Instant::now() + wake);
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                () = self.contact.returned.notified() => {}
                () = &mut sleep => {}
            }
        }
        self.out.send_if_modified(|seen| {
            let over = Leadership { term: seen.term, ..Leadership::default() };
            std::mem::replace(seen, over.clone()) != over
        });
    }

    /// Publishes what holds now; how long it holds if nothing happens.
    fn evaluate(&self, metrics: &RaftMetrics<Types>, recovered: &mut Option<Recovery>) -> Duration {
        let acked = self.quorum_acked(metrics);
        let leads = metrics.running_state.is_ok()
            && metrics.state == ServerState::Leader
            && metrics.vote.committed
            && metrics.vote.leader_id.voted_for == self.id
            && metrics.vote.leader_id.term == metrics.current_term;
        let applied_own = metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term);
        let leading =
            (leads && applied_own && acked.is_some_and(|age| age < self.lease)).then_some(metrics.current_term);

        let heard = if leads { acked } else { self.contact.age() };
        let confirmed = metrics.running_state.is_ok() && heard.is_some_and(|age| age < SERVING);
        if !confirmed && !leads {
            self.contact.lapsed.store(true, Ordering::Relaxed);
        }
        self.recover(metrics, recovered);
        let done = matches!(recovered, Some(Recovery::Done)) || leading.is_some();
        // A member whose state differs from the others' does nothing with it, whatever its role.
        let trusted = self.published.quarantined.get().is_none();
        let leading = leading.filter(|_| trusted);
        let now = Leadership {
            leader: metrics.current_leader.filter(|_| metrics.running_state.is_ok()),
            term: metrics.current_term,
            leading,
            serving: confirmed && done && trusted,
        };
        self.out.send_if_modified(|seen| {
            if *seen == now {
                return false;
            }
            tracing::info!(leader = ?now.leader, term = now.term, leading = ?now.leading, serving = now.serving, "leadership");
            metrics::gauge!("hactl_raft_term").set(now.term as f64);
            metrics::gauge!("hactl_raft_has_leader").set(f64::from(u8::from(now.leader.is_some())));
            if now.leader.is_some() && now.leader != seen.leader {
                metrics::counter!("hactl_raft_leader_changes_total").increment(1);
            }
            metrics::gauge!("hactl_raft_is_leader").set(f64::from(u8::from(now.leading.is_some())));
            *seen = now.clone();
            true
        });
        let left = |age: Option<Duration>, limit: Duration| {
            age.and_then(|age| limit.checked_sub(age)).filter(|left| !left.is_zero())
        };
        let lease = if leads { left(acked, self.lease) } else { None };
        let serving = left(heard, SERVING);
        // A millisecond more, so that the limit has passed when we look again.
        lease.into_iter().chain(serving).min().map_or(IDLE, |wait| wait + Duration::from_millis(1))
    }

    /// How long ago a quorum acknowledged this leader.
    fn quorum_acked(&self, metrics: &RaftMetrics<Types>) -> Option<Duration> {
        let mut voters = metrics.membership_config.voter_ids();
        if voters.next() == Some(self.id) && voters.next().is_none() {
            return Some(Duration::ZERO);
        }
        metrics.last_quorum_acked.map(|instant| instant.elapsed())
    }

    /// openraft's `cluster_committed` is never one restored from disk, so the first that covers the log of the start names
    /// what must be applied.
    fn recover(&self, metrics: &RaftMetrics<Types>, recovered: &mut Option<Recovery>) {
        let committed = metrics.cluster_committed.map(|id| id.index);
        // A tail that a new leader replaced was never committed.
        let tail = self.last_at_start.min(metrics.last_log_index);
        if recovered.is_none()
            && let Some(committed) = committed
            && Some(committed) >= tail
        {
            *recovered = Some(Recovery::Until(committed));
        }
        if let Some(Recovery::Until(index)) = recovered
            && metrics.last_applied.is_some_and(|id| id.index >= *index)
        {
            *recovered = Some(Recovery::Done);
        }
    }
}

enum Recovery {
    /// The state must contain this entry.
    Until(u64),
    Done,
}
