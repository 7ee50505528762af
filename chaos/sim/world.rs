//! The machines of one simulated cluster: each has a disk that outlives its processes.
//!
//! ```text
//!   machine ── disk (simulated)
//!        └─── process: consensus, observers; ends by stop, kill or power cut, and is started again
//! ```
//! A dead process cannot be taken out of the runtime at once. It is fenced instead: its disk handles fail, nothing it
//! sends arrives, and nobody hears it; its tasks then end by themselves.
//!
//! **Invariant:** at most one living process per machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consensus::storage::Storage as _;
use consensus::storage::sim::Sim;
use consensus::{Config, Consensus, Error, Member};
use replica::Replica;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::entropy;
use super::laws::Laws;
use super::net::Net;
use super::nodes::Nodes;
use super::observe;
use super::trace::Trace;
use crate::Random;

/// Before a process that could not start is started again.
const RESTART: Duration = Duration::from_secs(1);
/// In one world of so many the store's quota is so small that a workload fills it.
const QUOTA_ONE_IN: u64 = 6;
const QUOTA_SMALL: u64 = 4 << 20;
/// What a planned stop may take.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between two tries to change the members.
const CHANGE_AGAIN: Duration = Duration::from_millis(500);

pub struct World {
    pub net: Arc<Net>,
    pub trace: Arc<Trace>,
    pub laws: Arc<Laws>,
    /// Ends all workloads.
    pub quiet: CancellationToken,
    pub nodes: Nodes,
    machines: Mutex<BTreeMap<u64, Machine>>,
    /// The clocks of masters that are not right.
    clocks: Mutex<BTreeMap<u64, Clock>>,
    random: Mutex<Random>,
    /// Entries after which a member takes a snapshot, and those it keeps behind one.
    snapshot_entries: u64,
    keep_entries: u64,
    /// How many times as long as they might be all pauses are.
    pace: u64,
    /// How many times as long as by default heartbeats and elections take.
    timings: u64,
    /// Bytes that all objects may take, where that is little; else 0.
    quota: u64,
    /// Writes that were refused for it.
    over_quota: AtomicU64,
    /// Of the hactl that the first machines have.
    first_version: u32,
    /// A member is being replaced: one at a time, or too few voters are left.
    replacing: AtomicBool,
}

/// How far from true a machine's clock is.
#[derive(Clone, Copy, Default)]
struct Clock {
    wrong_ms: i64,
    /// How much faster it runs than it should, in parts per million.
    drift_ppm: i64,
    /// Since when, in virtual time.
    since: Duration,
}

struct Machine {
    disk: Sim,
    /// The newest version of the state that the hactl installed here knows.
    version: u32,
    process: Option<Process>,
    /// Someone is starting it.
    starting: bool,
    /// Its disk was damaged on purpose: that it is refused is right.
    damaged: bool,
    /// It is no member any more.
    retired: bool,
    /// Down on purpose until told otherwise.
    held: u32,
}

/// A running master.
#[derive(Clone)]
pub struct Process {
    pub consensus: Arc<Consensus>,
    pub replica: Replica,
    pub control: Arc<Control>,
    /// As [`Machine::version`].
    pub version: u32,
    pub gone: CancellationToken,
}

pub fn member(id: u64) -> Member {
    Member { id, name: format!("m{id}"), peer_address: format!("m{id}:6444"), api_address: format!("m{id}:6443") }
}

impl World {
    pub fn new(mut random: Random, pace: u64, timings: u64, trace: Arc<Trace>, laws: Arc<Laws>) -> Arc<Self> {
        let snapshot_entries = random.between(40, 600);
        let keep_entries = random.between(1, snapshot_entries);
        let first_version = random.between(1, u64::from(state::VERSION) + 1) as u32;
        let quota = if random.between(0, QUOTA_ONE_IN) == 0 { QUOTA_SMALL } else { 0 };
        Arc::new(Self {
            net: Net::new(random.fork(), trace.clone()),
            trace,
            laws,
            quiet: CancellationToken::new(),
            nodes: Nodes::default(),
            machines: Mutex::default(),
            clocks: Mutex::default(),
            snapshot_entries,
            keep_entries,
            pace,
            timings,
            first_version,
            quota,
            over_quota: AtomicU64::new(0),
            random: Mutex::new(random),
            replacing: AtomicBool::new(false),
        })
    }

