//! `cargo run -p chaos -- run --scenario leader-kill --duration 60s`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chaos::{ALL, Cluster, Context, Random};
use clap::Parser;

/// Faults and workloads against a real cluster of processes
#[derive(Debug, Parser)]
enum Command {
    /// Run one scenario
    Run(Run),
    /// Show the scenarios
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

fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| "write for example 60s or 10m".to_owned())?;
    match &text[end..] {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("write for example 60s or 10m".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Run(run) => run.run().await,
        Command::List => {
            for scenario in ALL {
                println!("{:<14} {}", scenario.name, scenario.about);
            }
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
