//! `chaos sim`: each seed in a process of its own, and fewer faults for a seed that fails.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use futures::stream;

use super::mutants::Mutant;
use super::{Options, Report};
use crate::duration;

/// A simulation that takes longer stands still: something goes round and round at one virtual instant.
const WALL_MAX: Duration = Duration::from_secs(600);

/// Numbers of faults; perhaps none.
#[derive(Clone, Debug)]
struct Numbers(Vec<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    let numbers = text.split(',').filter(|one| !one.is_empty()).map(str::parse).collect::<Result<_, _>>();
    numbers.map(Numbers).map_err(|_| "write for example 0,4,7".to_owned())
}

fn kind(name: &str) -> Result<String, String> {
    let known = super::faults::ALL.iter().any(|fault| fault.name == name);
    if known { Ok(name.to_owned()) } else { Err("there is no such fault; `chaos list` shows them".to_owned()) }
}

#[derive(Debug, clap::Args)]
pub struct Sim {
    /// The first seed [default: a new one, printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many seeds, counting up from the first
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seeds: u64,
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    masters: u64,
    /// Kubelets; 0: only the replicated store
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    nodes: u64,
    /// How long faults happen, in virtual time: `60s`, `10m`
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// How many times as long as they might be all pauses are [default: what the seed says]
    #[arg(long, value_name = "NUMBER")]
    pace: Option<u64>,
    /// How many times as long as by default heartbeats and elections take
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    timings: u64,
    /// Draw only faults of these names, as `chaos list` shows them: `kill,halves`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = kind)]
    faults: Vec<String>,
    /// Only these of a seed's faults, by number: `0,4,7`
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    only: Option<Numbers>,
    /// Where the trace of what happened goes; `-` prints it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Seeds at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    jobs: usize,
    /// Leave a seed that fails as it is, with all its faults
    #[arg(long)]
    no_shrink: bool,
    /// With this bug planted on purpose; an optimized build needs `--features mutants`
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// This process is the simulation: the report goes to its standard output
    #[arg(long, hide = true)]
    alone: bool,
}

