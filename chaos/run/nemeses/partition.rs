//! Partitions: machines of masters drop what comes from some of the others, by nftables on each machine. Clients still reach
//! every master, so that whoever is cut off can be asked, and must answer nothing that is stale.
//!
//! Every rule removes itself after a while, should the run be cut off from the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Nemesis, Strike};
use crate::Random;
use crate::run::stage::Stage;
use crate::run::targets::{Machine, Target, quoted};

/// A machine whose run has gone frees itself after so many looks, and what lies between them.
const LOOKS: u32 = 120;
const LOOK_EVERY: &str = "5s";
/// A flapping partition stands and rests for so long, in milliseconds.
const FLAP_MS: (u64, u64) = (300, 2_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Halves,
    /// One master is not heard.
    OneWay,
    /// One master hears nobody.
    Deaf,
    Bridge,
    CutOff,
    Flapping,
}

/// Who drops what comes from whom, by name.
pub type Cuts = BTreeSet<(String, String)>;

/// Both directions.
pub fn between(one: &[String], other: &[String]) -> Cuts {
    let pairs = |from: &[String], to: &[String]| -> Vec<(String, String)> {
        from.iter().flat_map(|a| to.iter().map(|b| (a.clone(), b.clone()))).collect()
    };
    pairs(one, other).into_iter().chain(pairs(other, one)).collect()
}

/// The cuts of a shape; `names` are in the seed's order. None: it takes more masters, or a leader.
pub fn cuts(shape: Shape, names: &[String], leader: Option<&String>) -> Option<Cuts> {
    let half = names.len() / 2;
    match shape {
        _ if names.len() < 2 => None,
        Shape::Halves | Shape::Flapping => Some(between(&names[..half], &names[half..])),
        Shape::OneWay => Some(names[1..].iter().map(|deaf| (deaf.clone(), names[0].clone())).collect()),
        Shape::Deaf => Some(names[1..].iter().map(|from| (names[0].clone(), from.clone())).collect()),
        // The first hears all; the rest is in two parts.
        Shape::Bridge if names.len() < 3 => None,
        Shape::Bridge => Some(between(&names[1..=half], &names[half + 1..])),
        Shape::CutOff => {
            let leader = leader?.clone();
            let rest: Vec<String> = names.iter().filter(|name| **name != leader).cloned().collect();
            Some(between(&[leader], &rest))
        }
    }
}

/// The script with which a machine drops what comes from these addresses, and the one that undoes it.
pub fn rules(table: &str, addresses: &[String]) -> (String, String) {
    let undo = format!("nft delete table inet {table} 2>/dev/null || true");
    let from = addresses.join(", ");
    let rules = format!(
        "table inet {table} {{ chain in {{ type filter hook input priority -10; ip saddr {{ {from} }} counter drop; }}; }}"
    );
    let still = format!("nft list table inet {table} >/dev/null 2>&1");
    let watch = format!(
        "looks=0; while [ $looks -lt {LOOKS} ] && {still}; do sleep {LOOK_EVERY}; looks=$((looks + 1)); done; {undo}"
    );
    let guard = format!("(setsid sh -c {} >/dev/null 2>&1 </dev/null &)", quoted(&watch));
    (format!("{undo}; nft {} && {guard}", quoted(&rules)), undo)
}

/// Scripts that undo what was done to machines, by machine.
pub type Undo = Vec<(String, String)>;

/// Puts the cuts in place; `undo` knows of each before it is made.
pub async fn cut(target: &dyn Target, table: &str, cuts: &Cuts, undo: &mut Undo) -> Result<()> {
    let machines: Vec<Machine> = target.masters().into_iter().chain(target.nodes()).collect();
    let address = |name: &String| {
        let machine = machines.iter().find(|machine| machine.name == *name);
        machine.map(|machine| machine.address.clone()).with_context(|| format!("there is no machine {name}"))
    };
    let deaf: BTreeSet<&String> = cuts.iter().map(|(deaf, _)| deaf).collect();
    for deaf in deaf {
        let from = cuts.iter().filter(|(to, _)| to == deaf).map(|(_, from)| address(from));
        let (act, back) = rules(table, &from.collect::<Result<Vec<_>>>()?);
        undo.push((deaf.clone(), back));
        target.shell(deaf, &act).await?;
    }
    Ok(())
}

