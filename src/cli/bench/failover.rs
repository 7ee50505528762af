//! `hactl bench failover`: the gap in accepted writes when the leader's machine loses power.
//!
//! A gap runs from the `kill -9` to the first answer to a write that was sent after it, to whichever master. The killed
//! master is started again and must have caught up before the next kill, so that every gap is that of a whole cluster.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::cluster;
use super::super::credentials::{Access, client_of};
use super::super::local::{self, Layout};
use super::super::progress::{Progress, count};
use super::options::duration;
use super::report::figures;
use super::writer::{Ledger, Writer};

const CONNECT_LIMIT: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const HEALTH_EVERY: Duration = Duration::from_millis(100);
/// A gap this long is no failover but an outage.
const GAP_MAX: Duration = Duration::from_secs(60);
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// Writing goes on this long between two kills, so that a kill meets a cluster in its usual state.
const SETTLE: Duration = Duration::from_millis(1500);
/// How many entries a member may be behind to count as caught up; writes go on meanwhile.
const LAG_MAX: u64 = 200;

/// Kill the leader again and again and measure how long no write is accepted
#[derive(Debug, clap::Args)]
pub struct Failover {
    /// How often the leader is killed
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: usize,
    /// The local cluster's directory [default: that of $KUBECONFIG, then ~/.hactl/local]
    #[arg(long, value_name = "DIR", env = "HACTL_LOCAL_DIR", hide_env = true)]
    dir: Option<PathBuf>,
    /// The namespace the writers write to
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// How many writers [default: one per endpoint]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: Option<u32>,
    /// Bytes that each write carries
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    value_size: u32,
    /// No kill begins later than this, in seconds or as 10s, 1m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// The masters that are written to, host:port each [default: all]
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Least milliseconds between two writes of one writer
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pace: u64,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    kills: usize,
    /// Milliseconds, in order of the kills.
    gaps_ms: Vec<f64>,
    median_ms: f64,
    p99_ms: f64,
    worst_ms: f64,
    writes_acknowledged: u64,
    writes_lost: Vec<String>,
    /// Of the writes, as the other benchmarks name them.
    #[serde(flatten)]
    writes: serde_json::Map<String, serde_json::Value>,
}

impl Failover {
    pub async fn run(self) -> Result<()> {
        let layout = match &self.dir {
            Some(dir) => Layout::load(dir)?,
            None => local_cluster(std::env::var_os("KUBECONFIG"))?,
        };
        anyhow::ensure!(
            layout.plan.masters.len() >= 3,
            "a cluster of {} master(s) cannot lose its leader; use `hactl local up --masters 3`",
            layout.plan.masters.len()
        );
        healthy(&layout, "before the first kill").await?;
        let run = format!("bench-{:08x}", rand::random::<u32>());
        let urls = self.urls(&layout);
        let count = self.clients.map_or(urls.len(), |clients| clients as usize);
        let ledger = Ledger::new(run, self.namespace.clone(), count);
        let stop = CancellationToken::new();
        let mut writers = tokio::task::JoinSet::new();
        let begun = Instant::now();
        for index in 0..count {
            let mut clients = Vec::new();
            for step in 0..urls.len() {
                let url = &urls[(index + step) % urls.len()];
                clients.push(client_of(&layout.kubeconfig(), url, CONNECT_LIMIT).await?);
            }
            let (pace, filling) = (Duration::from_millis(self.pace), "x".repeat(self.value_size as usize));
            let writer = Writer { index, clients, ledger: ledger.clone(), pace, filling };
            writers.spawn(writer.run(stop.clone()));
        }
        let gaps = tokio::select! {
            gaps = self.kill_again_and_again(&layout, &ledger) => gaps,
            Some(ended) = writers.join_next() => Err(ended?.err().unwrap_or_else(|| anyhow::anyhow!("a writer stopped early"))),
        };
        stop.cancel();
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        let gaps = gaps?;
        let client = Access::of(layout.kubeconfig()).kube().await?;
        let lost = ledger.lost(client.clone()).await?;
        ledger.measured().time = begun.elapsed();
        let report = report(gaps, &ledger, lost);
        if report.writes_lost.is_empty() {
            // Evidence of a loss stays in the cluster; otherwise only numbers do.
            ledger.clean(client).await?;
        }
        self.print(&report)
    }

    fn urls(&self, layout: &Layout) -> Vec<String> {
        if self.endpoints.is_empty() {
            return layout.plan.masters.iter().map(|master| master.url()).collect();
        }
        let url = |text: &String| if text.contains("://") { text.clone() } else { format!("https://{text}") };
        self.endpoints.iter().map(url).collect()
    }

    async fn kill_again_and_again(&self, layout: &Layout, ledger: &Ledger) -> Result<Vec<Duration>> {
        let mut gaps = Vec::new();
        let begun = Instant::now();
        tokio::time::sleep(SETTLE).await;
        for round in 1..=self.kills {
            if self.duration.is_some_and(|duration| begun.elapsed() >= duration) {
                break;
            }
            let leader = leader(layout).await?;
            ledger.forget_times();
            let killed = Instant::now();
            local::kill(layout, &leader)?;
            let gap = self.gap(ledger, killed).await;
            local::start(layout, &leader)?;
            let gap = gap.with_context(|| format!("after {leader} was killed"))?;
            super::super::progress::note(format!("kill {round}/{}: {leader}, gap {} ms", self.kills, gap.as_millis()));
            gaps.push(gap);
            healthy(layout, &format!("after kill {round}")).await?;
            tokio::time::sleep(SETTLE).await;
        }
        Ok(gaps)
    }

