//! `cargo run -p chaos -- run --scenario leader-kill --duration 60s`, `cargo run -p chaos -- sim --seeds 100`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chaos::{ALL, Cluster, Context, Random, duration};
use clap::Parser;

/// Faults and workloads against a cluster: of real processes, or simulated
#[derive(Debug, Parser)]
enum Command {
    /// Run one scenario on real processes
    Run(Run),
    /// Simulate clusters in virtual time, one per seed
    Sim(chaos::sim::command::Sim),
    /// Plant one bug after another and see that the simulation finds it; an optimized build needs `--features mutants`
    Mutants(chaos::sim::mutants::Mutants),
    /// Show the scenarios, and what is simulated
    List,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Its name, as `list` shows it
    #[arg(long, value_name = "NAME")]
    scenario: String,
    /// How long faults go on: `60s`, `10m`
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// What the faults are drawn from [default: a new one, printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The cluster's directory; one that exists is used and kept [default: a new one, removed after success]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The program [default: the one built beside this]
    #[arg(long, value_name = "FILE", env = "HACTL_PROGRAM")]
    hactl: Option<PathBuf>,
}

fn main() -> Result<()> {
    let command = Command::parse();
    // Before any other runtime exists: what tokio counts, it counts per process.
    if let Command::Sim(sim) = &command
        && sim.is_alone()
    {
        return sim.here();
    }
    tokio::runtime::Runtime::new()?.block_on(run(command))
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Run(run) => run.run().await,
        Command::Sim(sim) => sim.run().await,
        Command::Mutants(mutants) => mutants.run().await,
        Command::List => {
            let line = |name: &str, about: &str| println!("{name:<16} {about}");
            println!("Scenarios (run):");
            ALL.iter().for_each(|scenario| line(scenario.name, scenario.about));
            println!("Workloads (sim):");
            chaos::sim::workloads::ALL.iter().for_each(|workload| line(workload.name, workload.about));
            println!("Faults (sim):");
            chaos::sim::faults::ALL.iter().for_each(|fault| line(fault.name, fault.about));
            println!("Bugs planted on purpose (mutants):");
            chaos::sim::mutants::ALL.iter().for_each(|mutant| line(mutant.name, mutant.about));
            Ok(())
        }
    }
}

impl Run {
    async fn run(self) -> Result<()> {
        let Some(scenario) = ALL.iter().find(|scenario| scenario.name == self.scenario) else {
            bail!("there is no scenario `{}`; `chaos list` shows them", self.scenario);
        };
        let hactl = match self.hactl {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name("hactl"),
        };
        let seed = self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |since| since.as_nanos() as u64) & 0xFFFF_FFFF
        });
        let own = self.dir.is_none();
        let dir = self.dir.unwrap_or_else(|| std::env::temp_dir().join(format!("hactl-chaos-{seed}")));
        eprintln!("scenario {}, seed {seed}, cluster in {}", scenario.name, dir.display());
        let cluster = Cluster::up(&hactl, &dir, scenario.masters, scenario.nodes).await?;
        let mut context = Context { cluster, random: Random::new(seed), duration: self.duration };
        let report = (scenario.run)(&mut context)
            .await
            .with_context(|| format!("seed {seed}; the cluster is left in {}", dir.display()))?;
        println!("{}", serde_json::to_string_pretty(&report)?);
        if !report.violations.is_empty() {
            bail!("{} laws broken with seed {seed}; the cluster is left in {}", report.violations.len(), dir.display());
        }
        if own {
            context.cluster.down().await?;
        }
        Ok(())
    }
}
