//! Automatic snapshots: the leader saves one every so often, and keeps the newest of its own.
//!
//! ```text
//!   leading ─▶ due? ─▶ note the try (fenced by the term) ─▶ save ─▶ note it ─▶ remove the oldest beyond `snapshot-keep`
//! ```
//!
//! When a snapshot was saved stands in the replicated state, so that a new leader goes on where the one before ended.
//!
//! **Invariant:** only a leader that could note its try saves, so there is at most one at a time; only files with this
//! cluster's automatic names are ever removed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replica::Term;
use tokio_util::sync::CancellationToken;

use super::target::Target;
use crate::Error;
use crate::records::{self, AutomaticSnapshot};
use crate::service::{Shared, snapshots::Material};

/// How long after one that failed, or broke off, the next is tried.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether one is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_secs(1);

/// What the settings say.
#[derive(Clone, Debug)]
pub struct Plan {
    pub every: Duration,
    /// How many stay.
    pub keep: usize,
    pub target: Target,
}

/// What the status shows of the last try here; nothing is wrong when it is empty.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub fn now(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, what: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

/// Runs until `shutdown`; does something while this member leads.
pub async fn run(shared: Arc<Shared>, plan: Plan, shutdown: CancellationToken) {
    let mut leadership = shared.replica.leadership();
    loop {
        let leading = leadership.borrow_and_update().leading;
        let wait = match leading {
            None => {
                // Whoever leads now says what is wrong.
                shared.trouble.set(None);
                Duration::MAX
            }
            Some(_) => due(records::automatic_snapshot(&shared.replica.root()), shared.unix(), plan.every),
        };
        if let (Some(term), true) = (leading, wait.is_zero()) {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = attempt(&shared, &plan, term) => {}
            }
            // Should even the try not have been noted.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait.min(LOOK_EVERY)) => {}
        }
    }
}

/// How long until the next.
fn due(last: Option<AutomaticSnapshot>, now: i64, every: Duration) -> Duration {
    let Some(last) = last else { return Duration::ZERO };
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let retry = last.tried.saturating_add(seconds(RETRY_AFTER.min(every)));
    let regular = last.saved.saturating_add(seconds(every));
    // The clock of another master, or this one's before it was set, may have been ahead.
    let next = regular.max(retry).min(now.saturating_add(seconds(every)));
    Duration::from_secs(u64::try_from(next.saturating_sub(now)).unwrap_or(0))
}

async fn attempt(shared: &Shared, plan: &Plan, term: Term) {
    match save(shared, plan, term).await {
        Ok(Some(name)) => {
            tracing::info!(name, to = %plan.target, "automatic snapshot saved");
            metrics::counter!("hactl_snapshots_total", "result" => "saved").increment(1);
            metrics::gauge!("hactl_snapshot_last_saved_seconds").set(shared.unix() as f64);
            let kept = thin_out(plan, &shared.config.cluster_id).await;
            shared
                .trouble
                .set(kept.err().map(|error| format!("cannot remove old snapshots from {}: {error}", plan.target)));
        }
        // Another one leads, or there is none: no failure of a snapshot.
        Ok(None) => {}
        Err(error) => {
            tracing::error!(to = %plan.target, %error, "automatic snapshot not saved");
            metrics::counter!("hactl_snapshots_total", "result" => "failed").increment(1);
            shared.trouble.set(Some(format!("cannot save automatic snapshots to {}: {error}", plan.target)));
        }
    }
}

/// The name of what was saved; none when this member does not lead any more.
async fn save(shared: &Shared, plan: &Plan, term: Term) -> Result<Option<String>, Error> {
    let refused = |status: tonic::Status| Error::Refused(status.message().to_owned());
    let before = records::automatic_snapshot(&shared.replica.root()).unwrap_or_default();
    let tried = AutomaticSnapshot { tried: shared.unix(), ..before };
    if !records::note_automatic_snapshot(&shared.replica, term, &tried, shared.now()).await.map_err(refused)? {
        return Ok(None);
    }
    let material = Material::gather(shared).await.map_err(refused)?;
    let (name, created) = (name(&shared.config.cluster_id, material.header.created), material.header.created);
    plan.target.put(&name, material).await?;
    let saved = AutomaticSnapshot { saved: created, name: name.clone(), ..tried };
    // A leader deposed meanwhile has saved one more than was due, which harms nobody.
    records::note_automatic_snapshot(&shared.replica, term, &saved, shared.now()).await.map_err(refused)?;
    Ok(Some(name))
}

fn prefix(cluster_id: &str) -> String {
    format!("hactl-auto-{cluster_id}-")
}

fn name(cluster_id: &str, created: i64) -> String {
    format!("{}{}.snapshot", prefix(cluster_id), super::compact_time(created))
}

/// Those of `names` that are to be removed: automatic ones of this cluster, but for the newest `keep`.
fn superfluous(mut names: Vec<String>, cluster_id: &str, keep: usize) -> Vec<String> {
    let prefix = prefix(cluster_id);
    names.retain(|name| {
        let time = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".snapshot"));
        time.is_some_and(|time| {
            time.len() == 16 && time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b'Z'))
        })
    });
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(keep));
    names
}

async fn thin_out(plan: &Plan, cluster_id: &str) -> Result<(), Error> {
    for name in superfluous(plan.target.names().await?, cluster_id, plan.keep) {
        plan.target.remove(&name).await?;
        tracing::info!(name, "old automatic snapshot removed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_old_ones_are_superfluous() {
        let own = |time: &str| format!("hactl-auto-c-1-{time}.snapshot");
        let kept = ["20260102T000000Z", "20260103T000000Z"].map(own);
        let old = own("20260101T000000Z");
        let foreign = [
            "hactl-auto-c-2-20250101T000000Z.snapshot",
            "hactl-c-1-20250101T000000Z.snapshot",
            "hactl-auto-c-1-20250101T000000Z.snapshot.mine",
            "hactl-auto-c-1-holiday.snapshot",
            "photos",
        ];
        let mut names: Vec<String> = foreign.iter().map(ToString::to_string).collect();
        names.extend([kept[1].clone(), old.clone(), kept[0].clone()]);
        assert_eq!(superfluous(names.clone(), "c-1", 2), [old]);
        assert_eq!(superfluous(names, "c-1", 9), [""; 0]);
    }

    #[test]
    fn when_the_next_is_due() {
        let hour = Duration::from_secs(3600);
        let last = |tried, saved| Some(AutomaticSnapshot { tried, saved, ..Default::default() });
        for (last, now, expected) in [
            (None, 1_000_000, 0),
            (last(1_000_000, 1_000_000), 1_000_000, 3600),
            (last(1_000_000, 1_000_000), 1_003_600, 0),
            (last(1_003_600, 1_000_000), 1_003_610, 50),
            (last(1_000_010, 0), 1_000_020, 50),
            (last(9_000_000, 9_000_000), 1_000_000, 3600),
        ] {
            assert_eq!(due(last, now, hour).as_secs(), expected, "at {now}");
        }
    }
}