    async fn gap(&self, ledger: &Ledger, killed: Instant) -> Result<Duration> {
        loop {
            if let Some(answered) = ledger.first_after(killed) {
                return Ok(answered - killed);
            }
            if killed.elapsed() > GAP_MAX {
                bail!("no write was accepted for {} s; look at `hactl local status` and the logs", GAP_MAX.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn print(&self, report: &Report) -> Result<()> {
        if self.output.is_some() {
            println!("{}", serde_json::to_string_pretty(report)?);
        } else {
            println!(
                "{}: median {:.0} ms, p99 {:.0} ms, worst {:.0} ms without an accepted write",
                count(report.kills, "kill"),
                report.median_ms,
                report.p99_ms,
                report.worst_ms
            );
            println!("{} acknowledged, {} lost", count(report.writes_acknowledged, "write"), report.writes_lost.len());
            let times = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].map(|name| &report.writes[name]);
            let [p50, p90, p99, p999, max] = times;
            println!("write latency: p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} (ms)");
        }
        if !report.writes_lost.is_empty() {
            bail!("acknowledged writes were lost: {}", report.writes_lost.join("; "));
        }
        Ok(())
    }
}

async fn leader(layout: &Layout) -> Result<String> {
    let since = Instant::now();
    loop {
        if let Some(name) = local::collect(layout).await.leader() {
            return Ok(name.to_owned());
        }
        if since.elapsed() > HEALTHY_WITHIN {
            bail!("nobody leads; look at `hactl local status`");
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// The local cluster that $KUBECONFIG belongs to, as every other verb would use it.
fn local_cluster(kubeconfig: Option<OsString>) -> Result<Layout> {
    let Some(list) = kubeconfig.filter(|list| !list.is_empty()) else { return Layout::load(&Layout::default_dir()) };
    let file = std::env::split_paths(&list).next().unwrap_or_default();
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !Layout::exists(dir) {
        bail!(
            "$KUBECONFIG names {}, which is no local cluster's; this kills processes, so name one with --dir, or unset KUBECONFIG",
            file.display()
        );
    }
    Layout::load(dir)
}

/// Waits until every master votes, answers and has caught up.
async fn healthy(layout: &Layout, when: &str) -> Result<()> {
    let since = Instant::now();
    let mut progress = None;
    loop {
        let why = match cluster::status_of(&Access::of(layout.kubeconfig())).await {
            Err(error) => format!("{error:#}"),
            Ok(status) => {
                let ready = |member: &&rpc::pb::MemberStatus| member.voter && member.reachable && member.lag <= LAG_MAX;
                let count = status.members.iter().filter(ready).count();
                let all = layout.plan.masters.len();
                if count >= all && cluster::leader_name(&status).is_some() {
                    return Ok(());
                }
                format!("{count} of {all} masters have caught up")
            }
        };
        if since.elapsed() > HEALTHY_WITHIN {
            bail!("the cluster is not whole {when}: {why}; `hactl local up` starts what is missing");
        }
        if since.elapsed() > Duration::from_secs(3) {
            progress.get_or_insert_with(|| Progress::start("waiting until the cluster is whole")).detail(&why);
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

fn report(gaps: Vec<Duration>, ledger: &Ledger, lost: Vec<String>) -> Report {
    let gaps_ms: Vec<f64> = gaps.iter().map(|gap| (gap.as_secs_f64() * 1e4).round() / 10.0).collect();
    let mut sorted = gaps_ms.clone();
    sorted.sort_by(f64::total_cmp);
    Report {
        kills: gaps_ms.len(),
        median_ms: quantile(&sorted, 0.5),
        p99_ms: quantile(&sorted, 0.99),
        worst_ms: sorted.last().copied().unwrap_or_default(),
        gaps_ms,
        writes_acknowledged: ledger.acknowledged(),
        writes_lost: lost,
        writes: figures(&ledger.measured()),
    }
}

/// The smallest value that at least this part of all is not above.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_of_the_kubeconfig_is_meant() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("admin.kubeconfig");
        let refused = local_cluster(Some(file.clone().into())).expect_err("no cluster there").to_string();
        assert!(refused.contains("no local cluster's"), "{refused}");
        let (made, _ports) = Layout::load_or_plan(dir.path(), 3, 0).expect("plan");
        assert_eq!(local_cluster(Some(file.into())).expect("found").plan.port, made.plan.port);
    }

    #[test]
    fn quantiles_of_gaps() {
        let gaps = [300, 100, 200, 900].map(Duration::from_millis).to_vec();
        let ledger = Ledger::new("r".into(), "default".into(), 1);
        ledger.measured().note(Duration::from_millis(8));
        let report = report(gaps, &ledger, vec![]);
        assert!(report.writes["p99_ms"].as_f64().expect("a number") >= 8.0);
        assert_eq!((report.median_ms, report.p99_ms, report.worst_ms), (200.0, 900.0, 900.0));
        assert_eq!(report.gaps_ms, [300.0, 100.0, 200.0, 900.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
