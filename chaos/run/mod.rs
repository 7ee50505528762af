//! Faults and workloads against a real cluster, in the spirit of Jepsen: everything is recorded while it happens, and judged
//! afterwards.
//!
//! ```text
//! Run ─ target (local, lab, compose, ssh)   a cluster, and what its owner can do to its machines
//!     ├ workloads ── clients ──┐            what clients of the Kubernetes API do
//!     ├ conductor ── nemeses ──┼─▶ history  what is done to the cluster, several at once, by the seed
//!     └ observe ───────────────┘      │     who leads, where pods are, what all show at rest
//!                                     ▼
//!                                   laws ─▶ report (HTML, JSON)
//! ```
//!
//! Not here: how the cluster works. **Invariant:** a run uses what users have: the API, hactl's verbs, and what the owner
//! of a machine may do to it; the laws see nothing but the history.

mod clients;
mod command;
mod conductor;
pub mod figures;
mod history;
mod laws;
pub mod nemeses;
mod observe;
mod relay;
mod report;
pub mod scenarios;
mod stage;
mod targets;
pub mod workloads;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use clients::{Client, Doors};
use conductor::Conductor;
use history::{History, Intended, Record, Revision};
use nemeses::Row;
use stage::Stage;
use targets::{Plan, Target};
use workloads::Workload;

pub use command::Run;
pub use laws::ALL as LAWS;
pub use relay::Relay;

use crate::Random;

/// Work goes on for so long before the first fault and after the last is undone.
const CALM: Duration = Duration::from_secs(3);
/// After healing, every master must serve within this.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// A client ends within this once it is told to.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Followers have seen the last write within this.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(30);
/// Everything has come to rest within this: replicas, containers, views.
const REST_WITHIN: Duration = Duration::from_secs(180);
/// The beginning is tried for so long.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Tasks that note what they see, until told to stop.
struct Noting {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Noting {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// # Errors
    /// When one does not end, or has panicked.
    async fn end(mut self, what: &str) -> Result<()> {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.with_context(|| format!("{what} panicked"))?;
            }
            Ok(())
        };
        tokio::time::timeout(STOP_WITHIN, all).await.with_context(|| format!("{what} did not end"))?
    }
}

/// A cluster with observers, and a namespace for this run.
pub struct Session {
    stage: Stage,
    namespace: String,
    observers: Noting,
}

impl Session {
    /// # Errors
    /// When the cluster takes no writes.
    async fn begin(target: Arc<dyn Target>, mut random: Random, seed: u64) -> Result<Self> {
        let doors = Doors::open(&target.kubeconfig(), &target.masters()).await?;
        if doors.0.is_empty() {
            bail!("the target {} has no masters", target.name());
        }
        let history = Arc::new(History::default());
        let namespace = format!("chaos-{seed:x}");
        let stage = Stage::new(target, history, doors, random.fork());
        stage.whole(BEGIN_WITHIN).await?;
        make_namespace(&stage, &namespace).await?;
        let mut observers = Noting::new();
        for door in stage.doors.0.iter() {
            let (door, history, stop) = (door.clone(), stage.history.clone(), observers.stop.clone());
            observers.tasks.spawn(async move { observe::seats(door, &history, stop).await });
        }
        let (doors, history, stop) = (stage.doors.clone(), stage.history.clone(), observers.stop.clone());
        let name = namespace.clone();
        observers.tasks.spawn(async move { observe::pods(doors, name, &history, stop).await });
        if !stage.target.nodes().is_empty() {
            let (target, history, stop) = (stage.target.clone(), stage.history.clone(), observers.stop.clone());
            observers.tasks.spawn(async move { observe::doubles(target, &history, stop).await });
        }
        Ok(Self { stage, namespace, observers })
    }

    fn client(&mut self, workload: &Workload, number: usize, stop: &CancellationToken) -> Client {
        let (doors, history) = (self.stage.doors.clone(), self.stage.history.clone());
        let random = self.stage.random.fork();
        Client::new(workload.name, number, self.namespace.clone(), doors, history, random, stop.clone())
    }