    /// Makes a cluster of so many voters.
    pub async fn form(self: &Arc<Self>, masters: u64) {
        self.add_machine(1, self.first_version);
        self.start(1).await;
        let first = self.process(1).expect("the first master starts");
        first.consensus.initialize().await.expect("the first member");
        for id in 2..=masters {
            self.add_machine(id, self.first_version);
            self.start(id).await;
            self.join(id).await;
        }
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock of a master.
    pub fn wall(&self, id: u64) -> jiff::Timestamp {
        let now = self.trace.now();
        let clock = self.clock(id);
        let drifted_ms = now.saturating_sub(clock.since).as_millis() as i64 * clock.drift_ppm / 1_000_000;
        let since = jiff::SignedDuration::try_from(now).unwrap_or_default();
        let wrong = jiff::SignedDuration::from_millis(clock.wrong_ms + drifted_ms);
        entropy::begins().saturating_add(since + wrong).unwrap_or_default()
    }

    fn clocks(&self) -> MutexGuard<'_, BTreeMap<u64, Clock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self, id: u64) -> Clock {
        self.clocks().get(&id).copied().unwrap_or_default()
    }

    /// Makes the wall clock of a master wrong by so many seconds.
    pub fn set_clock(&self, id: u64, seconds: i64) {
        self.trace.say(format_args!("m{id}'s clock is wrong by {seconds} s"));
        self.clocks().entry(id).or_default().wrong_ms = seconds * 1000;
    }

    /// Makes the clock of a machine run faster, or (below 0) slower: its wall clock from now on, its timers from the next
    /// start of its process on.
    pub fn set_drift(&self, id: u64, drift_ppm: i64) {
        self.trace.say(format_args!("m{id}'s clock is fast by {drift_ppm} ppm"));
        let since = self.trace.now();
        let mut clocks = self.clocks();
        let clock = clocks.entry(id).or_default();
        (clock.drift_ppm, clock.since) = (drift_ppm, since);
    }

    /// Bytes that all objects may take, where that is little; 0: more than is ever needed.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// A write was refused because the store is full.
    pub fn note_full(&self) {
        self.over_quota.fetch_add(1, Ordering::Relaxed);
    }

    pub fn over_quota(&self) -> u64 {
        self.over_quota.load(Ordering::Relaxed)
    }

