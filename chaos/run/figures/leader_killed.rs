//! The leader's process is killed again and again.

use anyhow::Result;

use super::{Bench, Found, spread};
use crate::run::history::Micros;
use crate::run::report::quantile;
use crate::run::targets::Signal;

const MEDIAN_MAX: Micros = 500_000;
const P99_MAX: Micros = 1_500_000;

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    let mut gaps = Vec::new();
    for _ in 0..bench.kills {
        let leader = bench.settled().await?;
        let at = bench.session.stage.history.now();
        bench.session.stage.target.signal(&leader, Signal::Kill).await?;
        let gap = bench.gap(at).await;
        bench.session.stage.target.start(&leader).await?;
        gaps.push(gap?);
        eprintln!("kill {}: {leader}, {} ms", gaps.len(), gaps.last().map_or(0, |gap| gap / 1000));
    }
    bench.settled().await?;
    probe.end("a writer").await?;
    let words = spread(&mut gaps);
    let good = quantile(&gaps, 0.5) <= MEDIAN_MAX && quantile(&gaps, 0.99) <= P99_MAX;
    Ok(Found { words, good })
}
