//! The scheduler's loop: every pending pod of one root is placed in one pass, and its bindings are proposed side by side.

use std::time::Duration;

use control::scheduler::{Decision, Scheduler};
use replica::{Error, Term};
use state::{Revision, State};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Leader, guarded};

/// How long after a refused or failed binding the pass is run again though nothing changed.
const RETRY: Duration = Duration::from_millis(50);
/// How long after a pass that a bug broke off.
const BROKEN: Duration = Duration::from_secs(1);

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut applied = leader.replica.applied();
    let mut scheduler = Scheduler::default();
    let mut position = None;

    loop {
        let root = leader.replica.root();
        let mut retry = false;
        if position.is_none_or(|position| concerns_us(&root, position)) {
            let started = Instant::now();
            let Some(placements) =
                guarded("scheduler", "all pods that wait", || scheduler.plan(&root, &mut leader.context()))
            else {
                // What it had derived may be half made.
                scheduler = Scheduler::default();
                position = None;
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = tokio::time::sleep(BROKEN) => continue,
                }
            };
            metrics::histogram!("hactl_scheduler_pass_seconds").record(started.elapsed().as_secs_f64());
            let bound = placements.iter().filter(|p| matches!(p.decision, Decision::Bind(_))).count();
            metrics::counter!("hactl_scheduler_bindings_total").increment(bound as u64);
            metrics::gauge!("hactl_scheduler_unschedulable_pods").set((placements.len() - bound) as f64);
            let commands = placements.into_iter().flat_map(|placement| placement.commands);
            for outcome in futures::future::join_all(commands.map(|command| leader.propose(term, command))).await {
                match outcome {
                    Ok(outcome) => retry |= outcome.refusal.is_some(),
                    Err(Error::Deposed(_)) => return,
                    Err(error) => {
                        tracing::warn!(%error, "binding failed; planned again");
                        retry = true;
                    }
                }
            }
        }
        position = (!retry).then(|| root.revision());
        drop(root);

        tokio::select! {
            () = ended.cancelled() => return,
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

/// Whether anything after `position` can change a placement.
fn concerns_us(root: &State, position: Revision) -> bool {
    root.events_after(position).map_or(true, |mut events| {
        events.any(|event| event.key.group.is_empty() && matches!(event.key.resource.as_str(), "pods" | "nodes"))
    })
}
