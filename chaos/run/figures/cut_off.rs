//! The leader is cut off from the other masters, clients reach all of them: how long until the others accept a write, and
//! whether anybody is told something stale, by the linearizability of registers that are read and written on all sides.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, Found, spread};
use crate::run::history::Micros;
use crate::run::laws;
use crate::run::nemeses::partition::{Undo, between, cut, mend};
use crate::run::workloads;

const LONGEST: Micros = 2_000_000;
/// It stays cut off for so long, longer than the others need.
const CUT: Duration = Duration::from_secs(4);
const TABLE: &str = "hactl_chaos_figure";

pub async fn measure(bench: &mut Bench) -> Result<Found> {
    let probe = bench.probe();
    let registers = bench.session.start(&[workloads::find("registers")?], false);
    bench.session.accepted().await?;
    let (mut gaps, mut cuts) = (Vec::new(), Vec::new());
    for _ in 0..bench.kills {
        let leader = bench.settled().await?;
        let stage = &bench.session.stage;
        let others: Vec<String> =
            stage.masters().into_iter().map(|master| master.name).filter(|name| *name != leader).collect();
        let at = stage.history.now();
        let mut undo = Undo::new();
        cut(&*stage.target, TABLE, &between(std::slice::from_ref(&leader), &others), &mut undo).await?;
        let from = stage.history.now();
        let gap = bench.gap(at).await;
        tokio::time::sleep(CUT).await;
        cuts.push((leader, from, bench.session.stage.history.now()));
        mend(&*bench.session.stage.target, &mut undo).await?;
        gaps.push(gap?);
        eprintln!("cut {}: {} ms", gaps.len(), gaps.last().map_or(0, |gap| gap / 1000));
    }
    bench.settled().await?;
    registers.end("a client").await?;
    probe.end("a writer").await?;
    let record = bench.session.stage.history.record();
    let judged = laws::registers(&record);
    // Stale is only what somebody asked for there.
    let asked = |(leader, from, to): &(String, Micros, Micros)| {
        let there = record.operations.iter().filter(|one| one.workload == "registers" && one.on == *leader);
        there.filter(|one| (*from..*to).contains(&one.begun)).count()
    };
    let asked: Vec<usize> = cuts.iter().map(asked).collect();
    let least = asked.iter().min().copied().unwrap_or_default();
    let stale = match (judged.broken.first(), judged.unknown.first()) {
        (Some(broken), _) => format!("STALE: {broken}"),
        (None, Some(unknown)) => format!("UNKNOWN: {unknown}"),
        (None, None) => format!(
            "nothing stale in {} registers, {} calls to leaders that were cut off, {least} or more to each",
            judged.checked,
            asked.iter().sum::<usize>()
        ),
    };
    let fresh = judged.broken.is_empty() && judged.unknown.is_empty();
    let words = format!("{}; {stale}", spread(&mut gaps));
    Ok(Found { words, good: fresh && least > 0 && gaps.last().is_some_and(|longest| *longest <= LONGEST) })
}