/// Undoes it; what could not be undone stays in the list.
pub async fn mend(target: &dyn Target, undo: &mut Undo) -> Result<()> {
    while let Some((machine, script)) = undo.last() {
        target.shell(machine, script).await?;
        undo.pop();
    }
    Ok(())
}

pub struct Partition {
    shape: Shape,
    undo: Undo,
    flapping: Option<(CancellationToken, JoinHandle<Result<()>>)>,
}

pub fn make(shape: Shape) -> Box<dyn Nemesis> {
    Box::new(Partition { shape, undo: Vec::new(), flapping: None })
}

impl Partition {
    /// A name of its own for each strike, so that what guards an older one leaves it alone.
    fn table(&self, stage: &mut Stage) -> String {
        let shape = format!("{:?}", self.shape).to_lowercase();
        format!("hactl_chaos_{shape}_{:x}", stage.random.draw() & 0xFFFF)
    }
}

fn words(cuts: &Cuts) -> String {
    let both = |a: &String, b: &String| cuts.contains(&(b.clone(), a.clone()));
    let told: Vec<String> = cuts
        .iter()
        .filter(|(deaf, from)| !both(deaf, from) || deaf < from)
        .map(|(deaf, from)| if both(deaf, from) { format!("{deaf} | {from}") } else { format!("{from} ↛ {deaf}") })
        .collect();
    told.join(", ")
}

async fn flap(
    target: std::sync::Arc<dyn Target>,
    table: String,
    cuts: Cuts,
    mut random: Random,
    stop: CancellationToken,
) -> Result<()> {
    while !stop.is_cancelled() {
        let mut undo = Undo::new();
        let made = cut(&*target, &table, &cuts, &mut undo).await;
        let pause = Duration::from_millis(random.between(FLAP_MS.0, FLAP_MS.1));
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {} }
        mend(&*target, &mut undo).await?;
        made?;
        let pause = Duration::from_millis(random.between(FLAP_MS.0, FLAP_MS.1));
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {} }
    }
    Ok(())
}

#[async_trait]
impl Nemesis for Partition {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let leader = stage.leader();
        let names = stage.masters().into_iter().map(|master| master.name).collect();
        let names = stage.shuffled(names);
        let Some(cuts) = cuts(self.shape, &names, leader.as_ref()) else { return Ok(None) };
        let hit = leader.is_some_and(|leader| cuts.iter().any(|(deaf, from)| *deaf == leader || *from == leader));
        let what = words(&cuts);
        let table = self.table(stage);
        if self.shape == Shape::Flapping {
            let stop = CancellationToken::new();
            let random = stage.random.fork();
            let task = tokio::spawn(flap(stage.target.clone(), table, cuts, random, stop.clone()));
            self.flapping = Some((stop, task));
        } else {
            cut(&*stage.target, &table, &cuts, &mut self.undo).await?;
        }
        Ok(Some(Strike::at(what, hit)))
    }

    async fn heal(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some((stop, task)) = self.flapping.take() {
            stop.cancel();
            task.await??;
        }
        mend(&*stage.target, &mut self.undo).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn shapes() {
        let three = names(&["a", "b", "c"]);
        let check = |shape, leader: Option<&str>, expected: &str| {
            let leader = leader.map(str::to_owned);
            let found = cuts(shape, &three, leader.as_ref());
            assert_eq!(found.as_ref().map(words).unwrap_or_default(), expected, "{shape:?}");
        };
        check(Shape::Halves, None, "a | b, a | c");
        check(Shape::OneWay, None, "a ↛ b, a ↛ c");
        check(Shape::Deaf, None, "b ↛ a, c ↛ a");
        check(Shape::Bridge, None, "b | c");
        check(Shape::CutOff, Some("c"), "a | c, b | c");
        check(Shape::CutOff, None, "");
        let five = names(&["a", "b", "c", "d", "e"]);
        assert_eq!(cuts(Shape::Bridge, &five, None).map(|cuts| cuts.len()), Some(8), "two and two, both ways");
        assert_eq!(cuts(Shape::Halves, &names(&["a"]), None), None);
    }

    #[test]
    fn rules_undo_themselves() {
        let (act, undo) = rules("t", &names(&["10.0.0.1", "10.0.0.2"]));
        assert!(act.contains("ip saddr { 10.0.0.1, 10.0.0.2 } counter drop"), "{act}");
        let guard = act.split_once("setsid").expect("a guard").1;
        assert!(guard.contains("nft delete table inet t"), "{act}");
        assert_eq!(undo, "nft delete table inet t 2>/dev/null || true");
    }
}
