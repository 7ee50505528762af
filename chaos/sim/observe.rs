//! What watches every process from inside: who leads, what each revision looks like, and every change in order. Each row
//! of what is seen goes to the laws.

use std::sync::Arc;
use std::time::Duration;

use replica::watch::Filter;
use state::Event;

use super::laws::Seen;
use super::workloads::{configs, value};
use super::world::{Process, World};

/// What the workloads write.
pub const GROUP: &str = "";
pub const RESOURCE: &str = "things";
/// How long the roaming follower stays with one master.
const STAY: Duration = Duration::from_secs(2);

/// What is kept of a value.
const VALUE_CHARS: usize = 64;
/// How often the engines are looked at.
const ENGINES_EVERY: Duration = Duration::from_secs(1);

/// Looks at what runs on all nodes together, until the world is quiet.
pub async fn engines(world: Arc<World>) {
    while !world.quiet.is_cancelled() && !world.nodes.ids().is_empty() {
        if let Some(twice) = world.nodes.runs_twice() {
            world.laws.broken("a pod's containers run once", twice);
            return;
        }
        tokio::select! {
            () = world.quiet.cancelled() => {}
            () = tokio::time::sleep(ENGINES_EVERY) => {}
        }
    }
}

/// Starts the observers of one process; they end with it.
pub fn process(world: Arc<World>, id: u64, process: Process) {
    let gone = process.gone.clone();
    let follower = format!("m{id}");
    let of_configs = format!("{}{follower}", configs::SCOPE);
    tokio::spawn(async move {
        tokio::select! {
            () = gone.cancelled() => {}
            () = leadership(&world, id, &process) => {}
            () = states(&world, &process) => {}
            () = follow(&world, &follower, &process, RESOURCE) => {}
            () = follow(&world, &of_configs, &process, configs::RESOURCE) => {}
            why = process.consensus.failed() => world.failed(id, &why),
        }
    });
}

async fn leadership(world: &World, id: u64, process: &Process) {
    let mut leadership = process.replica.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        world.trace.say(format_args!(
            "m{id} sees leader {} term {}{}{}",
            now.leader.map_or("none".into(), |leader| format!("m{leader}")),
            now.term,
            if now.leading.is_some() { ", leads" } else { "" },
            if now.serving { "" } else { ", does not serve" },
        ));
        if let Some(term) = now.leading {
            world.laws.leads(term, id);
        }
        if leadership.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Compares the state of every revision that shows here with that of the others.
async fn states(world: &World, process: &Process) {
    let mut applied = process.replica.applied();
    let mut position = process.replica.root().revision();
    let mut version = process.replica.root().version();
    loop {
        applied.borrow_and_update();
        let root = process.replica.root();
        world.laws.state(&root);
        if version >= state::bounds::VERSION {
            for broken in ::control::invariants::check_history(&root, position) {
                world.laws.broken(broken.law, broken.what);
            }
        }
        version = root.version();
        // A history that was compacted before it was seen here was seen by others.
        for event in root.events_after(position).into_iter().flatten() {
            for broken in ::control::invariants::check_event(event) {
                world.laws.broken(broken.law, broken.what);
            }
        }
        position = root.revision();
        drop(root);
        if applied.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Follows all changes of a resource through one process, from where this follower was before.
async fn follow(world: &World, follower: &str, process: &Process, resource: &str) {
    let mut watcher = process.replica.watch(Filter::resource(GROUP, resource), world.laws.position(follower));
    loop {
        match watcher.next().await {
            Ok(batch) => {
                let seen = batch.events.iter().filter_map(|event| seen(event)).collect();
                world.laws.followed(follower, seen, batch.revision);
            }
            Err(_) => {
                let compacted = process.replica.root().compacted();
                world.laws.skipped(follower, compacted);
                watcher = process.replica.watch(Filter::resource(GROUP, resource), compacted);
            }
        }
    }
}

/// One follower that goes from master to master.
pub async fn roam(world: Arc<World>) {
    let mut random = world.random();
    while !world.quiet.is_cancelled() {
        let processes = world.processes();
        let Some((_, process)) = random.pick(&processes) else {
            tokio::time::sleep(STAY).await;
            continue;
        };
        tokio::select! {
            () = process.gone.cancelled() => {}
            () = world.quiet.cancelled() => {}
            () = follow(&world, "roamer", process, RESOURCE) => {}
            () = tokio::time::sleep(STAY) => {}
        }
    }
}

/// None: no workload that is judged made it.
fn seen(event: &Event) -> Option<Seen> {
    let name = &event.key.name;
    let (name, value) = if event.key.resource == configs::RESOURCE {
        let value = event.new.as_ref().map(|record| configs::value(&::control::record::parse(record)));
        (configs::is_one(name).then(|| format!("{}{name}", configs::SCOPE))?, value)
    } else {
        // Its beginning tells it from all others.
        (name.clone(), event.new.as_ref().map(|record| value(record).chars().take(VALUE_CHARS).collect()))
    };
    let broken = ::control::invariants::check_event(event).iter().map(ToString::to_string).collect();
    Some(Seen { revision: event.revision, name, value, broken })
}