impl Sim {
    /// # Errors
    /// When a law is broken, or a simulation cannot be run.
    pub async fn run(self) -> Result<()> {
        let first = self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |since| since.as_nanos() as u64) & 0xFFFF_FFFF
        });
        let began = std::time::Instant::now();
        let seeds = stream::iter(first..first + self.seeds);
        let mut reports = seeds.map(|seed| self.child(seed, self.only())).buffered(self.jobs.max(1));
        let (mut virtual_seconds, mut cpu_seconds, mut failed) = (0.0, 0.0, Vec::new());
        while let Some(report) = reports.next().await {
            let report = report?;
            virtual_seconds += report.virtual_seconds;
            cpu_seconds += report.cpu_seconds;
            println!("{}", line(&report));
            if !report.broken.is_empty() {
                report.broken.iter().for_each(|broken| println!("    {broken}"));
                failed.push(report);
            }
        }
        let wall = began.elapsed().as_secs_f64();
        println!(
            "{} seeds, {:.2} virtual hours in {wall:.1} s, {cpu_seconds:.1} s of one core: {:.0} × real time; {} failed",
            self.seeds,
            virtual_seconds / 3600.0,
            virtual_seconds / cpu_seconds,
            failed.len()
        );
        if let Some(report) = failed.first() {
            let only = if self.no_shrink { self.only() } else { Some(self.shrink(report).await?) };
            println!("again: cargo run -p chaos -- {}", self.arguments(report.seed, only.as_deref()).join(" "));
            bail!("{} of {} seeds break a law, the first is {}", failed.len(), self.seeds, report.seed);
        }
        Ok(())
    }

    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Runs one simulation in this process.
    ///
    /// # Errors
    /// When its trace or report cannot be written.
    pub fn here(&self) -> Result<()> {
        let seed = self.seed.context("a simulation has a seed")?;
        if let Some(name) = &self.mutant {
            super::mutants::choose(name)?;
        }
        if std::env::var_os("RUST_LOG").is_some() {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .without_time()
                .init();
        }
        let report = super::run(&Options {
            seed,
            masters: self.masters,
            nodes: self.nodes,
            duration: self.duration,
            pace: self.pace,
            timings: self.timings,
            kinds: self.faults.clone(),
            only: self.only(),
            trace: self.trace.is_some(),
        });
        if let Some(path) = &self.trace {
            if path.as_os_str() == "-" {
                eprint!("{}", report.trace);
            } else {
                std::fs::write(path, &report.trace).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn only(&self) -> Option<Vec<usize>> {
        self.only.as_ref().map(|only| only.0.clone())
    }

    fn arguments(&self, seed: u64, only: Option<&[usize]>) -> Vec<String> {
        let mut arguments = vec!["sim".to_owned(), "--seed".to_owned(), seed.to_string()];
        arguments.extend(["--masters".to_owned(), self.masters.to_string()]);
        arguments.extend(["--nodes".to_owned(), self.nodes.to_string()]);
        arguments.extend(["--duration".to_owned(), format!("{}s", self.duration.as_secs())]);
        if !self.faults.is_empty() {
            arguments.extend(["--faults".to_owned(), self.faults.join(",")]);
        }
        if let Some(pace) = self.pace {
            arguments.extend(["--pace".to_owned(), pace.to_string()]);
        }
        if self.timings != 1 {
            arguments.extend(["--timings".to_owned(), self.timings.to_string()]);
        }
        if let Some(mutant) = &self.mutant {
            arguments.extend(["--mutant".to_owned(), mutant.clone()]);
        }
        if let Some(only) = only {
            let numbers: Vec<String> = only.iter().map(ToString::to_string).collect();
            arguments.push(format!("--only={}", numbers.join(",")));
        }
        arguments
    }

    /// The simulation of one mutant, as its row says, with or without its bug.
    pub(super) fn of_mutant(mutant: &Mutant, planted: bool) -> Self {
        Self {
            seed: Some(mutant.seed),
            seeds: 1,
            masters: mutant.masters,
            nodes: mutant.nodes,
            duration: mutant.duration,
            pace: None,
            timings: 1,
            faults: mutant.faults.iter().map(ToString::to_string).collect(),
            only: None,
            trace: None,
            jobs: 1,
            no_shrink: true,
            mutant: planted.then(|| mutant.name.to_owned()),
            alone: false,
        }
    }

    pub(super) async fn child(&self, seed: u64, only: Option<Vec<usize>>) -> Result<Report> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.args(self.arguments(seed, only.as_deref())).arg("--alone");
        if let Some(path) = &self.trace {
            command.arg("--trace").arg(path);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
        let broken = |what: String| Report { seed, broken: vec![what], ..Report::default() };
        let Ok(output) = tokio::time::timeout(WALL_MAX, output).await else {
            return Ok(broken(format!("time goes on: no end after {} s", WALL_MAX.as_secs())));
        };
        let output = output?;
        if !output.status.success() {
            return Ok(broken(format!("the simulation ends: {}", output.status)));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("seed {seed} reports something else"))
    }

    /// The fewest faults, by number, with which a seed still fails: halves are left out first, single ones last.
    async fn shrink(&self, report: &Report) -> Result<Vec<usize>> {
        let number = |name: &String| name.split(':').next().and_then(|number| number.parse().ok());
        let mut left: Vec<usize> = report.faults.iter().filter_map(number).collect();
        let mut size = left.len().div_ceil(2).max(1);
        while !left.is_empty() {
            let mut at = 0;
            while at < left.len() {
                let mut fewer = left.clone();
                fewer.drain(at..(at + size).min(left.len()));
                if self.child(report.seed, Some(fewer.clone())).await?.broken.is_empty() {
                    at += size;
                } else {
                    left = fewer;
                }
            }
            if size == 1 {
                break;
            }
            size = size.div_ceil(2);
        }
        let named: Vec<&str> = report
            .faults
            .iter()
            .filter(|name| number(name).is_some_and(|one| left.contains(&one)))
            .map(String::as_str)
            .collect();
        println!("seed {} fails with these faults alone: {}", report.seed, named.join(" "));
        Ok(left)
    }
}

fn line(report: &Report) -> String {
    format!(
        "seed {}: {}, {:.0} s in {:.2} s ({:.0} ×), {} faults of {} took effect, {} calls answered, {} unknown, {} messages, digest {}",
        report.seed,
        if report.broken.is_empty() { "all laws hold" } else { "BROKEN" },
        report.virtual_seconds,
        report.cpu_seconds,
        report.virtual_seconds / report.cpu_seconds.max(f64::EPSILON),
        report.effective.len(),
        report.faults.len(),
        report.answered,
        report.unknown,
        report.messages,
        report.digest
    )
}
