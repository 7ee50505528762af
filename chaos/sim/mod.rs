//! The control plane in one thread and in virtual time: real consensus, log, snapshots, recovery and apply over simulated
//! disks and a simulated network, under faults that one seed decides.
//!
//! ```text
//!   seed ──▶ schedule ──▶ faults ─┐
//!        └─▶ workloads ───────────┴─▶ World (machines, disks, net) ──observers──▶ Laws
//!            … then: heal ─▶ everything converges in time ─▶ everything is judged
//! ```
//!
//! Not here: real processes, sockets and disks (`scenarios`). **Invariant:** one process runs one simulation, and nothing in
//! it depends on anything but its options: the same seed gives the same trace, byte for byte.

pub mod command;
mod control;
pub mod entropy;
pub mod faults;
pub(crate) mod laws;
pub mod mutants;
mod net;
mod nodes;
mod observe;
mod trace;
pub mod workloads;
mod world;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::{Command, Op};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Random;
use faults::Fault;
use laws::Laws;
use trace::Trace;
use world::World;

/// After the faults everything must be well within this: replicas equal, every master serving reads and writes.
const CONVERGE: Duration = Duration::from_secs(60);
/// And then, when nobody asks for anything new, every pod runs where it is bound within this.
const SETTLE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);
/// How many times as long as the shortest the pauses of clients and between faults are; a seed has one of these. Some bugs need
/// a crowd, others a long calm.
const PACES: [u64; 4] = [1, 1, 4, 16];
/// The mean pause between two beginnings of faults, at the fastest pace.
const FAULT_EVERY_MS: u64 = 1_500;
const FAULT_MS_MIN: u64 = 50;
const FAULT_MS_MAX: u64 = 6_000;
/// Panics told in full.
const PANICS_TOLD_MAX: usize = 3;
/// Some faults wait for a majority; by then they must have ended.
const FAULTS_END: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub masters: u64,
    pub nodes: u64,
    /// How long faults happen, in virtual time.
    pub duration: Duration,
    /// One of [`PACES`] rather than the seed's.
    pub pace: Option<u64>,
    /// How many times as long as by default heartbeats and elections take; a cluster's owner may set that.
    pub timings: u64,
    /// Only faults of these names are drawn; none: all.
    pub kinds: Vec<String>,
    /// Only these of the scheduled faults, by number; none: all.
    pub only: Option<Vec<usize>>,
    /// Keep the trace.
    pub trace: bool,
}

/// What came of one simulation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    pub virtual_seconds: f64,
    /// Of one core.
    pub cpu_seconds: f64,
    /// By number: `3:kill`.
    pub faults: Vec<String>,
    /// Those of them that did anything.
    pub effective: Vec<String>,
    /// Writes that were refused because the store was full.
    pub over_quota: u64,
    pub answered: u64,
    pub unknown: u64,
    pub messages: u64,
    pub digest: String,
    /// Laws that were broken, in words; empty: none.
    pub broken: Vec<String>,
    #[serde(skip)]
    pub trace: String,
}

/// A fault that is going to happen.
struct Planned {
    fault: &'static Fault,
    at: Duration,
    lasts: Duration,
    seed: u64,
}

/// The faults that follow from a seed.
fn schedule(random: &mut Random, pace: u64, options: &Options) -> Vec<Planned> {
    let kinds = &options.kinds;
    let of_kind = |fault: &&Fault| kinds.is_empty() || kinds.iter().any(|kind| kind == fault.name);
    let strikes = |fault: &&Fault| options.nodes > 0 || !fault.on_nodes;
    let all: Vec<&'static Fault> = faults::ALL.iter().filter(of_kind).filter(strikes).collect();
    let weights: u64 = all.iter().map(|fault| fault.weight).sum();
    let end = options.duration.as_millis() as u64;
    let mut planned = Vec::new();
    let mut at = random.between(0, FAULT_EVERY_MS * pace);
    while at < end {
        let mut drawn = random.between(0, weights);
        let fault = all.iter().find(|fault| {
            let hit = drawn < fault.weight;
            drawn = drawn.saturating_sub(fault.weight);
            hit
        });
        // Short ones are likelier: a fault that ends while what it began is under way finds more.
        let most = random.between(FAULT_MS_MIN, FAULT_MS_MAX);
        let lasts = random.between(FAULT_MS_MIN, most + 1).min(end - at);
        let seed = random.draw();
        if let Some(fault) = fault {
            planned.push(Planned { fault, at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), seed });
        }
        at += random.between(0, FAULT_EVERY_MS * 2 * pace);
    }
    planned
}