    /// Starts the clients of these workloads, and waits until writes are accepted.
    fn start(&mut self, workloads: &[&'static Workload], last: bool) -> Noting {
        let mut noting = Noting::new();
        for workload in workloads.iter().copied().filter(|workload| workload.last == last) {
            for number in 0..workload.clients {
                let mut client = self.client(workload, number, &noting.stop);
                noting.tasks.spawn(async move { (workload.run)(&mut client).await });
            }
        }
        noting
    }

    async fn accepted(&self) -> Result<()> {
        let since = std::time::Instant::now();
        while self.stage.history.acknowledged() == 0 {
            if since.elapsed() > BEGIN_WITHIN {
                bail!("no write was accepted within {} s, before any fault", BEGIN_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The last reads of every workload, through each master.
    async fn finish(&mut self, workloads: &[&'static Workload]) {
        let stop = CancellationToken::new();
        for workload in workloads {
            for master in 0..self.stage.doors.0.len() {
                let mut client = self.client(workload, 0, &stop).of(master);
                (workload.finish)(&mut client).await;
            }
        }
    }

    /// One more object; followers that have seen it have seen all that was before.
    async fn mark(&self) -> Result<Revision> {
        let marker = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "marker", "namespace": self.namespace, "labels": { workloads::LABEL: "marker" } },
            "data": { "value": "all was written" },
        });
        let path = format!("/api/v1/namespaces/{}/configmaps", self.namespace);
        let door = &self.stage.doors.0[0];
        match door.ask(http::Method::POST, &path, Some(&marker)).await {
            Ok(made) => Ok(clients::revision(&made)),
            // The answer to a first try was lost.
            Err(_) => Ok(clients::revision(&door.get(&format!("{path}/marker")).await?)),
        }
    }

    async fn end(self) -> Result<Stage> {
        self.observers.end("an observer").await?;
        Ok(self.stage)
    }
}

async fn make_namespace(stage: &Stage, name: &str) -> Result<()> {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let since = std::time::Instant::now();
    loop {
        match stage.doors.0[0].ask(http::Method::POST, "/api/v1/namespaces", Some(&object)).await {
            Ok(_) => return Ok(()),
            Err(clients::Trouble::Refused(409, _)) => {
                bail!("the namespace {name} is there already: take another --seed, or delete it")
            }
            Err(trouble) if since.elapsed() > BEGIN_WITHIN => return Err(trouble).context("cannot make a namespace"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What a run is made of.
struct Script {
    workloads: Vec<&'static Workload>,
    nemeses: Vec<&'static Row>,
    at_once: usize,
    duration: Duration,
}

/// What these nemeses need of a cluster that is made for them.
fn plan(masters: usize, nodes: usize, nemeses: &[&Row]) -> Plan {
    let has = |name: &str| nemeses.iter().any(|row| row.name == name);
    let mut plan = Plan { masters, nodes, ..Plan::default() };
    plan.shim = has("slow-disk") || has("clock");
    plan.small_disks = has("disk-full");
    plan.own_engines = has("docker");
    if plan.small_disks {
        plan.settings.push(("disk-reserve".into(), "16MiB".into()));
    }
    if has("certificates") {
        plan.settings.push(("certificate-life".into(), format!("{}s", nemeses::CERTIFICATE_LIFE.as_secs())));
    }
    plan
}

/// # Errors
/// Says which nemesis needs what, and what to do.
fn check(target: &dyn Target, nemeses: &[&Row]) -> Result<()> {
    let abilities = target.abilities();
    for row in nemeses {
        if let Some(lacks) = row.needs.iter().find(|need| !abilities.contains(need)) {
            bail!(
                "the nemesis {} needs {}, which the target {} does not have; leave it out with --without {}, or take another \
                 --target (lab has everything)",
                row.name,
                lacks.words(),
                target.name(),
                row.name
            );
        }
    }
    Ok(())
}

/// Carries a script out on a cluster that is up; everything that was seen.
async fn perform(session: &mut Session, script: &Script, enough: CancellationToken) -> Result<()> {
    let followers = session.start(&script.workloads, true);
    let clients = session.start(&script.workloads, false);
    session.accepted().await?;
    tokio::time::sleep(CALM).await;
    let history = session.stage.history.clone();
    let from = history.now();
    let intended = Intended {
        workloads: script.workloads.iter().map(|workload| workload.name).collect(),
        nemeses: script.nemeses.iter().map(|row| row.name).collect(),
        nodes: !session.stage.target.nodes().is_empty(),
    };
    history.intend(from, intended);
    let mut conductor = Conductor::new(script.nemeses.clone(), script.at_once);
    if let Err(error) = conductor.conduct(&mut session.stage, script.duration, &enough).await {
        // What was seen until then is judged all the same.
        history.found(format!("the faults ended early: {error:#}"));
    }
    let healed = history.now();
    history.record().healed = healed;
    while let Err(error) = session.stage.whole(WHOLE_WITHIN).await {
        if conductor::mend(&mut session.stage).await == 0 {
            history.found(format!("after all faults were undone: {error:#}"));
            break;
        }
    }
    tokio::time::sleep(CALM).await;
    clients.end("a client").await?;
    session.finish(&script.workloads).await;
    let seen = async { workloads::caught_up(&history, session.mark().await?, CAUGHT_UP_WITHIN).await };
    if let Err(error) = seen.await {
        history.found(format!("{error:#}"));
    }
    followers.end("a follower").await?;
    match observe::rest(&session.stage, &session.namespace, REST_WITHIN).await {
        Ok(rest) => history.record().rest = rest,
        Err(error) => history.found(format!("cannot look at the cluster at rest: {error:#}")),
    }
    let ended = history.now();
    history.record().ended = ended;
    Ok(())
}

/// What was recorded, taken out of the session.
fn take(history: &History) -> Record {
    std::mem::take(&mut *history.record())
}
