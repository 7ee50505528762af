//! Bugs planted on purpose, each with a seed that catches it. Where they are compiled in, `state::mutants` says.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt as _;
use futures::stream;

use super::command::Sim;

const NONE: &str =
    "this build has no bugs planted; take one for development, or an optimized one with --features mutants";

pub struct Mutant {
    pub name: &'static str,
    pub about: &'static str,
    pub seed: u64,
    pub masters: u64,
    pub nodes: u64,
    pub duration: Duration,
    /// The faults that show it best; none: all.
    pub faults: &'static [&'static str],
}

const fn mutant(name: &'static str, about: &'static str, seed: u64) -> Mutant {
    Mutant { name, about, seed, masters: 3, nodes: 0, duration: Duration::from_secs(30), faults: &[] }
}

const fn shown_by(
    faults: &'static [&'static str],
    seconds: u64,
    name: &'static str,
    about: &'static str,
    seed: u64,
) -> Mutant {
    Mutant { faults, duration: Duration::from_secs(seconds), ..mutant(name, about, seed) }
}

/// Rows that name their faults stay right when other faults are added.
pub const ALL: &[Mutant] = &[
    shown_by(&["power", "power-all"], 10, "unsynced-ack", "a write is acknowledged before it is synced", 5),
    shown_by(
        &["isolate-leader", "halves"],
        10,
        "stale-read",
        "a leader answers reads without asking whether it still leads",
        1,
    ),
    shown_by(&["kill", "halves"], 10, "lost-event", "a watcher steps over what did not fit into its batch", 1),
    shown_by(&["isolate-leader", "power-all", "restart-all"], 20, "forgotten-vote", "a vote is not written down", 4),
    shown_by(&["deposed"], 60, "kept-tail", "what a new leader replaced is not removed from the log", 19),
    shown_by(
        &["kill-leader", "slow-disk", "delay", "power", "transfer"],
        60,
        "fresh-proposal",
        "a proposal that is made again has another id",
        49,
    ),
    shown_by(
        &["reseed", "snapshot", "power"],
        20,
        "torn-snapshot",
        "a snapshot counts as complete before it is synced",
        1,
    ),
    shown_by(
        &["restart-all", "kill", "power-all"],
        20,
        "reused-revision",
        "the revisions of the last deletions are free again after a restart",
        6,
    ),
    shown_by(
        &["relieve", "replace", "transfer", "kill-leader"],
        10,
        "hasty-raise",
        "newer rules are used before all masters know them",
        9,
    ),
    Mutant {
        nodes: 1,
        ..shown_by(
            &["lapse"],
            30,
            "doubled-pod",
            "a plan is made again before it is known what became of the one before",
            3,
        )
    },
];

/// Plants one in this process.
///
/// # Errors
/// When there is none of that name, or none at all in this build.
pub fn choose(name: &str) -> Result<()> {
    if !ALL.iter().any(|mutant| mutant.name == name) {
        bail!("there is no mutant `{name}`; `chaos list` shows them");
    }
    if !state::mutants::choose(name) {
        bail!("{NONE}");
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub struct Mutants {
    /// Only these [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Seeds tried, from a mutant's own on, before it counts as missed
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    seeds: u64,
    /// Mutants at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    jobs: usize,
}

impl Mutants {
    /// Runs every mutant until some seed catches it.
    ///
    /// # Errors
    /// When one is not caught.
    pub async fn run(self) -> Result<()> {
        if !state::mutants::ARE_PLANTED {
            bail!("{NONE}");
        }
        if let Some(name) = self.names.iter().find(|name| !ALL.iter().any(|mutant| mutant.name == **name)) {
            bail!("there is no mutant `{name}`; `chaos list` shows them");
        }
        let chosen =
            ALL.iter().filter(|mutant| self.names.is_empty() || self.names.iter().any(|name| name == mutant.name));
        let seeds = self.seeds;
        let hunts = stream::iter(chosen).map(|mutant| async move { (mutant, hunt(mutant, seeds).await) });
        let mut hunts = hunts.buffered(self.jobs.max(1));
        let mut missed = Vec::new();
        while let Some((mutant, caught)) = hunts.next().await {
            match caught? {
                Some((seed, law)) => println!("{:<16} caught by seed {seed}: {law}", mutant.name),
                None => {
                    let last = mutant.seed + self.seeds.max(1) - 1;
                    println!("{:<16} MISSED by seeds {} to {last}", mutant.name, mutant.seed);
                    missed.push(mutant.name);
                }
            }
        }
        if !missed.is_empty() {
            bail!("not caught: {}", missed.join(", "));
        }
        Ok(())
    }
}

/// The first seed that catches it, and the first law that it breaks; without the bug the seed must break none.
async fn hunt(mutant: &Mutant, seeds: u64) -> Result<Option<(u64, String)>> {
    let (with, without) = (Sim::of_mutant(mutant, true), Sim::of_mutant(mutant, false));
    for seed in mutant.seed..mutant.seed + seeds {
        let report = with.child(seed, None).await?;
        let Some(law) = report.broken.into_iter().next() else { continue };
        if let Some(broken) = without.child(seed, None).await?.broken.into_iter().next() {
            bail!("seed {seed} proves nothing about {}: without it {broken}", mutant.name);
        }
        return Ok(Some((seed, law)));
    }
    Ok(None)
}