/// Runs one simulation. Afterwards this process has no other randomness than what is left of the seed.
pub fn run(options: &Options) -> Report {
    entropy::begin(options.seed);
    let options = options.clone();
    // A thread that has asked for nothing random yet.
    let thread = std::thread::Builder::new().name("simulation".into()).stack_size(64 << 20);
    let thread = thread.spawn(move || {
        consensus::seed_thread(options.seed);
        let panics: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = panics.clone();
        std::panic::set_hook(Box::new(move |panic| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let mut report = runtime.expect("a runtime").block_on(simulate(&options));
        let panics = panics.lock().unwrap_or_else(PoisonError::into_inner);
        let more = panics.len().saturating_sub(PANICS_TOLD_MAX);
        report.broken.extend(panics.iter().take(PANICS_TOLD_MAX).map(|panic| format!("nothing panics: {panic}")));
        if more > 0 {
            report.broken.push(format!("nothing panics: {more} times more"));
        }
        report
    });
    thread.expect("a thread").join().unwrap_or_default()
}

async fn simulate(options: &Options) -> Report {
    let began = entropy::cpu_seconds();
    entropy::begin_time();
    let trace = Arc::new(Trace::new(options.trace));
    let laws = Laws::new(trace.clone());
    let mut random = Random::new(options.seed);
    let drawn = random.pick(&PACES).copied().unwrap_or(1);
    let pace = options.pace.unwrap_or(drawn);
    let planned = schedule(&mut random.fork(), pace, options);
    let world = World::new(random.fork(), pace, options.timings.max(1), trace.clone(), laws.clone());
    let mut happened = Happened::default();
    tokio::select! {
        biased;
        () = laws.over.cancelled() => {}
        () = play(&world, random, planned, options, &mut happened) => {}
    }
    world.nodes.clean_up();
    let broken = laws.judge();
    let (answered, unknown) = laws.answered();
    let virtual_seconds = trace.now().as_secs_f64();
    let (text, digest, messages) = trace.end();
    Report {
        seed: options.seed,
        virtual_seconds,
        cpu_seconds: entropy::cpu_seconds() - began,
        faults: happened.all,
        effective: happened.effective,
        over_quota: world.over_quota(),
        answered,
        unknown,
        messages,
        digest: format!("{digest:016x}"),
        broken,
        trace: text,
    }
}

/// The faults that happened, and those of them that did anything.
#[derive(Default)]
struct Happened {
    all: Vec<String>,
    effective: Vec<String>,
}

/// From the making of the cluster to its rest.
async fn play(
    world: &Arc<World>,
    mut random: Random,
    planned: Vec<Planned>,
    options: &Options,
    happened: &mut Happened,
) {
    world.form(options.masters).await;
    world.add_nodes(options.nodes).await;

    let mut workloads = JoinSet::new();
    for workload in workloads::ALL {
        workloads.spawn((workload.run)(world.clone(), random.fork()));
    }
    workloads.spawn(observe::roam(world.clone()));
    workloads.spawn(observe::engines(world.clone()));

    faults(world, planned, options, happened).await;
    if let Err(why) = converge(world).await {
        world.laws.broken("a healed cluster converges", why);
    }
    world.quiet.cancel();
    if tokio::time::timeout(CONVERGE, workloads.join_all()).await.is_err() {
        world.laws.broken("calls end", "a client still waits after everything was healed".into());
    }
    if let Err(why) = newest_rules_hold(world).await {
        world.laws.broken("rules that all know hold", why);
    }
    if let Err(why) = nothing_left_to_do(world).await {
        world.laws.broken("the cluster becomes what was asked for", why);
    }
    if let Err(why) = rest(world).await {
        world.laws.broken("replicas become equal", why);
    }
}

/// Lets the planned faults happen.
async fn faults(world: &Arc<World>, planned: Vec<Planned>, options: &Options, happened: &mut Happened) {
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    for (number, Planned { fault, at, lasts, seed }) in planned.into_iter().enumerate() {
        if options.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            continue;
        }
        happened.all.push(format!("{number}:{}", fault.name));
        let world = world.clone();
        under_way.spawn(async move {
            tokio::time::sleep_until(began + at).await;
            world.trace.say(format_args!("fault {number} {} for {} ms", fault.name, lasts.as_millis()));
            let effect = (fault.run)(world.clone(), Random::new(seed), lasts).await;
            let without = if effect { "" } else { ", without effect" };
            world.trace.say(format_args!("fault {number} {} ends{without}", fault.name));
            effect.then_some((number, fault.name))
        });
    }
    tokio::time::sleep_until(began + options.duration).await;
    world.heal().await;
    let Ok(ended) = tokio::time::timeout(FAULTS_END, under_way.join_all()).await else {
        world.laws.broken("a healed cluster converges", "a change of members is not made though all are well".into());
        return;
    };
    let mut effective: Vec<(usize, &str)> = ended.into_iter().flatten().collect();
    effective.sort_unstable();
    happened.effective = effective.iter().map(|(number, name)| format!("{number}:{name}")).collect();
}

/// Waits until every master serves, takes a write and reads it back.
async fn converge(world: &Arc<World>) -> Result<(), String> {
    let until = Instant::now() + CONVERGE;
    let mut why = String::new();
    while Instant::now() < until {
        match tokio::time::timeout_at(until, is_well(world)).await {
            Ok(Ok(())) => {
                world.trace.say("converged");
                return Ok(());
            }
            Ok(Err(not)) => why = not,
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("not within {} s: {why}", CONVERGE.as_secs()))
}

async fn is_well(world: &Arc<World>) -> Result<(), String> {
    let processes = world.processes();
    if let Some(id) = world.ids().into_iter().find(|id| !processes.iter().any(|(running, _)| running == id)) {
        return Err(format!("m{id} does not run"));
    }
    for (id, process) in processes {
        if !process.replica.leadership().borrow().serving {
            return Err(format!("m{id} does not serve"));
        }
        let name = format!("after-{id}");
        let value = format!("well-{}", world.random().draw());
        let written = process.replica.propose(workloads::put(&name, &value)).await;
        written.map_err(|error| format!("m{id} takes no write: {error}"))?;
        let root = process.replica.read().await.map_err(|error| format!("m{id} takes no read: {error}"))?;
        let held = root.get(&workloads::key(&name)).map(|record| workloads::value(record));
        if held.as_deref() != Some(&value) {
            return Err(format!("m{id} wrote {value} and read {held:?}"));
        }
    }
    Ok(())
}

/// Waits until the state follows the newest version that every master knows.
async fn newest_rules_hold(world: &Arc<World>) -> Result<(), String> {
    let known = || world.processes().iter().map(|(_, process)| process.version).min();
    let held = || world.processes().first().map(|(_, process)| process.replica.root().version());
    let reached = async {
        while held() != known() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let reached = tokio::time::timeout(CONVERGE, reached).await;
    reached.map_err(|_| format!("version {:?} after {} s, all know {:?}", held(), CONVERGE.as_secs(), known()))
}

/// Waits until every node runs what it shall, and no law of a quiet cluster is broken.
async fn nothing_left_to_do(world: &Arc<World>) -> Result<(), String> {
    if world.nodes.ids().is_empty() {
        return Ok(());
    }
    let until = Instant::now() + SETTLE;
    loop {
        let why = match world.processes().into_iter().next() {
            None => "nobody runs".to_owned(),
            Some((_, process)) => {
                let root = process.replica.root();
                match ::control::invariants::check_quiescent(&root).first() {
                    Some(broken) => broken.to_string(),
                    None => match world.nodes_are_well(&root).await {
                        Ok(()) => return Ok(()),
                        Err(why) => why,
                    },
                }
            }
        };
        if Instant::now() >= until {
            return Err(format!("not within {} s: {why}", SETTLE.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until nothing moves any more and all are equal; then looks at the invariants.
async fn rest(world: &Arc<World>) -> Result<(), String> {
    // One entry that all must reach.
    let (_, first) = world.processes().into_iter().next().ok_or("nobody runs")?;
    let last = Command { ops: vec![Op::delete(workloads::key("after-1"))], ..Command::default() };
    first.replica.propose(last).await.map_err(|error| error.to_string())?;
    let target = first.replica.root().applied().index;
    for (id, process) in world.processes() {
        let reached = async {
            while process.replica.root().applied().index < target {
                tokio::time::sleep(LOOK).await;
            }
        };
        let reached = tokio::time::timeout(CONVERGE, reached).await;
        reached.map_err(|_| format!("m{id} does not reach entry {target}"))?;
        world.laws.state(&process.replica.root());
        for broken in ::control::invariants::check(&process.replica.root()) {
            world.laws.broken(broken.law, format!("m{id}: {}", broken.what));
        }
    }
    // Followers have nothing left to wait for but their turn.
    tokio::time::sleep(LOOK).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strikes_nodes_is_drawn_where_there_are_some() {
        let drawn = |nodes| {
            let options = Options {
                seed: 1,
                masters: 3,
                nodes,
                duration: Duration::from_secs(3600),
                pace: None,
                timings: 1,
                kinds: Vec::new(),
                only: None,
                trace: false,
            };
            let planned = schedule(&mut Random::new(1), 1, &options);
            let mut names: Vec<&str> = planned.iter().map(|planned| planned.fault.name).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let every = |nodes: bool| {
            let all = faults::ALL.iter().filter(|fault| nodes || !fault.on_nodes);
            let mut names: Vec<&str> = all.map(|fault| fault.name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(drawn(3), every(true));
        assert_eq!(drawn(0), every(false));
        assert!(every(false).len() < every(true).len());
    }
}
