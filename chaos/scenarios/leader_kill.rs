//! The leader is killed again and again under counting writers. Between two kills the cluster becomes whole, so that there
//! is always a majority and writes must go on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::writers::Writers;
use crate::{Context, Report, judge};

/// After a kill a write must be acknowledged within this, or the cluster has stopped.
const WRITES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub async fn run(context: &mut Context) -> Result<Report> {
    let clients = context.cluster.clients().await?;
    let writers = Writers::start(&clients);
    let mut report = Report::default();
    let since = Instant::now();
    while since.elapsed() < context.duration || report.faults == 0 {
        tokio::time::sleep(Duration::from_millis(context.random.between(200, 1500))).await;
        let leader = context.cluster.leader().await?;
        context.cluster.kill(&leader).await?;
        report.faults += 1;
        let before = writers.acknowledged();
        let killed = Instant::now();
        while writers.acknowledged() == before {
            if killed.elapsed() > WRITES_WITHIN {
                bail!("no write was accepted for {} s after {leader} was killed", WRITES_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // The dead master stays away for a while, so that some restarts need a snapshot's worth of log and some nothing.
        tokio::time::sleep(Duration::from_millis(context.random.between(0, 2000))).await;
        context.cluster.start(&leader).await?;
        context.cluster.whole().await?;
    }
    let ledger = writers.stop().await?;
    context.cluster.whole().await?;
    report.writes_acknowledged = ledger.names.len() as u64;
    report.stall_ms_max = ledger.stall_max.as_millis() as u64;
    report.violations = judge::judge(&clients, &ledger.names).await?;
    Ok(report)
}
