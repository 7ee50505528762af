//! `chaos run`: one scenario on one target, and its report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Title};
use super::scenarios::Scenario;
use super::targets::{Choice, Target};
use super::{Script, Session, check, nemeses, perform, plan, take};
use crate::{Random, duration};

#[derive(Debug, clap::Args)]
pub struct Run {
    /// Its name, as `list` shows it
    #[arg(long, value_name = "NAME")]
    scenario: String,
    /// How long faults go on: `60s`, `10m`
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// What the faults are drawn from [default: a new one, printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    choice: Choice,
    /// How many masters (local, lab) [default: as the scenario says]
    #[arg(long, value_name = "N")]
    masters: Option<usize>,
    /// How many nodes (local, lab) [default: as the scenario says]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Nemeses of the scenario to leave out
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    without: Vec<String>,
    /// How many faults at once [default: as the scenario says]
    #[arg(long, value_name = "N")]
    at_once: Option<usize>,
    /// The program that the nemesis `upgrade` puts in hactl's place
    #[arg(long, value_name = "FILE")]
    upgrade_to: Option<PathBuf>,
    /// Where the report goes: report.html, report.json and history.jsonl [default: a new directory, printed]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// A seed of its own for each run.
pub fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64) & 0xFFFF_FFFF
}

/// Is cancelled by Ctrl-C; a second one ends the process as ever.
pub fn interrupted() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("undoing the faults; once more ends at once");
            cancelled.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    token
}

impl Run {
    fn script(&self, scenario: &Scenario) -> Result<Script> {
        for name in &self.without {
            nemeses::find(name)?;
        }
        let mut rows = scenario.nemeses()?;
        rows.retain(|row| !self.without.iter().any(|name| name == row.name));
        if self.upgrade_to.is_none() {
            if scenario.name == "upgrade" {
                bail!("the scenario upgrade needs --upgrade-to FILE");
            }
            rows.retain(|row| row.name != "upgrade");
        }
        let at_once = self.at_once.unwrap_or(scenario.at_once).max(1);
        Ok(Script { workloads: scenario.workloads()?, nemeses: rows, at_once, duration: self.duration })
    }

    /// # Errors
    /// When a law is broken, or the run could not be carried out.
    pub async fn run(self) -> Result<()> {
        let scenario = Scenario::find(&self.scenario)?;
        let script = self.script(scenario)?;
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let (masters, nodes) = (self.masters.unwrap_or(scenario.masters), self.nodes.unwrap_or(scenario.nodes));
        let target = self.choice.make(plan(masters, nodes, &script.nemeses), seed)?;
        check(&*target, &script.nemeses)?;
        let directory =
            self.report.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("hactl-chaos-report-{seed}")));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        eprintln!("scenario {} on {}, seed {seed}", scenario.name, target.name());
        let performed = self.on(&target, &script, scenario, seed).await;
        let holds = performed.as_ref().is_ok_and(Report::holds);
        let ended = target.down(!holds).await.context("cannot clean up");
        let report = performed.with_context(|| format!("seed {seed}; what is left of the cluster stays"))?;
        report.write(&directory)?;
        print!("{}", report.summary());
        println!("report: {}", directory.join("report.html").display());
        ended?;
        if !holds {
            bail!("laws are broken or could not be judged, with seed {seed}; the data of the cluster stays");
        }
        Ok(())
    }

    /// The command that does it again.
    fn repeat(&self, scenario: &Scenario, target: &str, seed: u64) -> String {
        let seconds = self.duration.as_secs();
        let mut words =
            format!("chaos run --scenario {} --target {target} --duration {seconds}s --seed {seed}", scenario.name);
        let counts = [("masters", self.masters), ("nodes", self.nodes), ("at-once", self.at_once)];
        for (flag, count) in counts.into_iter().filter_map(|(flag, count)| Some((flag, count?))) {
            words = format!("{words} --{flag} {count}");
        }
        if !self.without.is_empty() {
            words = format!("{words} --without {}", self.without.join(","));
        }
        for setting in &self.choice.settings {
            words = format!("{words} --set {setting}");
        }
        if let Some(program) = &self.upgrade_to {
            words = format!("{words} --upgrade-to {}", program.display());
        }
        words
    }

    async fn on(&self, target: &Arc<dyn Target>, script: &Script, scenario: &Scenario, seed: u64) -> Result<Report> {
        target.up().await?;
        let mut session = Session::begin(target.clone(), Random::new(seed), seed).await?;
        session.stage.upgrade_to = self.upgrade_to.as_ref().map(std::path::absolute).transpose()?;
        if script.nemeses.iter().any(|row| row.name == "certificates") {
            session.stage.certificate_life = Some(nemeses::CERTIFICATE_LIFE);
        }
        let performed = perform(&mut session, script, interrupted()).await;
        let history = session.stage.history.clone();
        session.end().await?;
        performed?;
        let title = Title {
            scenario: scenario.name.to_owned(),
            about: scenario.about.to_owned(),
            target: target.name().to_owned(),
            seed,
            masters: target.masters().into_iter().map(|master| master.name).collect(),
            nodes: target.nodes().len(),
            nemeses: script.nemeses.iter().map(|row| (row.name.to_owned(), row.about.to_owned())).collect(),
            workloads: script.workloads.iter().map(|one| (one.name.to_owned(), one.about.to_owned())).collect(),
            repeat: self.repeat(scenario, target.name(), seed),
        };
        Ok(Report::of(title, take(&history)))
    }
}
