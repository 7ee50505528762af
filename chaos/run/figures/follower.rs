//! A follower is away for a long time under load, and returns: writes must not suffer while it catches up.

use anyhow::Result;

use super::{Bench, Found};
use crate::run::history::{Micros, Record};
use crate::run::report::{quantile, time};
use crate::run::stage::Prefer;
use crate::run::targets::Signal;

/// Before its return and after it, so much is compared at most.
const WINDOW: Micros = 20_000_000;
/// A rate below this part of the one before is a dent, and so is a p99 above that many times the one before, where it is above
/// what nobody notices, or a gap of half a second.
const RATE_LEAST: f64 = 0.8;
const P99_TIMES: Micros = 3;
const P99_UNNOTICED: Micros = 50_000;
const GAP_MAX: Micros = 500_000;

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    bench.settled().await?;
    let away = bench.away;
    let stage = &mut bench.session.stage;
    let history = stage.history.clone();
    let follower = stage.take_master(Prefer::Follower).ok_or_else(|| anyhow::anyhow!("there is no follower"))?;
    stage.target.signal(&follower, Signal::Kill).await?;
    tokio::time::sleep(away).await;
    let from = history.now();
    stage.target.start(&follower).await?;
    stage.serve(std::slice::from_ref(&follower), super::WHOLE_WITHIN).await?;
    let caught_up = history.now();
    stage.free(&follower);
    bench.settled().await?;
    let to = history.now();
    probe.end("a writer").await?;
    let record = history.record();
    let before = window(&record, from.saturating_sub(WINDOW), from);
    let after = window(&record, from, to.min(from + WINDOW));
    let words = format!(
        "away for {} s; serves again after {}; writes/s {:.0} before and {:.0} after, p99 {} and {}, longest gap {}",
        away.as_secs(),
        time(caught_up - from),
        before.rate,
        after.rate,
        time(before.p99),
        time(after.p99),
        time(after.gap)
    );
    let quick = after.p99 <= P99_UNNOTICED.max(P99_TIMES * before.p99);
    Ok(Found { words, good: after.rate >= RATE_LEAST * before.rate && quick && after.gap <= GAP_MAX })
}

struct Window {
    rate: f64,
    p99: Micros,
    gap: Micros,
}

fn window(record: &Record, from: Micros, to: Micros) -> Window {
    let writes = record.operations.iter().filter(|one| one.is_acknowledged_write() && (from..to).contains(&one.end()));
    let (mut times, mut ends): (Vec<Micros>, Vec<Micros>) =
        writes.map(|one| (one.end() - one.begun, one.end())).unzip();
    times.sort_unstable();
    ends.sort_unstable();
    let gap = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(to - from);
    let rate = ends.len() as f64 / ((to - from).max(1) as f64 / 1e6);
    Window { rate, p99: quantile(&times, 0.99), gap }
}
