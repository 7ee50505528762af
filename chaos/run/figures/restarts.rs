//! Every master is restarted in turn, as planned, while clients write with retries.

use anyhow::Result;

use super::{Bench, Found};
use crate::run::history::Micros;
use crate::run::report::{quantile, time};
use crate::run::targets::Signal;

/// Of each write: a p99 over all of them would hide a few long ones at each restart.
const LONGEST: Micros = 500_000;

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    bench.settled().await?;
    let history = bench.session.stage.history.clone();
    let from = history.now();
    let masters = bench.session.stage.masters();
    for master in &masters {
        let stage = &bench.session.stage;
        stage.target.signal(&master.name, Signal::Terminate).await?;
        stage.target.start(&master.name).await?;
        bench.settled().await?;
    }
    let to = history.now();
    probe.end("a writer").await?;
    let record = history.record();
    let during = record.operations.iter().filter(|one| one.begun >= from && one.end() <= to);
    let (done, failed): (Vec<_>, Vec<_>) = during.partition(|one| one.is_acknowledged_write());
    let mut times: Vec<Micros> = done.iter().map(|one| one.end() - one.begun).collect();
    times.sort_unstable();
    let p99 = quantile(&times, 0.99);
    let longest = times.last().copied().unwrap_or_default();
    let words = format!(
        "{} masters restarted: {} of {} writes failed; p50 {}, p99 {}, longest {}",
        masters.len(),
        failed.len(),
        times.len() + failed.len(),
        time(quantile(&times, 0.5)),
        time(p99),
        time(longest)
    );
    Ok(Found { words, good: failed.is_empty() && longest <= LONGEST && !times.is_empty() })
}
