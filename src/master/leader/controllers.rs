//! One loop for all controllers: events name keys, plans are pure, proposals run side by side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use control::controllers::ALL;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use replica::{Error, Term};
use state::{Command, Revision, State};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Leader;
use super::queue::{Item, Queue};

/// How many keys may have proposals under way at once.
const IN_FLIGHT_MAX: usize = 256;
/// How many keys are planned before other tasks of the thread get their turn.
const PLANS_PER_TURN: usize = 16;

/// What came of one key's proposals.
struct Done {
    item: Item,
    again: Option<Duration>,
    failed: bool,
    deposed: bool,
}

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut applied = leader.replica.applied();
    let mut settings = leader.settings.clone();
    let mut queue = Queue::default();
    let mut flights = FuturesUnordered::new();
    let mut position = wake_everything(&leader.replica.root(), &mut queue);

    loop {
        queue.tick(Instant::now());
        let mut planned = 0;
        while flights.len() < IN_FLIGHT_MAX && planned < PLANS_PER_TURN {
            let Some((row, key)) = queue.take() else { break };
            planned += 1;
            let started = Instant::now();
            let (root, mut context) = (leader.replica.root(), leader.context());
            // A plan that panics costs its own key, not the term.
            let plan = catch_unwind(AssertUnwindSafe(|| (ALL[row].plan)(&root, &key, &mut context)));
            drop(root);
            let Ok(plan) = plan else {
                tracing::error!(controller = ALL[row].name, %key, "a plan panicked; planned again later");
                queue.done((row, key), true, None, Instant::now());
                continue;
            };
            metrics::histogram!("hactl_controller_plan_seconds", "controller" => ALL[row].name)
                .record(started.elapsed().as_secs_f64());
            flights.push(carry_out(leader.clone(), term, (row, key), plan.commands, plan.again));
        }
        metrics::gauge!("hactl_controller_queue").set(queue.due() as f64);
        if queue.due() > 0 && flights.len() < IN_FLIGHT_MAX {
            tokio::task::yield_now().await;
        }

        let can_plan = queue.due() > 0 && flights.len() < IN_FLIGHT_MAX;
        let timer = queue.next_timer();
        tokio::select! {
            () = ended.cancelled() => return,
            Some(done) = flights.next() => {
                if done.deposed {
                    return;
                }
                if done.failed {
                    metrics::counter!("hactl_controller_retries_total", "controller" => ALL[done.item.0].name).increment(1);
                }
                queue.done(done.item, done.failed, done.again, Instant::now());
            }
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                wake_everything(&leader.replica.root(), &mut queue);
            }
            () = sleep_until(timer) => {}
            () = std::future::ready(()), if can_plan => {}
        }
        position = wake_changed(&leader.replica.root(), position, &mut queue);
    }
}

/// Sleeps until the time, or for ever without one.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Everything there is to look at; the revision the keys were read at.
fn wake_everything(root: &State, queue: &mut Queue) -> Revision {
    for (row, controller) in ALL.iter().enumerate() {
        for key in (controller.resync)(root) {
            queue.wake((row, key));
        }
    }
    root.revision()
}

/// The keys that the events after `position` concern; the revision looked at.
fn wake_changed(root: &State, position: Revision, queue: &mut Queue) -> Revision {
    let Ok(events) = root.events_after(position) else {
        return wake_everything(root, queue);
    };
    for event in events {
        for (row, controller) in ALL.iter().enumerate() {
            if controller.watches(&event.key.group, &event.key.resource) {
                for key in (controller.keys)(root, event) {
                    queue.wake((row, key));
                }
            }
        }
    }
    root.revision().max(position)
}

/// Proposes a plan's commands side by side, in their order, and waits for every outcome.
async fn carry_out(leader: Leader, term: Term, item: Item, commands: Vec<Command>, again: Option<Duration>) -> Done {
    let name = ALL[item.0].name;
    let outcomes = futures::future::join_all(commands.into_iter().map(|command| leader.propose(term, command))).await;
    let (mut failed, mut deposed) = (false, false);
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => {
                if let Some(refusal) = outcome.refusal {
                    tracing::debug!(controller = name, key = %item.1, ?refusal, "refused; planned again");
                    failed = true;
                }
            }
            Err(Error::Deposed(_)) => deposed = true,
            Err(error) => {
                tracing::warn!(controller = name, key = %item.1, %error, "proposal failed; planned again");
                failed = true;
            }
        }
    }
    Done { item, again, failed, deposed }
}
