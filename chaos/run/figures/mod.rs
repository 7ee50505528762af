//! `chaos figures`: how long the cluster is away when a part of it fails, against what it promises. One file and one row each.
//!
//! Writers write all the time ([`probe`]); a gap runs from the last write accepted before a fault took effect to the next
//! accepted one. A cluster is whole again before the next fault, so that every gap is that of a whole one.

mod controllers;
mod cut_off;
mod follower;
mod leader_killed;
mod needless;
mod node_killed;
mod probe;
mod restarts;
mod topology;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::history::Micros;
use super::report::{gap_at, quantile, time};
use super::targets::{Ability, Choice, Plan, Target};
use super::{Noting, Session, command};
use crate::{Random, duration};

/// What a figure needs of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Masters,
    /// Two nodes, too.
    Nodes,
    /// Machines that can be cut off from each other.
    Machines,
    /// Those, with nodes.
    MachinesAndNodes,
}

type Measure = for<'a> fn(&'a mut Bench) -> Pin<Box<dyn Future<Output = Result<Found>> + Send + 'a>>;

pub struct Figure {
    pub name: &'static str,
    /// What is promised.
    pub aim: &'static str,
    pub wants: Wants,
    /// Settings that it is measured with, where they are not the defaults.
    settings: &'static [(&'static str, &'static str)],
    /// How long it takes by default, of those that last.
    lasts: Duration,
    measure: Measure,
}

pub const ALL: &[Figure] = &[
    Figure {
        name: "leader-killed",
        aim: "last to next accepted write: median at most 500 ms, p99 at most 1.5 s",
        wants: Wants::Masters,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(leader_killed::measure(bench)),
    },
    Figure {
        name: "restarts",
        aim: "planned restart of every master under load: no request fails with retries, none takes more than 500 ms",
        wants: Wants::Masters,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(restarts::measure(bench)),
    },
    Figure {
        name: "controllers",
        aim: "after loss of the leader controllers act within 1 s of the new leader's first write",
        wants: Wants::Masters,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(controllers::measure(bench)),
    },
    Figure {
        name: "follower",
        aim: "a follower that was away under load catches up without a dent in writes",
        wants: Wants::Masters,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(follower::measure(bench)),
    },
    Figure {
        name: "node-killed",
        aim: "a dead node's pods run elsewhere within 15 s",
        wants: Wants::Nodes,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(node_killed::measure(bench, false, Duration::from_secs(15))),
    },
    Figure {
        name: "node-killed-tuned",
        aim: "the same within 5 s, with node-silence and eviction-after at 1 s",
        wants: Wants::Nodes,
        settings: &[("node-silence", "1s"), ("eviction-after", "1s")],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(node_killed::measure(bench, false, Duration::from_secs(5))),
    },
    Figure {
        name: "machine-killed",
        aim: "a machine that leads and runs pods dies: pods elsewhere within 15 s, and the gap of a killed leader",
        wants: Wants::Nodes,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(node_killed::measure(bench, true, Duration::from_secs(15))),
    },
    Figure {
        name: "cut-off",
        aim: "the leader is cut off: a write is accepted within 2 s, and its side answers nothing stale",
        wants: Wants::Machines,
        settings: &[],
        lasts: Duration::ZERO,
        measure: |bench| Box::pin(cut_off::measure(bench)),
    },
    Figure {
        name: "topology",
        aim: "one-way and flapping partitions: at most one change of leader per change of topology",
        wants: Wants::Machines,
        settings: &[],
        lasts: Duration::from_secs(1_800),
        measure: |bench| Box::pin(topology::measure(bench)),
    },
    Figure {
        name: "needless",
        aim: "10 % of packets lost, every core busy: no pod is moved",
        wants: Wants::MachinesAndNodes,
        settings: &[],
        lasts: Duration::from_secs(3_600),
        measure: |bench| Box::pin(needless::measure(bench)),
    },
];

/// What was measured.
pub struct Found {
    words: String,
    /// Whether it is as promised.
    good: bool,
}

/// A cluster to measure, under load.
pub struct Bench {
    session: Session,
    kills: usize,
    duration: Duration,
    away: Duration,
}