    /// A client's pause, which ends early with all workloads.
    pub async fn think(&self, ms: u64) {
        tokio::select! {
            () = self.quiet.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(ms * self.pace)) => {}
        }
    }

    /// A part of the world's randomness.
    pub fn random(&self) -> Random {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    fn add_machine(&self, id: u64, version: u32) {
        let machine = Machine {
            disk: Sim::in_tasks(),
            version,
            process: None,
            starting: false,
            damaged: false,
            retired: false,
            held: 0,
        };
        self.machines().insert(id, machine);
    }

    /// The version of what is installed on a machine.
    pub fn version(&self, id: u64) -> u32 {
        self.machines().get(&id).map_or(0, |machine| machine.version)
    }

    /// Installs a newer hactl, which its next start runs.
    pub fn install(&self, id: u64, version: u32) {
        if let Some(machine) = self.machines().get_mut(&id) {
            self.trace.say(format_args!("m{id} is upgraded from version {} to {version}", machine.version));
            machine.version = version;
        }
    }

    /// The machines that are or shall be members.
    pub fn ids(&self) -> Vec<u64> {
        self.machines().iter().filter(|(_, machine)| !machine.retired).map(|(id, _)| *id).collect()
    }

    pub fn process(&self, id: u64) -> Option<Process> {
        self.machines().get(&id)?.process.clone()
    }

    /// The living processes of members.
    pub fn processes(&self) -> Vec<(u64, Process)> {
        let machines = self.machines();
        let members = machines.iter().filter(|(_, machine)| !machine.retired);
        members.filter_map(|(id, machine)| Some((*id, machine.process.clone()?))).collect()
    }

    pub fn disk(&self, id: u64) -> Option<Sim> {
        self.machines().get(&id).map(|machine| machine.disk.clone())
    }

    /// Who counts as the leader at present, by its own word.
    pub fn leader(&self) -> Option<u64> {
        let leads = |process: &Process| process.replica.leadership().borrow().leading;
        let leaders = self.processes().into_iter().filter_map(|(id, process)| Some((leads(&process)?, id)));
        leaders.max().map(|(_, id)| id)
    }

    /// Keeps a machine from being started, until [`Self::release`].
    pub fn hold(&self, id: u64) {
        if let Some(machine) = self.machines().get_mut(&id) {
            machine.held += 1;
        }
    }

    pub async fn release(self: &Arc<Self>, id: u64) {
        if let Some(machine) = self.machines().get_mut(&id) {
            machine.held = machine.held.saturating_sub(1);
        }
        self.start(id).await;
    }

    /// Starts the machine's process if none runs; as a service manager it tries again until that works.
    pub async fn start(self: &Arc<Self>, id: u64) {
        loop {
            let Some((disk, version)) = self.begin_start(id) else { return };
            let gone = CancellationToken::new();
            let started = self.launch(id, disk.clone(), version, &gone).await;
            let failed = match started {
                // Its machine lost power while it started: it is as dead as one that ran.
                Ok(process) if !disk.is_mounted() => {
                    gone.cancel();
                    self.trace.say(format_args!("m{id} dies before it runs"));
                    if let Some(machine) = self.machines().get_mut(&id) {
                        machine.starting = false;
                    }
                    tokio::spawn(async move { process.consensus.kill().await });
                    continue;
                }
                Ok(process) => {
                    self.trace.say(format_args!("m{id} runs"));
                    self.net.listen(id, process.consensus.peers(), gone);
                    if let Some(machine) = self.machines().get_mut(&id) {
                        (machine.process, machine.starting) = (Some(process.clone()), false);
                    }
                    observe::process(self.clone(), id, process);
                    return;
                }
                Err(error) => error,
            };
            gone.cancel();
            self.trace.say(format_args!("m{id} does not start: {failed}"));
            let refused = matches!(failed, Error::Corrupt(_) | Error::Mismatch(_));
            {
                let mut machines = self.machines();
                let Some(machine) = machines.get_mut(&id) else { return };
                machine.starting = false;
                if refused && !machine.damaged {
                    self.laws.broken("a sound disk is never refused", format!("m{id}: {failed}"));
                }
            }
            if refused {
                return;
            }
            tokio::time::sleep(RESTART).await;
        }
    }

    fn begin_start(&self, id: u64) -> Option<(Sim, u32)> {
        let mut machines = self.machines();
        let machine = machines.get_mut(&id)?;
        if machine.process.is_some() || machine.starting || machine.retired || machine.held > 0 {
            return None;
        }
        machine.starting = true;
        Some((machine.disk.mount(), machine.version))
    }

    async fn launch(
        self: &Arc<Self>,
        id: u64,
        disk: Sim,
        version: u32,
        gone: &CancellationToken,
    ) -> Result<Process, Error> {
        let seed = self.random().draw();
        let usual = Config::new(format!("/m{id}"), super::control::CLUSTER, member(id), seed);
        // All times of consensus are measured by the machine's own clock.
        let million = 1_000_000;
        let speed = million + self.clock(id).drift_ppm;
        let measured = |ms: u64| ms * self.timings * million as u64 / speed.max(1) as u64;
        let config = Config {
            heartbeat_ms: measured(usual.heartbeat_ms),
            election_ms_min: measured(usual.election_ms_min),
            election_ms_max: measured(usual.election_ms_max),
            snapshot_entries: self.snapshot_entries,
            keep_entries: self.keep_entries,
            disk_reserve: 64 << 20,
            newest_version: version,
            ..usual
        };
        let consensus = consensus::start_here(config, self.net.link(id, gone.clone()), Arc::new(disk)).await?;
        let consensus = Arc::new(consensus);
        let control = Control::start(self, id, &consensus, version, gone);
        Ok(Process { replica: consensus.replica(), consensus, control, version, gone: gone.clone() })
    }

    /// Takes the process off its machine; what is left of it ends by itself.
    fn end(&self, id: u64, machine: &mut Machine) {
        self.net.close(id);
        if let Some(process) = machine.process.take() {
            process.gone.cancel();
            tokio::spawn(async move { process.consensus.kill().await });
        }
    }

    /// As `kill -9`. Whether anything ran.
    pub fn kill(&self, id: u64) -> bool {
        let mut random = self.random();
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(&id).filter(|machine| machine.process.is_some()) else { return false };
        self.trace.say(format_args!("m{id} is killed"));
        machine.disk.kill(|most| random.between(0, most as u64 + 1) as usize);
        self.end(id, machine);
        true
    }

    /// The machine loses power, and with it what was never synced. Whether anything ran.
    pub fn cut_power(&self, id: u64) -> bool {
        let mut random = self.random();
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(&id) else { return false };
        let ran = machine.process.is_some() || machine.starting;
        self.trace.say(format_args!("m{id} loses power"));
        machine.disk.crash_keeping(|most| random.between(0, most as u64 + 1) as usize);
        for path in machine.disk.torn() {
            // A snapshot counts as complete once there is `meta` beside its files.
            let meta = path.parent().and_then(|data| data.parent()).map(|snapshot| snapshot.join("meta"));
            if meta.is_some_and(|meta| matches!(machine.disk.read(&meta), Ok(Some(_)))) {
                self.laws.broken("a complete snapshot is synced", format!("m{id}: {} was not", path.display()));
            }
        }
        self.end(id, machine);
        ran
    }

    /// A planned stop. Whether anything ran.
    pub async fn stop(&self, id: u64) -> bool {
        let Some(process) = self.process(id) else { return false };
        self.trace.say(format_args!("m{id} is stopped"));
        let _ = tokio::time::timeout(STOP_MAX, process.consensus.shutdown()).await;
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(&id) else { return false };
        if machine.process.as_ref().is_some_and(|present| Arc::ptr_eq(&present.consensus, &process.consensus)) {
            machine.disk.kill(|_| 0);
            self.end(id, machine);
        }
        true
    }

    /// Takes the turn to replace a member, if nobody has it and all are well; [`Self::replace`] gives it back.
    pub fn begin_replacing(&self) -> bool {
        self.is_whole() && !self.replacing.swap(true, Ordering::Relaxed)
    }

    /// Whether all machines are members with a sound disk and a running process.
    pub fn is_whole(&self) -> bool {
        let machines = self.machines();
        machines
            .values()
            .filter(|machine| !machine.retired)
            .all(|machine| machine.process.is_some() && !machine.damaged)
    }

    /// From now on that this disk is refused is right.
    pub fn expect_damage(&self, id: u64) {
        if let Some(machine) = self.machines().get_mut(&id) {
            machine.damaged = true;
        }
    }

    /// Puts a new machine, and a new member, in the place of one.
    pub async fn replace(self: &Arc<Self>, id: u64) {
        let fresh = {
            let mut machines = self.machines();
            let fresh = machines.keys().max().map_or(1, |id| id + 1);
            if let Some(machine) = machines.get_mut(&id) {
                machine.retired = true;
                machine.disk.discard();
                self.end(id, machine);
            }
            fresh
        };
        self.trace.say(format_args!("m{fresh} takes the place of m{id}"));
        self.change(id, "remove", |consensus| async move { consensus.remove(id).await }).await;
        self.add_machine(fresh, state::VERSION);
        self.start(fresh).await;
        self.join(fresh).await;
        self.replacing.store(false, Ordering::Relaxed);
    }

    /// Adds a new machine and member, and only then takes one away; [`Self::begin_replacing`] comes before.
    pub async fn relieve(self: &Arc<Self>, id: u64) {
        let fresh = self.machines().keys().max().map_or(1, |id| id + 1);
        self.trace.say(format_args!("m{fresh} relieves m{id}"));
        self.add_machine(fresh, state::VERSION);
        self.start(fresh).await;
        self.join(fresh).await;
        self.change(id, "remove", |consensus| async move { consensus.remove(id).await }).await;
        if let Some(machine) = self.machines().get_mut(&id) {
            machine.retired = true;
            machine.disk.discard();
            self.end(id, machine);
        }
        self.replacing.store(false, Ordering::Relaxed);
    }

    /// Makes a started machine a voter.
    async fn join(self: &Arc<Self>, id: u64) {
        self.change(id, "add", |consensus| async move { consensus.add_learner(member(id)).await }).await;
        self.change(id, "promote", |consensus| async move { consensus.promote(id).await }).await;
    }

    /// Asks one master after another, but not the one that it is about, until the change is made.
    async fn change<F>(&self, about: u64, what: &str, change: impl Fn(Arc<Consensus>) -> F)
    where
        F: Future<Output = Result<(), Error>>,
    {
        let mut random = self.random();
        loop {
            let processes: Vec<_> = self.processes().into_iter().filter(|(id, _)| *id != about).collect();
            if let Some((id, process)) = random.pick(&processes) {
                let changed = tokio::select! {
                    () = process.gone.cancelled() => None,
                    changed = change(process.consensus.clone()) => Some(changed),
                };
                match changed {
                    Some(Ok(())) => {
                        self.trace.say(format_args!("m{id}: {what} is done"));
                        return;
                    }
                    Some(Err(error)) => self.trace.say(format_args!("m{id}: {what}: {error}")),
                    None => {}
                }
            }
            tokio::time::sleep(CHANGE_AGAIN).await;
        }
    }

    /// What is wrong with this process' disk was found while it ran.
    pub fn failed(&self, id: u64, why: &str) {
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(&id) else { return };
        self.trace.say(format_args!("m{id} fails: {why}"));
        if !machine.damaged {
            self.laws.broken("a sound disk is never refused", format!("m{id}: {why}"));
        }
        machine.disk.kill(|_| 0);
        self.end(id, machine);
    }

    /// Ends every fault and starts all machines.
    pub async fn heal(self: &Arc<Self>) {
        self.trace.say("healed");
        self.net.heal();
        self.clocks().clear();
        self.heal_nodes();
        let ids: Vec<u64> = {
            let mut machines = self.machines();
            for machine in machines.values_mut() {
                machine.held = 0;
                machine.disk.slow_syncs(Duration::ZERO);
                machine.disk.fail_syncs(None);
                machine.disk.stuff(false);
                machine.disk.set_free(u64::MAX);
                machine.disk.aim_no_more();
            }
            machines.keys().copied().collect()
        };
        for id in ids {
            let world = self.clone();
            tokio::spawn(async move { world.start(id).await });
        }
    }
}
