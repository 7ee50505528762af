//! One-way and flapping partitions, one after the other: how often another master leads, against how often the topology
//! changed.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Bench, Found};
use crate::run::nemeses::partition::{Shape, Undo, cut, cuts, mend};
use crate::run::report::leader_changes;

const TABLE: &str = "hactl_chaos_figure";
/// A topology stays for so long, in milliseconds.
const STAYS_MS: (u64, u64) = (1_000, 6_000);

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    bench.settled().await?;
    let end = Instant::now() + bench.duration;
    let mut changes = 0;
    let stage = &mut bench.session.stage;
    let before = leader_changes(&stage.history.record().seats);
    while Instant::now() < end {
        let names = stage.masters().into_iter().map(|master| master.name).collect();
        let names = stage.shuffled(names);
        let shape = if stage.random.between(0, 2) == 0 { Shape::OneWay } else { Shape::Flapping };
        // One that flaps is put up and taken away several times, each a change.
        let times = if shape == Shape::Flapping { 3 } else { 1 };
        for _ in 0..times {
            let Some(cuts) = cuts(shape, &names, None) else { continue };
            let mut undo = Undo::new();
            cut(&*stage.target, TABLE, &cuts, &mut undo).await?;
            changes += 1;
            tokio::time::sleep(Duration::from_millis(stage.random.between(STAYS_MS.0, STAYS_MS.1))).await;
            mend(&*stage.target, &mut undo).await?;
            changes += 1;
            tokio::time::sleep(Duration::from_millis(stage.random.between(STAYS_MS.0, STAYS_MS.1))).await;
        }
    }
    bench.settled().await?;
    probe.end("a writer").await?;
    let leaders = leader_changes(&bench.session.stage.history.record().seats) - before;
    let words = format!("{leaders} changes of leader in {changes} changes of topology");
    Ok(Found { words, good: leaders <= changes && changes > 0 })
}