#[derive(Debug, clap::Args)]
pub struct Figures {
    /// Only these, as `list` names them [default: all that the target can]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// How often a leader is killed or cut off, and leadership lost
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: usize,
    /// How long partitions change and packets are lost [default: 30m and 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// How long a follower is away
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    away: Duration,
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Also as JSON, into this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    #[command(flatten)]
    choice: Choice,
}

impl Figures {
    /// # Errors
    /// When a figure cannot be taken, or one is not as promised.
    pub async fn run(self) -> Result<()> {
        for name in &self.only {
            if !ALL.iter().any(|figure| figure.name == *name) {
                bail!("there is no figure `{name}`; `chaos list` shows them");
            }
        }
        let seed = self.seed.unwrap_or_else(command::fresh_seed);
        let chosen = |figure: &&Figure| self.only.is_empty() || self.only.iter().any(|name| name == figure.name);
        let (mut bad, mut rows) = (Vec::new(), Vec::new());
        for (number, figure) in ALL.iter().filter(chosen).enumerate() {
            match self.one(figure, seed + number as u64).await.with_context(|| figure.name)? {
                None => println!("{:<18} -       needs --target lab ({})", figure.name, figure.aim),
                Some(found) => {
                    println!("{:<18} {:<7} {}", figure.name, if found.good { "good" } else { "MISSED" }, found.words);
                    println!("{:<18}         aim: {}", "", figure.aim);
                    rows.push(serde_json::json!({
                        "name": figure.name, "aim": figure.aim, "good": found.good, "found": found.words,
                    }));
                    if !found.good {
                        bad.push(figure.name);
                    }
                }
            }
        }
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
        }
        if !bad.is_empty() {
            bail!("not as promised: {}", bad.join(", "));
        }
        Ok(())
    }

    async fn one(&self, figure: &Figure, seed: u64) -> Result<Option<Found>> {
        let nodes = if matches!(figure.wants, Wants::Nodes | Wants::MachinesAndNodes) { 2 } else { 0 };
        let settings = figure.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let target = self.choice.make(Plan { masters: 3, nodes, settings, ..Plan::default() }, seed)?;
        let abilities = target.abilities();
        let machines = matches!(figure.wants, Wants::Machines | Wants::MachinesAndNodes);
        if machines && !abilities.contains(&Ability::Partitions) {
            return Ok(None);
        }
        eprintln!("measuring {}", figure.name);
        let measured = self.on(figure, &target, seed).await;
        target.down(measured.is_err()).await?;
        measured.map(Some)
    }

    async fn on(&self, figure: &Figure, target: &Arc<dyn Target>, seed: u64) -> Result<Found> {
        target.up().await?;
        let session = Session::begin(target.clone(), Random::new(seed), seed).await?;
        let mut bench =
            Bench { session, kills: self.kills, duration: self.duration.unwrap_or(figure.lasts), away: self.away };
        let found = tokio::select! {
            found = (figure.measure)(&mut bench) => found,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        bench.session.end().await?;
        found
    }
}

/// After a fault a write must be accepted within this, or the cluster has stopped.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(60);
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// Work goes on for so long between two faults, so that a fault meets a cluster in its usual state.
const SETTLE: Duration = Duration::from_millis(1_500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Bench {
    fn probe(&mut self) -> Noting {
        self.session.start(&[&probe::PROBE], false)
    }

    /// The gap that a fault made which began at this time, once writes are accepted again.
    async fn gap(&self, at: Micros) -> Result<Micros> {
        let history = &self.session.stage.history;
        let struck = history.now();
        let since = std::time::Instant::now();
        while history.accepted_after(struck).is_none() {
            if since.elapsed() > ACCEPTED_WITHIN {
                bail!("no write was accepted for {} s", ACCEPTED_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        gap_at(&history.record().operations, at).context("no write was accepted")
    }

    /// Whole, with a leader, and so for a while.
    async fn settled(&self) -> Result<String> {
        self.session.stage.whole(WHOLE_WITHIN).await?;
        tokio::time::sleep(SETTLE).await;
        self.session.stage.wait_for_leader(WHOLE_WITHIN).await
    }
}

/// Times in words: median, p99, longest.
fn spread(times: &mut [Micros]) -> String {
    times.sort_unstable();
    let at = |part| time(quantile(times, part));
    format!(
        "median {}, p99 {}, longest {} of {}",
        at(0.5),
        at(0.99),
        time(times.last().copied().unwrap_or_default()),
        times.len()
    )
}
