//! One loop for all controllers: events name keys, plans are pure, proposals run side by side.

use std::time::Duration;

use control::Row;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use replica::{Error, Term};
use state::{Command, Revision, State};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Item, Queue};
use super::{Leader, guarded};

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

/// Runs these rows until the term is over.
pub async fn run(rows: &'static [Row], leader: Leader, term: Term, ended: CancellationToken) {
    let mut applied = leader.replica.applied();
    let mut settings = leader.settings.clone();
    let mut queue = Queue::new(rows);
    let mut flights = FuturesUnordered::new();
    let mut position = wake_everything(rows, &leader.replica.root(), &mut queue);

    loop {
        queue.tick(Instant::now());
        let mut planned = 0;
        while flights.len() < IN_FLIGHT_MAX && planned < PLANS_PER_TURN {
            let Some((row, key)) = queue.take() else { break };
            planned += 1;
            let started = Instant::now();
            let (root, mut context) = (leader.replica.root(), leader.context());
            // A plan that panics costs its own key, not the term.
            let name = rows[row].name;
            let plan = guarded(name, &key, || (rows[row].plan)(&root, &key, &mut context));
            drop(root);
            let Some(plan) = plan else {
                queue.done((row, key), true, None, Instant::now());
                continue;
            };
            metrics::histogram!("hactl_controller_plan_seconds", "controller" => name)
                .record(started.elapsed().as_secs_f64());
            flights.push(carry_out(leader.clone(), term, name, (row, key), plan.commands, plan.again));
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
                    metrics::counter!("hactl_controller_retries_total", "controller" => rows[done.item.0].name).increment(1);
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
                wake_everything(rows, &leader.replica.root(), &mut queue);
            }
            () = sleep_until(timer) => {}
            () = std::future::ready(()), if can_plan => {}
        }
        position = wake_changed(rows, &leader.replica.root(), position, &mut queue);
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
fn wake_everything(rows: &[Row], root: &State, queue: &mut Queue) -> Revision {
    for (row, controller) in rows.iter().enumerate() {
        for key in guarded(controller.name, "all keys", || (controller.resync)(root)).unwrap_or_default() {
            queue.wake((row, key));
        }
    }
    root.revision()
}

/// The keys that the events after `position` concern; the revision looked at.
fn wake_changed(rows: &[Row], root: &State, position: Revision, queue: &mut Queue) -> Revision {
    let Ok(events) = root.events_after(position) else {
        return wake_everything(rows, root, queue);
    };
    for event in events {
        for (row, controller) in rows.iter().enumerate() {
            if controller.watches(&event.key.group, &event.key.resource) {
                let keys = guarded(controller.name, &event.key, || (controller.keys)(root, event));
                for key in keys.unwrap_or_default() {
                    queue.wake((row, key));
                }
            }
        }
    }
    root.revision().max(position)
}

/// Proposes a plan's commands side by side, in their order, and waits for every outcome.
async fn carry_out(
    leader: Leader,
    term: Term,
    name: &'static str,
    item: Item,
    commands: Vec<Command>,
    again: Option<Duration>,
) -> Done {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use control::Plan;
    use replica::memory;
    use state::Key;

    use super::super::tests::leader;
    use super::*;

    /// A namespace is put there for each node, except for the one that breaks its plan.
    fn plan(root: &State, key: &Key, cx: &mut control::Context) -> Plan {
        assert!(key.name != "broken", "a bug");
        if root.get(&Key::namespace(key.name.as_str())).is_some() {
            return Plan::default();
        }
        let metadata = serde_json::json!({ "name": key.name, "uid": cx.uid() });
        let object = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
        let kind = objects::Kinds::builtin().by_resource("", "namespaces").expect("a kind");
        let put = control::record::put(kind, &object).expect("a record");
        Plan { commands: vec![Command { ops: vec![state::Op::put(put)], ..Command::default() }], ..Plan::default() }
    }

    static ROWS: [Row; 1] = [Row {
        name: "for-test",
        watches: &[("", "nodes")],
        keys: |_, event| {
            assert!(event.key.name != "breaks-keys", "a bug");
            vec![event.key.clone()]
        },
        plan,
        resync: |_| vec![Key::node("broken"), Key::node("before")],
    }];

    async fn made(replica: &replica::Replica, name: &str) {
        let mut applied = replica.applied();
        let there = applied.wait_for(|_| replica.root().get(&Key::namespace(name)).is_some());
        there.await.expect("the replica lives");
    }

    /// The paused clock stands still while anything can go on: were all to wait for the broken key, this would not end.
    #[tokio::test(start_paused = true)]
    async fn a_plan_that_panics_costs_its_own_key_only() {
        let replica = memory::start();
        let ended = CancellationToken::new();
        let (_choices, settings) = tokio::sync::watch::channel(Arc::default());
        let leader = Leader { settings, ..leader(replica.clone()) };
        let running = tokio::spawn(run(&ROWS, leader, 1, ended.clone()));
        made(&replica, "before").await;
        for name in ["breaks-keys", "after"] {
            let put = state::Put { key: Key::node(name), ..state::Put::default() };
            let command = Command { ops: vec![state::Op::put(put)], ..Command::default() };
            let outcome = replica.propose(command).await.expect("an outcome");
            assert_eq!(outcome.refusal, None);
        }
        made(&replica, "after").await;
        assert!(!running.is_finished(), "the loop goes on");
        ended.cancel();
        running.await.expect("it ended by itself");
    }
}
