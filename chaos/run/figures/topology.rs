//! One-way and flapping partitions, one after the other: how often another master leads within each topology.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Bench, Found};
use crate::run::history::Micros;
use crate::run::nemeses::partition::{Shape, Undo, cut, cuts, mend};
use crate::run::report::leader_changes;

const SHAPES: [Shape; 3] = [Shape::OneWay, Shape::Deaf, Shape::Flapping];
const TABLE: &str = "hactl_chaos_figure";
/// A topology stays for so long, in milliseconds.
const STAYS_MS: (u64, u64) = (1_000, 6_000);

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    bench.session.accepted().await?;
    bench.settled().await?;
    let end = Instant::now() + bench.duration;
    let mut changes = Vec::new();
    let stage = &mut bench.session.stage;
    while Instant::now() < end {
        let names = stage.masters().into_iter().map(|master| master.name).collect();
        let names = stage.shuffled(names);
        let shape = *stage.random.pick(&SHAPES).unwrap_or(&Shape::Flapping);
        // One that flaps is put up and taken away several times, each a change.
        let times = if shape == Shape::Flapping { 3 } else { 1 };
        for _ in 0..times {
            let Some(cuts) = cuts(shape, &names, None) else { continue };
            let mut undo = Undo::new();
            changes.push(stage.history.now());
            cut(&*stage.target, TABLE, &cuts, &mut undo).await?;
            tokio::time::sleep(Duration::from_millis(stage.random.between(STAYS_MS.0, STAYS_MS.1))).await;
            changes.push(stage.history.now());
            mend(&*stage.target, &mut undo).await?;
            tokio::time::sleep(Duration::from_millis(stage.random.between(STAYS_MS.0, STAYS_MS.1))).await;
        }
    }
    bench.settled().await?;
    probe.end("a writer").await?;
    let seats = bench.session.stage.history.record().seats.clone();
    let (leaders, most) = per_topology(&changes, &leader_changes(&seats));
    let words = format!("{leaders} changes of leader in {} changes of topology, at most {most} in one", changes.len());
    Ok(Found { words, good: most <= 1 && !changes.is_empty() })
}

/// How many changes of leader came after the first change of topology, and the most between two.
fn per_topology(changes: &[Micros], leaders: &[Micros]) -> (usize, usize) {
    let ends = changes.iter().copied().skip(1).chain([Micros::MAX]);
    let within = changes.iter().zip(ends);
    let counts: Vec<usize> =
        within.map(|(from, to)| leaders.iter().filter(|at| (*from..to).contains(*at)).count()).collect();
    (counts.iter().sum(), counts.into_iter().max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_leader_are_counted_per_topology() {
        assert_eq!(per_topology(&[10, 20, 30], &[5, 12, 25, 40]), (3, 1));
        assert_eq!(per_topology(&[10, 20, 30], &[12, 13, 14]), (3, 3));
        assert_eq!(per_topology(&[], &[1]), (0, 0));
    }
}
