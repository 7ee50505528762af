//! Bugs planted on purpose, each with a seed that catches it. They are compiled in with the feature `mutants` only.

use std::time::Duration;

use anyhow::{Result, bail};

use super::command::Sim;

/// Seeds that are tried, from a mutant's own on, before it counts as missed.
const SEEDS: u64 = 40;

pub struct Mutant {
    pub name: &'static str,
    pub about: &'static str,
    pub seed: u64,
    pub masters: u64,
    pub duration: Duration,
}

const fn mutant(name: &'static str, about: &'static str, seed: u64) -> Mutant {
    Mutant { name, about, seed, masters: 3, duration: Duration::from_secs(30) }
}

pub const ALL: &[Mutant] = &[
    mutant("unsynced-ack", "a write is acknowledged before it is synced", 1),
    mutant("stale-read", "a leader answers reads without asking whether it still leads", 1),
    mutant("lost-event", "a watcher steps over what did not fit into its batch", 1),
    mutant("forgotten-vote", "a vote is not written down", 4),
    mutant("kept-tail", "what a new leader replaced is not removed from the log", 1),
    mutant("fresh-proposal", "a proposal that is made again has another id", 2),
    mutant("torn-snapshot", "a snapshot counts as complete before it is synced", 1),
];

/// Plants one in this process.
///
/// # Errors
/// When there is none of that name, or none at all in this build.
pub fn choose(name: &str) -> Result<()> {
    if !ALL.iter().any(|mutant| mutant.name == name) {
        bail!("there is no mutant `{name}`; `chaos list` shows them");
    }
    #[cfg(feature = "mutants")]
    replica::mutants::choose(name);
    #[cfg(not(feature = "mutants"))]
    bail!("this build has no bugs planted; run: cargo run -p chaos --features mutants -- mutants");
    #[cfg(feature = "mutants")]
    Ok(())
}

/// Runs every mutant until some seed catches it.
///
/// # Errors
/// When one is not caught.
pub async fn run() -> Result<()> {
    let mut missed = Vec::new();
    for mutant in ALL {
        if cfg!(not(feature = "mutants")) {
            choose(mutant.name)?;
        }
        let sim = Sim::of_mutant(mutant);
        let mut caught = None;
        for seed in mutant.seed..mutant.seed + SEEDS {
            let report = sim.child(seed, None).await?;
            if let Some(law) = report.broken.first() {
                caught = Some((seed, law.clone()));
                break;
            }
        }
        match caught {
            Some((seed, law)) => println!("{:<16} caught by seed {seed}: {law}", mutant.name),
            None => {
                println!("{:<16} MISSED by seeds {} to {}", mutant.name, mutant.seed, mutant.seed + SEEDS - 1);
                missed.push(mutant.name);
            }
        }
    }
    if !missed.is_empty() {
        bail!("not caught: {}", missed.join(", "));
    }
    Ok(())
}
